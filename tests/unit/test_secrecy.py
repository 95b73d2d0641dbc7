"""The last words of a stage hold no secret of its environment, whoever wrote them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from w2s import secrecy

SECRETS = {
    "HF_TOKEN": "hf_planted0token1234",
    "OPENAI_API_KEY": "sk-planted-4f7a90be2d61",
    "AWS_SECRET_ACCESS_KEY": "planted/With+Slash/And+Plus/89ab",
    "GITHUB_TOKEN": "ghp_planted56789abcdef",
    "WANDB_API_KEY": "planted0wandb0key0123",
    "GOOGLE_CREDENTIALS": '{\n "private_key": "it\'s \\\\ planted\\n0key"\n}',
    # Not UTF-8: what os.environ makes of the bytes caf\xe9.
    "OTHER_KEY": "caf\udce9caf\udce9caf",
    "https_proxy": "http://someone:planted%21password@proxy.example:3128",
    "PIP_INDEX_URL": "https://ghp_planted0user0token@index.example/simple",
}
ADDRESSES = ("https_proxy", "PIP_INDEX_URL")
PARTS = [value for name, value in SECRETS.items() if name not in ADDRESSES]
PARTS += ["planted%21password", "planted!password", "ghp_planted0user0token"]


def spellings(secret: str) -> set[str]:
    """A secret as texts write it: as it is, in an address, and in quotes, by Python and by JSON."""
    return {
        *(secret, quote(os.fsencode(secret), safe=""), str([secret])[2:-2], str([secret + "'\""])[2:-5]),
        *(json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]),
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_secret_is_hidden_wherever_it_stands_and_however_it_is_spelt(part: str) -> None:
    for spelling in spellings(part):
        hidden = secrecy.hide(f"before {spelling} and http://user:{spelling}@host/x after", SECRETS)
        assert spelling not in hidden and "before [secret] and" in hidden and "@host/x after" in hidden


@pytest.mark.parametrize("user", ["user:pa@ssword1", "u:a'b", 'u:a"b', "ghp_0123456789", "user:", "a@b:c@d"])
def test_nothing_of_a_user_in_an_address_stays(user: str) -> None:
    text = f"see git+https://{user}@host/x, not me@home"
    assert secrecy.hide(text, {}) == "see git+https://[secret]@host/x, not me@home"


def test_an_address_says_its_secret_otherwise() -> None:
    text = "https://host/?key=planted%2FWith%2BSlash%2FAnd%2BPlus%2F89ab"
    assert secrecy.hide(text, SECRETS) == "https://host/?key=[secret]"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("W2S_OPT_TOKENIZER", "/data/opt-tokenizer"),
        ("TOKENIZERS_PARALLELISM", "somewhere"),
        ("API_KEY", "none"),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str) -> None:
    assert secrecy.hide(f"the folder {value}", {name: value}) == f"the folder {value}"


STAGE = """
import os, sys, threading
from w2s import cli
from w2s.errors import DataError

class Dropped:
    def __del__(self):
        fail()

def fail():
    kind, *names = sys.argv[1:]
    text = " ".join(os.environ[name] for name in names)
    if kind == "memory":
        text = "CUDA error: out of memory; " + text
    if kind == "environment":
        text = f"{dict(os.environ)}"
    raise (DataError if kind == "own" else RuntimeError)(text)

def main():
    if sys.argv[1] == "thread":
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    elif sys.argv[1] == "dropped":
        Dropped()
    else:
        fail()

cli.run(main)
"""
# How a stage ends that fails in this way; with a traceback unless it is told.
ENDS = {"own": 2, "other": 1, "environment": 1, "memory": 1, "thread": 0, "dropped": 0}
WITHOUT_TRACEBACK = ("own", "memory")


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("way", ["plain", "worker"])
def test_no_error_of_a_stage_tells(kind: str, way: str, tmp_path: Path) -> None:
    """Neither an error of ours nor a traceback, of a thread neither, in a new process or forked by the worker."""
    scripts = Path(secrecy.__file__).parents[1]
    (tmp_path / "stage.py").write_text(STAGE)
    start = [] if way == "plain" else [str(scripts / "w2s" / "worker.py"), "run"]
    environment = SECRETS | {"PYTHONPATH": str(scripts), "TMPDIR": str(tmp_path), "PATH": "/usr/bin"}
    environment |= {"W2S_WORKER_LIBRARIES": "", "W2S_WORKER_IDLE": "1"}
    done = subprocess.run(
        [sys.executable, *start, str(tmp_path / "stage.py"), kind, *SECRETS],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == ENDS[kind], done.stderr
    assert "[secret]" in done.stderr and ("Traceback" in done.stderr) == (kind not in WITHOUT_TRACEBACK)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for part in PARTS:
        assert base64.b64encode(os.fsencode(part)) not in files
        for spelling in spellings(part):
            assert spelling not in done.stderr and spelling not in done.stdout
            assert os.fsencode(spelling) not in files


def test_what_cannot_be_searched_is_not_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise ValueError("the search failed")

    monkeypatch.setattr(secrecy, "hide", fail)
    secrecy.report(RuntimeError, RuntimeError("planted"), None)
    assert capsys.readouterr().err == "RuntimeError: its words could not be searched for secrets\n"
