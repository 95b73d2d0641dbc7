"""Start-up of every script against the plain imports of the libraries, each in a new process.

Theirs is ``import torch, transformers, trl, datasets, accelerate, peft`` to its end, not to that of its process. Most of these load their parts
when asked for one: with the classes that a training takes from them it is longer (``theirs_with_trainers``).
Ours, by script: to the first look-up of embeddings of a tiny model, or (no batch, no torch) with everything imported that
the script may import; benchmarks/first_batch.py measures it. ``--help`` besides, and the first batch of a script that is forked
from a process that has the libraries (``runtime.launcher: worker``), on the wall's clock.

    python benchmarks/startup.py [--rounds 5] [--only score_responses ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import measure
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
FIRST_BATCH = Path(__file__).with_name("first_batch.py")
WORKER = SCRIPTS / "w2s" / "worker.py"
sys.path.insert(0, str(ROOT / "tests" / "unit"))

TARGET = 3.0
LIGHT_SECONDS = 0.5
STOP = (
    f"\nimport sys; sys.path.insert(0, {str(FIRST_BATCH.parent)!r}); import first_batch; first_batch.stop()"
)
PLAIN = "import torch, transformers, trl, datasets, accelerate, peft"
TRAINERS = f"""{PLAIN}
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer
from trl import DPOTrainer, RewardTrainer, SFTTrainer
"""
PAIRS = [(f"\n\nHuman: {row}?\n\nAssistant:", f" {row} cats eat fish.", " No.") for row in range(8)]
PARTS = ["unlabelled"] * 6 + ["test"] * 2
TRAINING = "--seed 1 --learning-rate 1e-3 --batch-size 2 --device cpu"
SIZES = "--width 16 --layers 1 --heads 2 --feed-forward 16 --positions 64 --max-tokens 64 --steps 2"


def inputs(folder: Path) -> dict[str, str]:
    """Arguments of each script that has a model, but for ``--output``; what they name is made in ``folder``."""
    import tiny
    from w2s.encoding import Encoding
    from w2s.tables import write_parquet

    examples = tiny.example_rows(PAIRS)
    encoding = Encoding(tiny.train_bpe(tiny.TEXTS), bos_id=2, eos_id=2, pad_id=1, positions=256)  # type: ignore[arg-type]
    tables = {
        "split/assignment": examples[["id"]].assign(part=PARTS),
        "labels/labels": labels(examples[:6]),
        "corpus/corpus": examples.rename(columns={"response_0": "response"}),
        "generations/generations": examples[["id", "prompt"]].assign(response=" No."),
    }
    for name, table in tables.items():
        stage, _, file = name.partition("/")
        tiny.as_artifact(
            folder / stage, lambda t, f=file, table=table: write_parquet(table, t / f"{f}.parquet")
        )
    sides = examples.assign(origin_split=["train"] * 6 + ["test"] * 2)

    def write_examples(target: Path) -> None:
        write_parquet(sides, target / "examples.parquet")
        write_parquet(labels(examples), target / "human.parquet")

    tiny.as_artifact(folder / "examples", write_examples)
    tiny.as_artifact(folder / "tokenizer", encoding.save)
    for name, classifier in (("model", False), ("judge", True)):
        tiny.as_artifact(folder / name, lambda t, c=classifier: write_model(t, folder / "tokenizer", c))
    found = arguments(folder)
    scored = [*found["score_responses"].split(), "--output", f"{folder}/scores/manifest.json"]
    run([sys.executable, str(SCRIPTS / "score_responses.py"), *scored])
    return found


def labels(examples: pd.DataFrame) -> pd.DataFrame:
    """Labels that prefer response 0."""
    return (
        examples[["id"]]
        .assign(label=0, margin=1.0, probability=0.0, source="human")
        .astype({"label": "int8"})
    )


def write_model(target: Path, tokenizer: Path, classifier: bool) -> None:
    """A tiny OPT of random weights, beside its tokenizer."""
    import tiny
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from w2s.encoding import Encoding
    from w2s.models import save_model

    config: Any = tiny.tiny_config("opt", Encoding.load(tokenizer).vocabulary_size, 256)
    config.num_labels = 1
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    save_model(kind.from_config(config), target, tokenizer)


def arguments(folder: Path) -> dict[str, str]:
    """The scripts that have a model, and their arguments."""

    def given(*names: str) -> str:
        return " ".join(f"--{name} {folder}/{name}/manifest.json" for name in names)

    rows = given("model", "examples", "split")
    sft = f"{rows} {given('labels')} --part unlabelled {TRAINING}"
    dpo = f"{sft} --reference-scores {folder}/scores/manifest.json --beta 0.1"
    judge = f"--model {folder}/judge/manifest.json {given('generations')} --gold judge --run models/tiny"
    return {
        "generate": f"{rows} --prompts 2 --max-new-tokens 2 --device cpu",
        "import_model": f"--source {folder}/model/manifest.json",
        "import_tokenizer": f"--source {folder}/model/manifest.json",
        "pretrain_model": f"{given('corpus', 'tokenizer')} {SIZES} {TRAINING}",
        "score_gold": f"{judge} --data tiny --share 1/2 --seed 1 --fallback-template plain --device cpu",
        "score_responses": f"{rows} --part unlabelled --device cpu",
        "train_reward_model": f"{given('model', 'examples')} --labels human {TRAINING}",
        "train_student_dpo": dpo,
        "train_student_sft": sft,
        "train_teacher_dpo": dpo,
        "train_teacher_sft": sft,
    }


def run(command: list[str]) -> str:
    """What a command writes; one that fails ends the benchmark."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def timed(command: list[str]) -> dict[str, float]:
    """Wall and processor seconds of a command."""
    started, before = time.perf_counter(), os.times()
    run(command)
    wall, after = time.perf_counter() - started, os.times()
    return {"wall": wall, "processor": sum(after[2:4]) - sum(before[2:4])}


def forked(script: str, known: dict[str, str], folder: str) -> dict[str, float]:
    """Seconds until a script is at its first batch where it is forked from a process that has the libraries.

    Seen from outside, from the client's start to its end. Processor time is not known: it is the server's.
    """
    path, output = SCRIPTS / f"{script}.py", tempfile.mkdtemp(dir=folder)
    given = [*known[script].split(), "--output", f"{output}/{script}/manifest.json"]
    took = timed([sys.executable, str(WORKER), "run", str(FIRST_BATCH), str(path), *given])
    return {**took, "processor": took["wall"]}


def begun(script: str, known: dict[str, str], folder: str) -> dict[str, Any]:
    """Seconds until a script is at its work."""
    command = [sys.executable, str(FIRST_BATCH)]
    path = str(SCRIPTS / f"{script}.py")
    if script not in known:
        return json.loads(run([*command, "--imports", path]))
    mode = ["--whole"] if script.startswith("import_") else []
    output = tempfile.mkdtemp(dir=folder)
    given = [*known[script].split(), "--output", f"{output}/{script}/manifest.json"]
    return json.loads(run([*command, *mode, path, *given]).splitlines()[-1])


def measured(names: list[str], known: dict[str, str], folder: str, rounds: int) -> dict[str, Any]:
    """Rounds of everything in turn: the plain imports, then each script's help and beginning."""
    found: dict[str, list[Any]] = {"plain": [], "trainers": []} | {
        f"{kind} {name}": [] for name in names for kind in (*KINDS, "worker")
    }
    batched = [name for name in names if name in known and not name.startswith("import_")]
    for _ in range(rounds):
        for name, imports in (("plain", PLAIN), ("trainers", TRAINERS)):
            found[name].append(json.loads(run([sys.executable, "-c", imports + STOP])))
        for name in names:
            found[f"help {name}"].append(timed([sys.executable, str(SCRIPTS / f"{name}.py"), "--help"]))
            found[f"work {name}"].append(begun(name, known, folder))
        forked(batched[0], known, folder)  # it has a minute without work to live
        for name in batched:
            found[f"worker {name}"].append(forked(name, known, folder))
    return found


KINDS = ("help", "work")


def table(found: dict[str, list[Any]], names: list[str], known: dict[str, str], clock: str) -> dict[str, Any]:
    """Medians of each script, and whether they are what is aimed at."""
    rows = {}
    for name in names:
        work = [one[clock] for one in found[f"work {name}"]]
        row: dict[str, Any] = {kind: typical(found[f"{kind} {name}"], clock) for kind in KINDS}
        if found[f"worker {name}"]:
            row["worker"] = typical(found[f"worker {name}"], clock)
        if name in known:
            plain = [one[clock] for one in found["plain"]]
            row["ratio"] = round(median(b / a for a, b in zip(work, plain, strict=True)), 2)
            row["met"] = row["ratio"] >= TARGET
        else:
            row["met"] = row["work"] < LIGHT_SECONDS
        rows[name] = row
    return rows


def typical(rounds: list[dict[str, float]], clock: str) -> float:
    """The median, in seconds."""
    return round(median(one[clock] for one in rounds), 3)


def result(args: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    clock = "processor" if os.environ.get("W2S_BENCH_CLOCK") == "processor" else "wall"
    names = args.only or sorted(path.stem for path in SCRIPTS.glob("*.py"))
    with tempfile.TemporaryDirectory() as folder:
        known = inputs(Path(folder))
        found = measured(names, known, folder, args.rounds)
    rows = table(found, names, known, clock)
    slowest = max((name for name in names if name in known), key=lambda name: rows[name]["work"])
    return {
        "name": "startup",
        "ours": rows[slowest]["work"],
        "theirs": typical(found["plain"], clock),
        "theirs_with_trainers": typical(found["trainers"], clock),
        "unit": "s to the first batch" + (" of one core" if clock == "processor" else ""),
        "ratio": rows[slowest]["ratio"],
        "target": TARGET,
        "target_without_model_s": LIGHT_SECONDS,
        "met": all(row["met"] for row in rows.values()),
        "slowest": slowest,
        "worker": max(row.get("worker", 0.0) for row in rows.values()),
        "rounds": args.rounds,
        "scripts": rows,
        "environment": measure.environment(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of scripts; at least one with a model")
    measure.write(result(parser.parse_args()))


if __name__ == "__main__":
    main()
