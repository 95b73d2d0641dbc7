"""Let a local model answer written prompts, one answer each. Paper B, section 3: weak, refined and test answers alike.

The messages of each prompt are read in the form ``--chat``: as a document to go on with (``plain``) or through the
model's own chat template (``own``); see :mod:`w2s.chat`. Answers are drawn as ``generate`` draws its responses: at
``--temperature`` (0 takes the likeliest tokens), with random numbers of each prompt keyed by (seed, prompt id), until
the model's end token, a stop text or the token limit. An interrupted run continues, ``accelerate launch`` divides the
prompts among GPUs, and neither changes an answer.

An answer that is empty stays as a row; ``gather_records`` leaves it out and counts it.

Inputs: a model in the hub's format, prompts. Output: ``answers.parquet``: id, question, answer (stripped), tokens
(without the end token), finished (eos, stop or length), in the order of the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

from w2s import answering, chat, cli
from w2s.artifact import load
from w2s.errors import DataError
from w2s.tables import check_unique, read_parquet, write_parquet

COLUMNS = ["id", "question", "answer", "tokens", "finished"]


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--model", help="model that answers")
    parser.input("--prompts", help="prompts, as write_prompts makes them")
    parser.output("--output", help="manifest of the answers")
    chat.add_chat(parser)
    answering.add_sampling(parser, stop=[])
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    path = load(args.prompts).path("prompts.parquet")
    asked = read_parquet(path, ["id", "question", "messages"])
    check_unique(asked["id"], path)
    if asked.empty:
        raise DataError("no prompt to answer", where=path)

    from w2s.encoding import Encoding
    from w2s.generation import LENGTH

    reader = chat.Chat(Encoding.load(load(args.model).folder), args.chat, args.chat_sha256)
    conversations = chat.conversations(asked, path)
    prompts = list(zip(asked["id"], reader.prompts_ids(conversations), strict=True))
    parents = {"model": args.model, "prompts": args.prompts}
    with answering.answered(args, parents, __file__, prompts) as (artifact, answers):
        if artifact is None:
            return
        table = asked[["id", "question"]].merge(answers, on="id", how="left", validate="one_to_one")
        table["answer"] = table["response"].str.strip()
        write_parquet(table[COLUMNS], artifact.path("answers.parquet"))
        artifact.record(
            rows_out=len(table),
            tokens=int(table["tokens"].sum()),
            prompt_tokens=sum(len(ids) for _, ids in prompts),
            truncated=int((table["finished"] == LENGTH).sum()),
            empty=int((table["answer"] == "").sum()),
            distinct_answers=int(table["answer"].nunique()),
            **reader.facts(conversations),
        )


if __name__ == "__main__":
    cli.run(main)
