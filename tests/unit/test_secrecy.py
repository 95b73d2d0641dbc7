"""The last words of a stage hold no secret of its environment, whoever wrote them."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from w2s import secrecy

SECRETS = {
    "HF_TOKEN": "hf_planted0token1234",
    "OPENAI_API_KEY": "sk-planted-4f7a90be2d61",
    "AWS_SECRET_ACCESS_KEY": "planted/With+Slash/And+Plus/89ab",
    "GITHUB_TOKEN": "ghp_planted56789abcdef",
    "WANDB_API_KEY": "planted0wandb0key0123",
    "https_proxy": "http://someone:planted%21password@proxy.example:3128",
}
PARTS = [value for name, value in SECRETS.items() if name != "https_proxy"] + [
    "planted%21password",
    "planted!password",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_secret_is_hidden_wherever_it_stands(part: str) -> None:
    hidden = secrecy.hide(f"before {part} and http://user:{part}@host/x after", SECRETS)
    assert part not in hidden and "before [secret] and" in hidden and "@host/x after" in hidden


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
import os, sys
from w2s import cli
from w2s.errors import DataError

def main():
    text = " ".join(os.environ[name] for name in sys.argv[2:])
    raise {"own": DataError, "other": RuntimeError}[sys.argv[1]](text)

cli.run(main)
"""


@pytest.mark.parametrize("kind", ["own", "other"])
@pytest.mark.parametrize("way", ["plain", "worker"])
def test_no_error_of_a_stage_tells(kind: str, way: str, tmp_path: Path) -> None:
    """Neither an error of ours nor a traceback, in a new process or forked by the worker."""
    scripts = Path(secrecy.__file__).parents[1]
    (tmp_path / "stage.py").write_text(STAGE)
    start = [] if way == "plain" else [str(scripts / "w2s" / "worker.py"), "run"]
    environment = SECRETS | {"PYTHONPATH": str(scripts), "TMPDIR": str(tmp_path), "PATH": "/usr/bin"}
    environment |= {"W2S_WORKER_LIBRARIES": "", "W2S_WORKER_IDLE": "1"}
    done = subprocess.run(
        [sys.executable, *start, str(tmp_path / "stage.py"), kind, *SECRETS],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == {"own": 2, "other": 1}[kind]
    assert "[secret]" in done.stderr and ("Traceback" in done.stderr) == (kind == "other")
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for part in PARTS:
        assert part not in done.stderr and part not in done.stdout
        assert part.encode() not in files and base64.b64encode(part.encode()) not in files
