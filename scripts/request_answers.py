"""Let a model behind an endpoint answer prompts (the refiners, students and unaligned models of paper B).

Each reply is kept in ``--store`` as soon as it came, and none is paid twice (docs/judge.md); the endpoint's address and
key come from the environment. ``--tuned`` is what ``request_tuning`` made: its model answers instead of its base, which
``--settings`` must name, so that a student of one base cannot pass for a student of another.

Each prompt is asked once; ``--seed`` says which sample of its replies is meant. A prompt that the model or the
endpoint's filter refuses stays as a row, with an empty answer, and is counted; the paper's program left such rows out
without a word.

Inputs: prompts (``write_prompts``), optionally a tuned model.
Output: ``answers.parquet``: id, question, answer (without blanks at its ends), tokens (as the endpoint counts; missing
where it does not), finished ("eos": by itself or at a stop text, "length", "refused").
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, judge_stage
from w2s.artifact import Artifact, load
from w2s.conversations import read_messages
from w2s.errors import ConfigError, DataError
from w2s.judge_prompts import CONVERSATION
from w2s.tables import check_unique, read_parquet, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    from w2s.judge_client import Answer

COLUMNS = ["id", "question", "answer", "tokens", "finished"]


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--prompts", help="prompts to answer")
    parser.input(
        "--tuned", required=False, help="a tuned model of the endpoint, to answer in its base's place"
    )
    parser.output("--output", help="manifest of the answers")
    parser.spec("--writer", help="name of the model in the tables")
    judge_stage.add_settings(parser)
    parser.spec("--seed", type=judge_stage.natural, default=0, help="which sample of the replies is meant")
    judge_stage.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    prompts = read_prompts(args.prompts)
    if args.tuned is not None:
        args.settings = {**args.settings, "model": tuned_model(args.tuned, args.settings)}

    from w2s.judge_client import Question

    questions = [
        Question(f"id {name}", read_messages(messages, f"{args.prompts}, id {name}"), sample=args.seed)
        for name, messages in zip(prompts["id"], prompts["messages"], strict=True)
    ]
    parents = {"prompts": args.prompts, "tuned": args.tuned}
    with (
        Artifact.create(args.output, spec=args.spec, parents=parents, script=__file__) as artifact,
        judge_stage.opened(args, CONVERSATION) as writer,
    ):
        replies = writer.ask(questions, progress=True)
        table = answers(prompts, replies)
        write_parquet(table, artifact.path("answers.parquet"))
        judge_stage.record(artifact, writer, replies)
        artifact.record(
            rows_in=len(prompts),
            rows_out=len(table),
            finished={
                str(end): int(count) for end, count in table["finished"].value_counts().sort_index().items()
            },
            empty=int((table["answer"] == "").sum()),
        )


def read_prompts(manifest: Path) -> pd.DataFrame:
    """The prompts, ids checked to be unique, in the table's order.

    Raises:
        DataError: there are none.
    """
    path = load(manifest).path("prompts.parquet")
    prompts = read_parquet(path, ["id", "question", "messages"])
    check_unique(prompts["id"], path)
    if prompts.empty:
        raise DataError("there is nothing to answer: the table is empty", where=path)
    return prompts


def tuned_model(manifest: Path, settings: Mapping[str, Any]) -> str:
    """The endpoint's name for a tuned model.

    Raises:
        ConfigError: it was tuned from another base than the model of ``settings``.
    """
    path = load(manifest).path("tuned.json")
    tuned = json.loads(path.read_text(encoding="utf-8"))
    if tuned["base"] != settings.get("model"):
        raise ConfigError(
            f"the model was tuned from {tuned['base']}, the settings name {settings.get('model')}",
            where=path,
            instead="settings with the base that was tuned, or a model tuned from that base",
        )
    return tuned["model"]


def answers(prompts: pd.DataFrame, replies: Sequence[Answer]) -> pd.DataFrame:
    """The table of the artifact; a reply that ended as none should counts as refused.

    Args:
        prompts: id, question.
        replies: of these prompts, in their order; values (text, how it ended).
    """
    import pandas as pd

    values = [reply.value or ("", "refused") for reply in replies]
    tokens = [reply.replies[-1].completion_tokens for reply in replies]
    return pd.DataFrame(
        {
            "id": prompts["id"].to_numpy(),
            "question": prompts["question"].to_numpy(),
            "answer": [text for text, _ in values],
            "tokens": pd.array(tokens, dtype="Int64"),
            "finished": [finished for _, finished in values],
        },
        columns=COLUMNS,
    )


if __name__ == "__main__":
    cli.run(main)
