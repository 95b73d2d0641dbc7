"""Import questions: of a fetched data set, of a built-in list, of a concept world, or written by a model.

The id of a question is a hash of its text, so that a question is the same one wherever it comes from; a row that
repeats a question is dropped. The order is that of the source.

inputs:  fetched sources, or (adapter ``written``) answers that hold lists of questions; none for ``jobs``, ``topics`` and ``world``
outputs: questions.parquet (id, question, reference, topic; the last two may be missing); drops.csv (reason, rows): rows
         of the source = questions kept + rows dropped by reason

Which of the questions, in this order: one part of them (``--part``, sizes in the proportion of ``--shares``, drawn by
``--seed``; both parts share no question); then the first N (``--first``), a random sample (``--sample``, by ``--seed``)
or pinned rows (``--indices``). Paper B trains the persona on the first 100 instructions of Dolly, and splits 300 science
questions into 200 and 100.

Pinned rows are counted from 0 over the rows of the source as they stand in its file, as tinyBenchmarks counts its anchor
points. The paper's test sets tinyTruthfulQA and tinyAlpacaEval are such choices of 100. Which rows they are is published
in a pickle alone, and no stage reads pickles. Those of tinyTruthfulQA stand in config.yaml, found by their questions;
of AlpacaEval the catalogue takes ``--first 100``. The anchor points of tinyBenchmarks' tutorial (100 of 817 of
TruthfulQA, 100 of 1,319 of GSM8K) are other items than the published small sets'. The weights that come with anchor
points are not used: the paper's scores are plain means.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s import question_adapters as adapters
from w2s.artifact import Artifact, load
from w2s.errors import ConfigError, DataError
from w2s.markers import count_words
from w2s.question_adapters import Found, Question, question_id
from w2s.tables import check_unique, read_parquet, write_csv, write_parquet

if TYPE_CHECKING:
    import pandas as pd

JOBS, TOPICS, WRITTEN, WORLD = "jobs", "topics", "written", "world"
DUPLICATE, OTHER_PART, NOT_SELECTED = "duplicate", "other_part", "not_selected"
REASONS = (*adapters.DROP_REASONS, DUPLICATE, OTHER_PART, NOT_SELECTED)
PARTS = ("train", "test")
COLUMNS = ["id", "question", "reference", "topic"]
# Settings that belong to one adapter each.
OWN_SETTINGS = {
    "--answers": ("answers", (WRITTEN,)),
    "--form": ("form", (JOBS,)),
    "--world": ("world", (WORLD,)),
    "--style": ("style", (WORLD,)),
    "--items": ("items", (WORLD,)),
    "--without-context": ("without_context", ("dolly",)),
    "--files": ("files", tuple(adapters.ADAPTERS)),
    "--sources": ("sources", tuple(adapters.ADAPTERS)),
}
NEEDED = {
    WRITTEN: ("--answers",),
    JOBS: ("--form",),
    TOPICS: (),
    WORLD: ("--world", "--items", "--part"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Import one set of questions."""
    args = arguments(argv)
    reasons: list[str | None]
    if args.adapter == WORLD:
        table, reasons = world_questions(args), [None] * args.items
    else:
        found = collect(args)
        reasons = choose(found, args)
        table = to_table([row for row, reason in zip(found, reasons, strict=True) if reason is None])
    if not len(table):
        raise DataError(
            "no question is left", where=args.output, instead=f"dropped: {dict(Counter(reasons))}"
        )
    check_unique(table["id"], args.output)
    drops = drop_table(reasons)
    with Artifact.create(
        args.output,
        spec=args.spec,
        parents={"sources": args.sources, "answers": args.answers},
        script=__file__,
    ) as artifact:
        write_parquet(table, artifact.path("questions.parquet"))
        write_csv(drops, artifact.path("drops.csv"))
        artifact.record(
            rows_in=len(reasons),
            rows_kept=len(table),
            rows_dropped=dict(zip(drops["reason"], drops["rows"].tolist(), strict=True)),
            references=int(table["reference"].notna().sum()),
            topics=int(table["topic"].nunique()),
            mean_words=float(table["question"].map(count_words).mean()),
        )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; refuse combinations that make no sense."""
    parser = cli.StageParser(__doc__ or "")
    parser.input(
        "--sources", nargs="*", help="manifests of the fetched sources; a source's name is its folder's"
    )
    parser.input("--answers", required=False, help="answers of a model that was asked for lists of questions")
    parser.output("--output", help="manifest.json of the questions")
    parser.spec(
        "--adapter", choices=[*adapters.ADAPTERS, JOBS, TOPICS, WRITTEN, WORLD], help="how rows are read"
    )
    parser.spec("--files", type=cli.json_array, default=[], help="JSON list of {source, path}")
    parser.spec(
        "--without-context",
        action="store_true",
        default=False,
        help="leave out rows that come with a context",
    )
    parser.spec("--form", choices=[*adapters.FORMS], default=None, help="which question about each job")
    parser.spec("--world", type=cli.json_object, default={}, help="JSON settings of a concept world")
    parser.spec(
        "--style", default=None, help="style of the references, in a concept world; without: bare values"
    )
    parser.spec(
        "--items", type=cli.positive_int, default=None, help="number of questions, in a concept world"
    )
    parser.spec("--part", choices=PARTS, default=None, help="the part to keep; default: all")
    parser.spec(
        "--shares",
        nargs=2,
        type=cli.positive_int,
        default=None,
        help="sizes of train and test, in proportion",
    )
    parser.spec("--first", type=cli.positive_int, default=None, help="keep the first so many")
    parser.spec("--sample", type=cli.positive_int, default=None, help="keep so many, drawn at random")
    parser.spec(
        "--indices", type=cli.json_array, default=None, help="JSON list of rows to keep, counted from 0"
    )
    parser.spec("--seed", type=int, default=0, help="of the parts, of the sample and of a concept world")
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError for settings that do not fit the adapter or each other."""
    for flag, (name, owners) in OWN_SETTINGS.items():
        if getattr(args, name) and args.adapter not in owners:
            raise ConfigError(f"the adapter {args.adapter} takes no {flag}", instead="leave it out")
    for flag in NEEDED.get(args.adapter, ("--files",)):
        if not getattr(args, flag.removeprefix("--")):
            raise ConfigError(f"the adapter {args.adapter} needs {flag}")
    chosen = [flag for flag in ("first", "sample", "indices") if getattr(args, flag) is not None]
    if len(chosen) > 1:
        raise ConfigError(f"--{' and --'.join(chosen)} exclude each other", instead="one of them")
    if args.adapter == WORLD and (chosen or args.shares):
        raise ConfigError("a concept world draws as many as it is asked for", where="--items")
    if args.adapter != WORLD and (args.part is None) != (args.shares is None):
        raise ConfigError(
            "a part needs shares, and shares a part", where="--part, --shares", instead="both or neither"
        )
    if args.indices is not None:
        check_indices(args)


def check_indices(args: argparse.Namespace) -> None:
    """Raise ConfigError unless the pinned rows are distinct row numbers of one whole file."""
    wrong = [index for index in args.indices if type(index) is not int or index < 0]
    repeated = [index for index, times in Counter(map(str, args.indices)).items() if times > 1]
    if wrong or repeated or not args.indices:
        raise ConfigError(
            f"{len(wrong)} wrong and {len(repeated)} repeated: {(wrong or repeated)[:3]}",
            where="--indices",
            instead="distinct row numbers, counted from 0",
        )
    if args.part is not None or len(args.files) > 1:
        raise ConfigError(
            "pinned rows are those of one whole file", where="--indices", instead="one file, no --part"
        )


def collect(args: argparse.Namespace) -> list[Found]:
    """What becomes of each row of the source."""
    if args.adapter == JOBS:
        return adapters.job_questions(args.form)
    if args.adapter == TOPICS:
        return adapters.topics()
    if args.adapter == WRITTEN:
        path = load(args.answers).path("answers.parquet")
        answers = read_parquet(path, ["answer", "finished"])
        return list(adapters.written_questions(zip(answers["answer"], answers["finished"], strict=True)))
    return list(adapters.read_questions(args.adapter, source_files(args), not args.without_context))


def source_files(args: argparse.Namespace) -> list[Path]:
    """The files of the sources, in the order of --files."""
    sources = {path.resolve().parent.name: load(path) for path in args.sources}
    if len(sources) < len(args.sources):
        raise ConfigError("two sources of the same name", where="--sources")
    files = []
    for number, entry in enumerate(args.files):
        where = f"--files, entry {number}"
        if not isinstance(entry, dict) or set(entry) != {"source", "path"}:
            raise ConfigError(f"{json.dumps(entry)}", where=where, instead="exactly the keys source and path")
        if not all(isinstance(value, str) for value in entry.values()):
            raise ConfigError(f"{json.dumps(entry)}", where=where, instead="two texts")
        if entry["source"] not in sources:
            raise ConfigError(
                f"unknown source {entry['source']!r}", where=where, instead=f"one of {', '.join(sources)}"
            )
        files.append(sources[entry["source"]].path(entry["path"]))
    return files


def world_questions(args: argparse.Namespace) -> pd.DataFrame:
    """Questions of one side of a concept world, with the right answers in the target style."""
    from w2s import concepts

    world = concepts.ConceptWorld.read(args.world)
    made = concepts.make_questions(world, args.style, args.part, args.items, args.seed)
    return made[COLUMNS].astype("string").reset_index(drop=True)


def choose(found: Sequence[Found], args: argparse.Namespace) -> list[str | None]:
    """Why each row is dropped; None for the rows to keep.

    Raises:
        ConfigError: more rows are asked for than there are.
        DataError: a pinned row is no question of use.
    """
    import numpy as np

    reasons: list[str | None] = []
    seen: set[str] = set()
    for row in found:
        reasons.append(row if isinstance(row, str) else DUPLICATE if row.question in seen else None)
        if isinstance(row, Question):
            seen.add(row.question)
    left = [number for number, reason in enumerate(reasons) if reason is None]
    if args.shares is not None:
        order = np.random.default_rng(args.seed).permutation(len(left))
        train = round(len(left) * args.shares[0] / sum(args.shares))
        chosen = {left[at] for at in (order[:train] if args.part == PARTS[0] else order[train:])}
        _drop_others(reasons, left, chosen, OTHER_PART)
        left = sorted(chosen)
    if args.indices is not None:
        _drop_others(reasons, left, pinned(args.indices, reasons), NOT_SELECTED)
    wanted = args.first or args.sample
    if wanted is not None:
        if wanted > len(left):
            raise ConfigError(
                f"{wanted} questions of {len(left)}", where="--first, --sample", instead="fewer"
            )
        # Not the generator of the parts: a sample of a part must not depend on how the part was drawn.
        drawn = (
            np.random.default_rng([args.seed, 1]).permutation(len(left)) if args.sample else range(len(left))
        )
        _drop_others(reasons, left, {left[at] for at in drawn[:wanted]}, NOT_SELECTED)
    return reasons


def pinned(indices: Sequence[int], reasons: Sequence[str | None]) -> set[int]:
    """The pinned rows, after checking that each is there and is a question of use."""
    beyond = [index for index in indices if index >= len(reasons)]
    if beyond:
        raise ConfigError(
            f"row {beyond[0]} of {len(reasons)} rows", where="--indices", instead=f"0 to {len(reasons) - 1}"
        )
    useless = [(index, reasons[index]) for index in indices if reasons[index] is not None]
    if useless:
        raise DataError(f"pinned row {useless[0][0]} is dropped: {useless[0][1]}", where="--indices")
    return set(indices)


def to_table(questions: Sequence[Found]) -> pd.DataFrame:
    """COLUMNS of the questions, in their order; missing references and topics are null."""
    import pandas as pd

    rows = [
        (question_id(row.question), row.question, row.reference, row.topic)
        for row in questions
        if isinstance(row, Question)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype("string")


def drop_table(reasons: Sequence[str | None]) -> pd.DataFrame:
    """Columns reason, rows: how often each of REASONS dropped a row, zeros included."""
    import pandas as pd

    counts = Counter(reasons)
    return pd.DataFrame([(reason, counts[reason]) for reason in REASONS], columns=["reason", "rows"])


def _drop_others(reasons: list[str | None], left: Sequence[int], chosen: set[int], reason: str) -> None:
    for number in left:
        if number not in chosen:
            reasons[number] = reason


if __name__ == "__main__":
    cli.run(main)
