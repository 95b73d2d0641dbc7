"""Chat templates, prompts and records for the tests of what local models read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tiny import as_artifact

# Writes BOS and EOS itself, which are one token here, and trims as most templates do.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}"
    "{{ eos_token if message['role'] == 'assistant' }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
)
DROPS_SYSTEM = TEMPLATE.replace("{% for message in messages %}", "{% for message in messages[1:] %}")


def said(user: str, system: str | None = None) -> list[dict[str, str]]:
    """A user's text, perhaps with a system text before it."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": user}]


def with_template(model: Path, folder: Path, template: str = TEMPLATE) -> Path:
    """A copy of the model's artifact whose tokenizer has a chat template; returns its manifest."""

    def fill(target: Path) -> None:
        for path in model.iterdir():
            if path.name not in ("manifest.json", "run.json"):
                shutil.copyfile(path, target / path.name)
        config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
        (target / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))

    return as_artifact(folder, fill)


def write(folder: Path, name: str, rows: Sequence[dict[str, object]]) -> Path:
    """An artifact with one table; ``messages`` of its rows are made JSON texts."""
    from w2s.tables import write_parquet

    table = pd.DataFrame([{**row, "messages": json.dumps(row["messages"])} for row in rows])
    return as_artifact(folder, lambda target: write_parquet(table, target / f"{name}.parquet"))
