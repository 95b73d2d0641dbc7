"""Stand-ins for the stages that need network, weights or a GPU.

Copied beside the scripts of a copy of the repository; ``install`` of conftest.py makes each heavy script end in
``play(main)`` instead of ``run(main)``. A stand-in takes its command line through the script's *own* parser, so that a
rule that passes a flag which the script does not know fails here as it would on a cluster, and it leaves an artifact of
the same form, small, and a function of its command line and of its parents only.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from w2s import cli
from w2s.artifact import Artifact, Draft, load
from w2s.tables import ASSIGNED

# Figure 2a, whose stages have stand-ins. The paper's judge has no known revision; a run needs one, and no GPU here.
FAKE_RUN = """
run: [a_figure_2a]
runtime: {needs_gpu: false, threads: 1}
sources: {gold-mistral-7b: {revision: "0000000000000000000000000000000000000000"}}
"""
ROWS = 300
TOPICS = ("cats", "bread", "rain", "chess", "maps", "tea", "trains", "verbs", "stars", "soap")
# Mean gold reward of an arm over the un-tuned model: what the tables must show again.
EFFECTS = {"untuned": 0.0, "human-sft": 0.6, "human-dpo": 1.2, "weak-sft": 0.5, "weak-dpo": 1.5}
WEAK_ACCURACY = 0.6


class Parsed(Exception):
    """The real script has read its command line."""


class WithoutPandas:
    """An import hook that knows no pandas."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse pandas, leave anything else to the other hooks."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def play(main: Callable[[], object]) -> None:
    """Make the artifact of the script that runs, without doing its work."""
    args = parsed(main)
    stage = Path(sys.argv[0]).stem
    parents = {name: value for name, value in vars(args).items() if name != "output" and is_input(value)}
    with Artifact.create(args.output, spec=args.spec, parents=parents, script=sys.argv[0]) as artifact:
        STAGES[stage](args, artifact)


def parsed(main: Callable[[], object]) -> argparse.Namespace:
    """The command line as the real script's parser reads it; nothing after the parsing runs."""
    found: list[argparse.Namespace] = []
    parse = cli.StageParser.parse_args

    def stop(parser: cli.StageParser, argv: Any = None) -> argparse.Namespace:
        found.append(parse(parser, argv))
        raise Parsed

    cli.StageParser.parse_args = stop  # type: ignore[method-assign, assignment]
    try:
        main()
    except Parsed:
        return found[0]
    raise AssertionError("the script does not read its command line with StageParser")


def is_input(value: object) -> bool:
    """Whether an argument's value is a manifest or a list of them."""
    if isinstance(value, list):
        return bool(value) and all(is_input(item) for item in value)
    return isinstance(value, Path) and value.name == "manifest.json"


def chance(*parts: object) -> float:
    """A number in [0, 1) that these parts decide."""
    text = "\0".join(map(str, parts))
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def dialogue(number: int) -> dict[str, str]:
    """Row ``number`` of the synthetic HH data: one or two turns, some rows that the filter must drop."""
    topic = TOPICS[number % len(TOPICS)]
    prompt = f"\n\nHuman: Question {number} about {topic}?\n\nAssistant:"
    if number % 3 == 0:
        prompt += f" Which one?\n\nHuman: The {topic} of number {number}.\n\nAssistant:"
    good, bad = f" Here is what I know of {topic}, number {number}.", f" No idea about {topic}."
    if number % 50 == 7:
        bad = good
    if number % 50 == 11:
        good += " and so on" * 400
    return {"chosen": prompt + good, "rejected": prompt + bad}


def fetch(args: argparse.Namespace, artifact: Draft) -> None:
    """A data set: HH rows in the declared files; a model: a file that stands for its weights."""
    names = [entry.rpartition("=")[0] for entry in args.files]
    ledger = {}
    if args.kind == "dataset":
        for index, name in enumerate(names):
            rows = [dialogue(number) for number in range(index, ROWS, len(names))]
            content = "".join(json.dumps(row) + "\n" for row in rows).encode()
            artifact.path(name).write_bytes(gzip.compress(content, mtime=0))
            ledger[name] = len(rows)
    else:
        artifact.path("weights.txt").write_text(f"{args.origin}@{args.revision}")
    artifact.record(
        kind=args.kind, origin=args.origin, revision=args.revision, licence=args.licence, ledger=ledger
    )


def import_tokenizer(args: argparse.Namespace, artifact: Draft) -> None:
    """A small byte-level BPE with OPT's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from w2s.encoding import Encoding

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((dialogue(number)["chosen"] for number in range(0, ROWS, 10)), trainer)
    Encoding(tokenizer, bos_id=2, eos_id=2, pad_id=1, positions=2048).save(artifact.folder)


def model(args: argparse.Namespace, artifact: Draft) -> None:
    """Weights that are a digest of everything they depend on."""
    inputs = [
        load(value).digest
        for value in vars(args).values()
        if isinstance(value, Path) and value != args.output
    ]
    digest = hashlib.sha256(json.dumps([args.spec, inputs], sort_keys=True).encode()).hexdigest()
    artifact.path("model.safetensors").write_text(digest)
    artifact.record(weights=digest[:8])


def training(args: argparse.Namespace, artifact: Draft) -> None:
    """A model and the history of its training."""
    model(args, artifact)
    rows = "".join(f"{step},{2 / step}\n" for step in range(1, 5))
    artifact.path("history.csv").write_text("step,loss\n" + rows)


def examples_of(args: argparse.Namespace, part: str) -> Iterator[dict[str, Any]]:
    """Examples of one part of a split, sorted by id."""
    parts = ASSIGNED.get(part, (part,))
    ids = {row["id"] for row in read(args.split, "assignment.parquet") if row["part"] in parts}
    rows = read(args.examples, "examples.parquet")
    return (row for row in sorted(rows, key=lambda row: row["id"]) if row["id"] in ids)


def read(manifest: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a table."""
    return parquet_library().ParquetFile(load(manifest).path(name)).read().to_pylist()


def parquet_library() -> Any:
    """pyarrow's, kept from loading pandas, which it can do without and which takes longer than all of this."""
    sys.meta_path.insert(0, WithoutPandas())
    from pyarrow import parquet

    return parquet


def write(artifact: Draft, name: str, rows: list[dict[str, Any]]) -> None:
    """A table from its rows."""
    library = parquet_library()
    import pyarrow

    library.write_table(pyarrow.Table.from_pylist(rows), artifact.path(name))


def score_responses(args: argparse.Namespace, artifact: Draft) -> None:
    """Log-probabilities; after DPO a model prefers what humans prefer, six times out of ten."""
    preferred = {row["id"]: row["label"] for row in read(args.examples, "human.parquet")}
    tuned = load(args.model).manifest["stage"].endswith("_dpo")
    weights = load(args.model).path("model.safetensors").read_text()
    rows = []
    for example in examples_of(args, args.part):
        right = chance("teacher", example["id"]) < WEAK_ACCURACY
        liked = preferred[example["id"]] if right else 1 - preferred[example["id"]]
        for response in (0, 1):
            count = len(example[f"response_{response}"]) // 4 + 1
            shift = 5 * chance("margin", example["id"]) if tuned and response == liked else 0.0
            total = -2.5 * count + chance(example["id"], response) + shift
            rows.append(
                {"id": example["id"], "response": response, "log_prob_sum": total, "token_count": count}
            )
    write(artifact, "scores.parquet", rows)
    artifact.record(weights_digest=weights, tokenizer_digest="fake", examples=len(rows) // 2)


def generate(args: argparse.Namespace, artifact: Draft) -> None:
    """An answer to each of the first prompts of the test part."""
    weights = load(args.model).path("model.safetensors").read_text()
    chosen: dict[str, dict[str, Any]] = {}
    for example in examples_of(args, "test"):
        chosen.setdefault(example["prompt"], example)
    rows = []
    for example in list(chosen.values())[: args.prompts]:
        draw = chance(weights, args.seed, example["id"])
        text = f" Answer {draw:.6f}."
        finished = "length" if draw < 0.1 else "eos"
        rows.append(
            {
                "id": example["id"],
                "prompt": example["prompt"],
                "response": text,
                "tokens": 9,
                "finished": finished,
            }
        )
    write(artifact, "generations.parquet", rows)
    artifact.record(rows_out=len(rows))


def score_gold(args: argparse.Namespace, artifact: Draft) -> None:
    """Rewards: the arm's effect and a draw that is the prompt's own."""
    kind, *rest = args.run.split("/")
    arm = "untuned" if kind == "models" else f"{rest[1].split('-')[0]}-{rest[-1]}"
    rows = read(args.generations, "generations.parquet")
    rewards = [
        {
            "id": row["id"],
            "reward": EFFECTS[arm] + chance("prompt", row["id"]) + 0.2 * chance(args.run, row["response"]),
        }
        for row in rows
    ]
    write(artifact, "rewards.parquet", rewards)
    artifact.record(rows_out=len(rewards))


STAGES: dict[str, Callable[[argparse.Namespace, Draft], None]] = {
    "fetch": fetch,
    "import_tokenizer": import_tokenizer,
    "import_model": model,
    "train_teacher_sft": training,
    "train_teacher_dpo": training,
    "train_student_sft": training,
    "train_student_dpo": training,
    "score_responses": score_responses,
    "generate": generate,
    "score_gold": score_gold,
}
