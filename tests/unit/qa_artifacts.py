"""Artifacts of questions and answers for tests of paper B's stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tiny import as_artifact
from w2s.artifact import Artifact
from w2s.tables import read_parquet, write_parquet


def id_of(question: str) -> str:
    """A question's id, as import_questions makes it."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def questions_artifact(folder: Path, texts: Sequence[str], references: Sequence[str | None] = ()) -> Path:
    """Questions with references (none by default); returns the manifest."""
    table = pd.DataFrame({"id": list(map(id_of, texts)), "question": texts})
    table["reference"] = list(references) or [None] * len(texts)
    table["topic"] = None
    return as_artifact(folder, lambda target: write_parquet(table, target / "questions.parquet"))


def answers_artifact(
    folder: Path,
    ids: Sequence[str],
    questions: Sequence[str | None],
    answers: Sequence[str],
    ends: dict[int, str] | None = None,
    prompts: Path | None = None,
) -> Path:
    """Answers ("eos", but ``ends`` by row), made from ``prompts`` if given; returns the manifest."""
    finished = [(ends or {}).get(row, "eos") for row in range(len(ids))]
    columns = {"id": ids, "question": questions, "answer": answers, "tokens": 3, "finished": finished}
    parents = {"prompts": prompts} if prompts else {}
    manifest = folder / "manifest.json"
    with Artifact.create(manifest, spec={}, parents=parents, script=__file__) as artifact:
        write_parquet(pd.DataFrame(columns), artifact.path("answers.parquet"))
    return manifest


def answers_to_texts(
    folder: Path, texts: Sequence[str], answers: Sequence[str], ends: dict[int, str] | None = None
) -> Path:
    """Answers to questions of these texts."""
    return answers_artifact(folder, list(map(id_of, texts)), texts, answers, ends)


def rows_of(manifest: Path, name: str) -> pd.DataFrame:
    """A table of an artifact."""
    return read_parquet(manifest.parent / name, [])


def content(row: pd.Series) -> str:
    """A row's conversation in the plain form: contents joined by blank lines."""
    return "\n\n".join(message["content"] for message in json.loads(row["messages"]))
