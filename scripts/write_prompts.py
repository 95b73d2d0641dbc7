"""Write what a writer is asked about each question: paper B, Algorithms 1 to 3, and plain questions. Runs no model.

Methods:

- ``plain``: the question. For weak labellers, for strong-only labels, for students;
- ``icl``: the question with weak answers to other questions as examples (Algorithm 1). With ``--example-questions`` the
  examples are of those, and the questions are others: in-context learning at test time, without fine-tuning;
- ``infer``: a batch of questions with their weak answers, for a writer to say what they have in common (Algorithm 2). The
  prompts' ids are batch-0000, ...;
- ``respond``: the question with what was said of its batch; weak answers are not shown (Algorithm 2);
- ``improve``: the question with its weak answer (Algorithm 3).

Choices of examples are described in scripts/w2s/refinement.py, templates in scripts/w2s/writer_prompts.py. The examples
are always of one artifact of weak answers, whose ids and texts must be those of the questions.

inputs:  questions, and what the method takes
outputs: prompts.parquet: id, question (none for infer), messages (JSON), examples (ids shown; for infer all of the batch);
    dropped.parquet: id, reason, of the questions that are not asked
facts:   digest of the template, questions in, kept and dropped by reason, prompts by number of examples shown, answers that
    cannot be shown (empty, refused)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, handles, refinement, writer_prompts
from w2s.artifact import Artifact, load
from w2s.errors import ConfigError, DataError, JoinError
from w2s.question_tables import PROMPT_COLUMNS, answers_to, read_answers, read_prompts, read_questions, tally
from w2s.tables import DROPPED_COLUMNS, check_same_ids, named, read_dropped, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    from w2s.writer_prompts import Template

# Method -> what it needs beside questions and a template. example_questions is all that may be left out.
TAKES = {
    "plain": (),
    "icl": ("answers", "example_questions", "shown", "choice"),
    "infer": ("answers", "batch"),
    "respond": ("intents", "intent_prompts"),
    "improve": ("answers",),
}


@dataclass
class Prompts:
    """What comes of a method: rows of the prompts (PROMPT_COLUMNS) and of the questions dropped, facts."""

    rows: list[tuple[str, str | None, str, list[str]]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--questions", help="questions to ask")
    parser.input("--answers", nargs="*", help="weak answers: to these questions, or to --example-questions")
    parser.input("--example-questions", nargs="*", help="questions of the weak answers, at test time (icl)")
    parser.input("--intents", nargs="*", help="answers to prompts of the method infer (respond)")
    parser.input(
        "--intent-prompts", nargs="*", help="those prompts, which say who is in which batch (respond)"
    )
    parser.output("--output", help="manifest.json of the prompts")
    parser.spec("--method", choices=list(TAKES), help="how the question is asked")
    parser.spec("--template", help="wording with its version, in prompts/")
    parser.spec("--shown", type=cli.positive_int, default=None, help="examples for each question (icl)")
    parser.spec(
        "--choice", choices=list(refinement.CHOICES), default=None, help="which examples are shown (icl)"
    )
    parser.spec("--batch", type=cli.positive_int, default=None, help="questions in a batch (infer)")
    parser.spec("--seed", type=int, default=0, help="of the choice random")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the artifact."""
    args = arguments().parse_args(argv)
    inputs = check_inputs(args)
    template = writer_prompts.find(args.template, args.method)
    questions = read_questions(args.questions)
    made = METHODS[args.method](args, template, questions)
    check_all_there(questions["id"], made, args.method)
    if not made.rows:
        raise DataError(
            f"no question can be asked: {tally(reason for _, reason in made.dropped)}",
            where=args.questions,
        )

    import pandas as pd

    with Artifact.create(
        args.output, spec=args.spec, parents={"questions": args.questions, **inputs}, script=__file__
    ) as artifact:
        prompts = pd.DataFrame(made.rows, columns=PROMPT_COLUMNS)
        write_parquet(prompts.astype({"question": "str"}), artifact.path("prompts.parquet"))
        dropped = pd.DataFrame(made.dropped, columns=DROPPED_COLUMNS, dtype="str")
        write_parquet(dropped, artifact.path("dropped.parquet"))
        artifact.record(
            template_sha256=template.sha256,
            rows_in=len(questions),
            rows_kept=len(questions) - len(dropped),
            rows_dropped=tally(dropped["reason"]),
            prompts=len(prompts),
            **made.facts,
        )


def check_inputs(args: argparse.Namespace) -> dict[str, Path]:
    """The manifests by name; ConfigError unless there is just what the method takes. Lists in ``args`` become manifests."""
    found = {}
    for name in ("answers", "example_questions", "intents", "intent_prompts"):
        manifests = getattr(args, name)
        if len(manifests) > 1:
            raise ConfigError(f"{flag(name)} takes one artifact, got {len(manifests)}")
        setattr(args, name, manifests[0] if manifests else None)
        if manifests:
            found[name] = manifests[0]
    takes = TAKES[args.method]
    given = {name for names in TAKES.values() for name in names if getattr(args, name) is not None}
    for name in sorted(given - set(takes)):
        raise ConfigError(f"method {args.method!r} takes no {flag(name)}", instead="leave it out")
    for name in takes:
        if name not in given and name != "example_questions":
            raise ConfigError(f"method {args.method!r} needs {flag(name)}")
    return found


def flag(name: str) -> str:
    """An argument as it is written."""
    return "--" + name.replace("_", "-")


def ask_plainly(_: argparse.Namespace, template: Template, questions: pd.DataFrame) -> Prompts:
    """The question alone."""
    asked = zip(questions["id"], questions["question"], strict=True)
    return Prompts([(name, text, conversation(template, question=text), []) for name, text in asked])


def show_examples(args: argparse.Namespace, template: Template, questions: pd.DataFrame) -> Prompts:
    """The question after weak answers to others: paper B, Algorithm 1."""
    refined = args.example_questions is None
    pool = questions if refined else read_questions(args.example_questions)
    if not refined:
        check_apart(questions["id"], pool["id"], args.example_questions)
    weak = answers_to(pool, args.answers)
    request = refinement.Request(
        questions["id"].tolist(),
        questions["question"].tolist(),
        weak["question"].tolist(),
        (weak["defect"] == "").tolist(),
        refined,
        args.shown,
        args.seed,
    )
    made = Prompts(facts=facts_of(weak))
    reason = "is an example" if args.choice == "fixed" else "no example"
    pairs = list(zip(weak["question"], weak["answer"], strict=True))
    for name, text, places in zip(
        request.ids, request.questions, refinement.choose(args.choice, request), strict=True
    ):
        if not places:
            made.dropped.append((name, reason))
            continue
        messages = conversation(template, question=text, examples=[pairs[place] for place in places])
        made.rows.append((name, text, messages, weak["id"].iloc[places].tolist()))
    made.facts["prompts_by_examples"] = tally(len(row[3]) for row in made.rows)
    return made


def show_batches(args: argparse.Namespace, template: Template, questions: pd.DataFrame) -> Prompts:
    """All of a batch of weak answers, for what they have in common: paper B, Algorithm 2, first step."""
    weak = answers_to(questions, args.answers)
    made = Prompts(facts=facts_of(weak))
    shown = []
    for number, batch in enumerate(refinement.batches(len(weak), args.batch)):
        rows = weak.iloc[batch.start : batch.stop]
        usable = rows[rows["defect"] == ""]
        if usable.empty:
            made.dropped += [(name, "no example") for name in rows["id"]]
            continue
        pairs = list(zip(usable["question"], usable["answer"], strict=True))
        messages = conversation(template, examples=pairs)
        made.rows.append((f"batch-{number:04}", None, messages, rows["id"].tolist()))
        shown.append(len(usable))
    made.facts["prompts_by_examples"] = tally(shown)
    return made


def follow_intents(args: argparse.Namespace, template: Template, questions: pd.DataFrame) -> Prompts:
    """The question with what was said of its batch: paper B, Algorithm 2, second step."""
    batches, intents = read_prompts(args.intent_prompts), read_answers(args.intents)
    if load(args.intent_prompts).digest not in parent_digests(args.intents):
        raise JoinError(
            "the intents are no answers to these prompts",
            where=f"{args.intents}, {args.intent_prompts}",
            instead="the prompts that the intents were made from: batches of all labellers are called alike",
        )
    check_same_ids(batches["id"], intents["id"], "the batches", f"the intents {args.intents}")
    left_out = read_dropped(args.intent_prompts)
    members = batches.explode("examples")[["id", "examples"]].merge(intents, on="id", validate="many_to_one")
    everyone = [*members["examples"], *left_out["id"]]
    check_same_ids(questions["id"], everyone, "the questions", f"the batches {args.intent_prompts}")
    if len(everyone) != len(questions):
        raise JoinError("a question is in two batches", where=args.intent_prompts)
    said = dict(zip(members["examples"], zip(members["answer"], members["defect"], strict=True), strict=True))
    reasons = dict(zip(left_out["id"], left_out["reason"], strict=True))
    made = Prompts(facts={"intents": tally(intents["finished"])})
    for name, text in zip(questions["id"], questions["question"], strict=True):
        intent, defect = said.get(name, ("", ""))
        if defect or name in reasons:
            made.dropped.append((name, reasons.get(name) or f"intent {defect}"))
        else:
            made.rows.append((name, text, conversation(template, question=text, intent=intent), []))
    return made


def improve(args: argparse.Namespace, template: Template, questions: pd.DataFrame) -> Prompts:
    """The question with its own weak answer: paper B, Algorithm 3."""
    weak = answers_to(questions, args.answers)
    made = Prompts(facts=facts_of(weak))
    for name, text, answer, defect in zip(
        *(weak[key] for key in ("id", "question", "answer", "defect")), strict=True
    ):
        if defect:
            made.dropped.append((name, f"answer {defect}"))
        else:
            made.rows.append((name, text, conversation(template, question=text, answer=answer), [name]))
    return made


METHODS: dict[str, Callable[[argparse.Namespace, Template, pd.DataFrame], Prompts]] = {
    "plain": ask_plainly,
    "icl": show_examples,
    "infer": show_batches,
    "respond": follow_intents,
    "improve": improve,
}


def conversation(template: Template, **texts: Any) -> str:
    """A filled template as the text that the table holds."""
    return writer_prompts.as_text(writer_prompts.fill(template, **texts))


def check_apart(asked: pd.Series, pool: pd.Series, where: Path) -> None:
    """JoinError if a question would be asked that examples may answer."""
    both = asked[asked.isin(pool)]
    if len(both):
        raise JoinError(
            f"{len(both)} questions are also among those of the examples: {named(both)}",
            where=where,
            instead="test questions that are no training questions; or leave --example-questions out",
        )


def check_all_there(ids: pd.Series, made: Prompts, method: str) -> None:
    """JoinError unless each question is asked or dropped, and no example is shown twice or with its own question."""
    infer = method == "infer"
    asked = [name for row in made.rows for name in (row[3] if infer else [row[0]])]
    everyone = [*asked, *(name for name, _ in made.dropped)]
    check_same_ids(ids, everyone, "the questions", "the prompts")
    if len(everyone) != len(ids):
        raise JoinError("a question is asked twice")
    for name, _, _, examples in made.rows:
        if len(set(examples)) < len(examples) or (method == "icl" and name in examples):
            raise JoinError(f"an example is shown twice, or with its own question, in prompt {name}")


def parent_digests(manifest: Path) -> set[str]:
    """Digests of what an artifact was made from."""
    return {parent.digest for parent in handles.parents(load(manifest))}


def facts_of(weak: pd.DataFrame) -> dict[str, Any]:
    """How the weak answers ended, and how many cannot be shown, by reason."""
    return {
        "weak_answers": tally(weak["finished"]),
        "weak_answers_unusable": tally(weak["defect"][weak["defect"] != ""]),
    }


if __name__ == "__main__":
    cli.run(main)
