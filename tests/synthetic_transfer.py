"""Made-up scores of a transfer with known means, for tests of its tables and figures only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tabulate_transfer
from w2s.artifact import Artifact
from w2s.tables import write_parquet
from w2s.transfer_runs import AnswersName, RecordsName, path, records_path

TRAIN, TEST = "dolly", "truthful"
# Test answers of the persona experiment's shape: (content, style) on 0..10.
MEANS = {
    "untuned": (8.0, 2.0),
    "teacher": (3.0, 7.0),
    "naive": (3.2, 7.0),
    "icl": (7.5, 5.0),
    "infer": (7.0, 8.5),
    "own": (8.0, 2.1),
    "gold": (8.5, 9.0),
    "timed": (7.6, 5.5),
}
BETTER = {"falcon": 0.0, "llama": 2.0}
REFINEMENTS = {
    "naive": {"kind": "weak"},
    "icl": {"kind": "icl", "shown": 4, "choice": "consecutive"},
    "infer": {"kind": "infer"},
    "own": {"kind": "own"},
    "gold": {"kind": "gold"},
    "timed": {"kind": "icl", "shown": 4, "choice": "consecutive", "at_test_time": True},
}
STRONG = "gpt"


def names(seed: int, questions: Sequence[str] = (TEST,), task: str = "persona") -> dict[AnswersName, tuple]:
    """All test answers of one seed, and what they are: (arm, weak)."""
    found: dict[AnswersName, tuple] = {}
    for where in questions:
        cell, tuned = (task, where, seed), {"base": STRONG, "fine_tuning": "default"}
        found[AnswersName(*cell, "plain", writer=STRONG)] = ("untuned", "")
        found[AnswersName(*cell, "tuned", refiner=STRONG, refinement="own", **tuned)] = ("own", "")
        found[AnswersName(*cell, "tuned", refinement="gold", **tuned)] = ("gold", "")
        for weak in BETTER:
            found[AnswersName(*cell, "weak", writer=weak)] = ("teacher", weak)
            found[AnswersName(*cell, "tuned", weak=weak, refinement="naive", **tuned)] = ("naive", weak)
            timed = AnswersName(*cell, "refined", weak=weak, refiner=STRONG, refinement="timed")
            found[timed] = ("timed", weak)
            for refinement in ("icl", "infer"):
                name = AnswersName(
                    *(*cell, "tuned"), weak=weak, refiner=STRONG, refinement=refinement, **tuned
                )
                found[name] = (refinement, weak)
    return found


def scores(content: float, style: float, *, items: int, judge: str = "") -> pd.DataFrame:
    """Scores whose means are exactly these; questions differ, alike in all arms."""
    spread = np.linspace(-1, 1, items)
    rows = [("content", judge, content), ("style", judge, style), ("words", "", 80.0)]
    frames = [
        pd.DataFrame(
            {"id": [f"q{i:03}" for i in range(items)], "metric": metric, "judge": by, "value": mean + spread}
        )
        for metric, by, mean in rows
    ]
    return pd.concat(frames, ignore_index=True)


def write_scores(root: Path, name: AnswersName, table: pd.DataFrame) -> Path:
    """A scores artifact where the workflow would have it."""
    manifest = root / "scores/b" / path(name) / "manifest.json"
    with Artifact.create(manifest, spec={}, parents={}, script=__file__) as artifact:
        write_parquet(table, artifact.path("scores.parquet"))
    return manifest


def write_records(root: Path, name: RecordsName, kept: int, dropped: Mapping[str, int]) -> Path:
    """A training set of so many rows and dropped rows by reason."""
    manifest = root / records_path(name) / "manifest.json"
    reasons = [reason for reason, rows in dropped.items() for _ in range(rows)]
    with Artifact.create(manifest, spec={}, parents={}, script=__file__) as artifact:
        frame = pd.DataFrame(
            {"id": [f"q{i}" for i in range(kept)], "messages": "[]", "answer": "a", "source": "weak"}
        )
        write_parquet(frame, artifact.path("records.parquet"))
        frame = pd.DataFrame(
            {"id": [f"d{i}" for i in range(len(reasons))], "source": "weak", "reason": reasons}
        )
        write_parquet(frame.astype(str), artifact.path("dropped.parquet"))
    return manifest


def write_all(
    root: Path, *, seeds: int = 3, items: int = 20, judge: str = "", questions: Sequence[str] = (TEST,)
) -> list[Path]:
    """The scores of a whole transfer: test answers, and labels of three refinements."""
    manifests = []
    for seed in range(seeds):
        for name, (arm, weak) in names(seed, questions).items():
            content, style = MEANS[arm]
            shift = BETTER.get(weak, 0.0) if arm in ("teacher", "naive") else 0.0
            table = scores(content + shift, style, items=items, judge=judge)
            manifests.append(write_scores(root, name, table))
        train = ("persona", TRAIN, seed)
        for weak in BETTER:
            icl = {"weak": weak, "refiner": STRONG, "refinement": "icl"}
            for name in (AnswersName(*train, "weak", writer=weak), AnswersName(*train, "refined", **icl)):
                manifests.append(write_scores(root, name, scores(4.0, 6.0, items=items, judge=judge)))
        own = AnswersName(*train, "plain", writer=STRONG)
        manifests.append(write_scores(root, own, scores(8.0, 2.0, items=items, judge=judge)))
    return manifests


def tabulate(
    root: Path,
    manifests: Sequence[Path],
    *,
    records: Sequence[Path] = (),
    experiment: str = "b_persona",
    refinements: Mapping[str, Mapping] = REFINEMENTS,
) -> Path:
    """Run the script; the manifest of its tables."""
    output = root / "tables" / experiment / "manifest.json"
    arguments = [
        "--scores",
        *manifests,
        "--records",
        *records,
        "--output",
        output,
        "--experiment",
        experiment,
    ]
    arguments += ["--training", TRAIN, "--refinements", json.dumps(refinements), "--bootstrap", 200]
    tabulate_transfer.main([str(argument) for argument in arguments])
    return output


def make_transfer(root: Path, **settings) -> Path:
    """Tables of a whole made-up transfer."""
    experiment = settings.pop("experiment", "b_persona")
    return tabulate(root, write_all(root, **settings), experiment=experiment)


def make_ablation(root: Path, shown: Sequence[int] = (1, 2, 4, 8), again: bool = False) -> Path:
    """Tables of an ablation: content grows by 0.5 per doubling of the examples; ``again`` repeats a place."""
    refinements = {"naive": {"kind": "weak"}, "own": {"kind": "own"}}
    tuned = {"base": STRONG, "fine_tuning": "default"}
    cell, by = ("persona", TEST, 0), {"weak": "falcon", "refiner": STRONG}
    manifests = [
        write_scores(root, AnswersName(*cell, "plain", writer=STRONG), scores(8.0, 2.0, items=8)),
        write_scores(root, AnswersName(*cell, "weak", writer="falcon"), scores(3.0, 7.0, items=8)),
        write_scores(
            root,
            AnswersName(*cell, "tuned", weak="falcon", refinement="naive", **tuned),
            scores(3.2, 7.0, items=8),
        ),
        write_scores(
            root,
            AnswersName(*cell, "tuned", refiner=STRONG, refinement="own", **tuned),
            scores(6.0, 2.0, items=8),
        ),
    ]
    for place, examples in enumerate([*shown, *(shown[:1] if again else ())]):
        for kind, shift in (("tuned", 0.0), ("refined", 0.2)):
            role = "icl" if kind == "tuned" else "timed"
            name = f"{role}-{examples}" + ("-again" if place == len(shown) else "")
            refinements[name] = {"kind": "icl", "shown": examples, "choice": "consecutive"}
            answers = AnswersName(*cell, kind, **by, refinement=name, **(tuned if kind == "tuned" else {}))
            score = 6.0 + 0.5 * np.log2(2 * examples) + shift
            manifests.append(write_scores(root, answers, scores(score, 5.0, items=8)))
    return tabulate(root, manifests, experiment="b_examples", refinements=refinements)
