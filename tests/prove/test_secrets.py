"""Secrets of the environment are in no file of a run: results, logs, reports, Snakemake's records, the judge's store.

One folder sees a run with a refused key (the endpoint repeats it), with an address that holds a password, with a stage
that crashes and whose exception quotes the environment, and at last with success; then every byte of it is searched.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from small_demo import prepare, run

# isort: split
from judge_server import Server, status

SECRETS = {
    "OPENAI_API_KEY": "sk-planted-91c3d07e5ab24f68",
    "HF_TOKEN": "hf_planted0Q7rT2mXw9",
    "AWS_SECRET_ACCESS_KEY": "planted/Kd83+vBq/Zs61+LmPx0",
    "GITHUB_TOKEN": "ghp_planted5Yt8Nc4Ue1",
    "WANDB_API_KEY": "planted7e0d4c9b2a6f8135",
    # Of several lines, with what Python and JSON escape.
    "GOOGLE_CREDENTIALS": '{\n "private_key": "it\'s \\\\ planted\\n3cV8yD"\n}',
    "https_proxy": "http://somebody:planted%21Rw6Hj3@proxy.example:3128",
}
IN_ADDRESS = "planted-in-the-address-5d2f"
PARTS = [value for name, value in SECRETS.items() if name != "https_proxy"]
PARTS += ["planted%21Rw6Hj3", "planted!Rw6Hj3", IN_ADDRESS]
ENVIRONMENT = SECRETS | {"no_proxy": "127.0.0.1"}
WORK = """
if __name__ == "__main__":
    import os

    def crash() -> int:
        raise RuntimeError(f"the environment is {dict(os.environ)}")

    cli.run(crash)
"""


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it is, as an address writes it, escaped in two ways, and in base64 wherever in a text it begins."""
    content = secret.encode()
    yield from {
        content,
        quote(secret, safe="").encode(),
        json.dumps(secret)[1:-1].encode(),
        repr(secret)[1:-1].encode(),
        content.hex().encode(),
    }
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + content)
        # Without the ends that depend on the neighbours.
        yield whole[4 if shift else 0 : (shift + len(content)) // 3 * 4]


def found(folder: Path) -> list[str]:
    """Files with a secret in them, or in their names; links are followed by nobody."""
    wanted = [(secret, spelling) for secret in PARTS for spelling in spellings(secret)]
    hits = []
    for path in folder.rglob("*"):
        content = str(path).encode() + (
            path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        )
        hits += [f"{path}: {secret}" for secret, spelling in wanted if spelling in content]
    return hits


@pytest.mark.parametrize("secret", PARTS)
def test_the_search_finds_what_is_there(secret: str, tmp_path: Path) -> None:
    texts = [secret.encode(), quote(secret, safe="").encode(), secret.encode().hex().encode()]
    texts += [json.dumps({"x": secret}).encode(), repr({"x": secret}).encode()]
    texts += [base64.b64encode(f"{'x' * n}:{secret}:x".encode()) for n in range(3)]
    for text in texts:
        (tmp_path / "file").write_bytes(b"\x00\xff" + text + b"\n")
        assert f"{tmp_path / 'file'}: {secret}" in found(tmp_path)
    (tmp_path / "file").write_bytes(b"nothing")
    assert found(tmp_path) == []


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    folder = prepare(tmp_path / "demo", isolated=False)
    key = SECRETS["OPENAI_API_KEY"]
    stage = folder / "scripts" / "judge_comparisons.py"
    with Server() as server:
        here = ENVIRONMENT | {"OPENAI_BASE_URL": server.url}
        server.faults = [status(401, f"Incorrect API key provided: {key}.", "invalid_api_key")] * 4
        refused = run(folder, **here)
        assert refused.returncode != 0 and "HTTP 401" in refused.stdout, refused.stdout[-6000:]
        server.faults.clear()

        address = server.url.replace("//", f"//somebody:{IN_ADDRESS}@")
        elsewhere = run(folder, **here | {"OPENAI_BASE_URL": address})
        assert elsewhere.returncode != 0 and "holds more than host and path" in elsewhere.stdout

        whole = stage.read_text()
        stage.write_text(whole.partition('if __name__ == "__main__":')[0] + WORK.lstrip())
        crashed = run(folder, **here)
        assert crashed.returncode != 0 and "RuntimeError: the environment is" in crashed.stdout
        assert "Traceback" in crashed.stdout and "[secret]" in crashed.stdout
        shutil.copy(folder / "terminal.log", folder / "failures.log")
        stage.write_text(whole)

        done = run(folder, **here)
        assert done.returncode == 0, done.stdout[-6000:]
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {key}"}, (
            "the key was used"
        )

    store = sqlite3.connect(folder / "resources" / "replies" / "endpoint.sqlite")
    assert store.execute("select count(*) from outcomes").fetchone()[0] > 0
    store.close()
    assert (folder / "results" / "small" / "report.html").is_file() and (folder / ".snakemake").is_dir()
    assert found(folder) == []
    record_property("cases", sum(path.is_file() for path in folder.rglob("*")))
