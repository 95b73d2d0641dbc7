"""What the stages that ask a judge have in common: their options, the judge itself, what the manifest tells of it."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli, judge_prompts
from w2s.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from w2s.artifact import Draft
    from w2s.judge_client import Answer, Judge, Question
    from w2s.judge_prompts import Template

logger = logging.getLogger(__name__)
# In which answers are shown: as they are, and swapped.
ORDERS = (0, 1)


def add_judge(parser: cli.StageParser, *kinds: str) -> None:
    """Who judges, by which wording (of these kinds): part of the spec."""
    templates = judge_prompts.names(*kinds)
    parser.spec("--judge", help="name of the judge in the tables")
    add_settings(parser)
    only = {"default": templates[0]} if len(templates) == 1 else {}
    parser.spec("--template", choices=templates, help="wording, with its version", **only)


def add_settings(parser: cli.StageParser) -> None:
    """Who is asked and how: part of the spec."""
    parser.spec(
        "--settings",
        type=cli.json_object,
        help="JSON: model, temperature, top_p, max_tokens, limit, seed, extra; or world and noise (docs/judge.md)",
    )
    parser.spec(
        "--again",
        type=natural,
        default=2,
        help="how often a malformed reply is asked for again, as another sample",
    )


def add_options(parser: cli.StageParser) -> None:
    """How the judge is reached, what it may cost and where its replies are kept."""
    parser.option(
        "--store",
        type=Path,
        required=True,
        help="SQLite file of all replies; made if it is not there, never emptied",
    )
    add_connection(parser)
    parser.option("--concurrency", type=cli.positive_int, default=8, help="requests at once")
    parser.option("--requests-per-minute", type=positive, default=None, help="at most; default: no limit")
    parser.option(
        "--budget-usd",
        type=amount,
        default=None,
        help="what all replies of the store may cost, ever; needed where there are prices",
    )
    parser.option("--price-input", type=amount, default=Decimal(0), help="USD per million prompt tokens")
    parser.option("--price-output", type=amount, default=Decimal(0), help="USD per million tokens of replies")


def add_connection(parser: cli.StageParser) -> None:
    """How an endpoint is reached and how often a request is sent."""
    parser.option(
        "--base-url-variable",
        default="OPENAI_BASE_URL",
        help="environment variable with the endpoint's address",
    )
    parser.option("--key-variable", default="OPENAI_API_KEY", help="environment variable with its key")
    parser.option("--attempts", type=cli.positive_int, default=6, help="how often a request is sent at most")
    parser.option("--timeout", type=positive, default=120.0, help="seconds without a sign of the endpoint")


def natural(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def amount(text: str) -> Decimal:
    """An argparse type: an exact amount of at least 0."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError(f"not a number: {text}") from error
    if not value.is_finite() or value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


@contextlib.contextmanager
def opened(args: argparse.Namespace, template: Template) -> Iterator[Judge]:
    """Who the command line names, asked in that wording, the store open; what the run did is logged however it ends."""
    from w2s.endpoints import Limits, Prices, Settings, check_budget, connect
    from w2s.judge_client import Judge
    from w2s.judge_store import Store, dollars

    settings = Settings.read(args.settings)
    prices = Prices(args.price_input, args.price_output)
    limits = Limits(
        concurrency=args.concurrency,
        requests_per_minute=args.requests_per_minute,
        budget=args.budget_usd,
        attempts=args.attempts,
        timeout=args.timeout,
    )
    check_budget(prices, limits)
    endpoint = connect(settings, args.base_url_variable, args.key_variable, args.timeout)
    with Store(args.store) as store:
        judge = Judge(settings, template, endpoint, store, prices, limits, args.again)
        try:
            yield judge
        finally:
            counts = judge.counts
            logger.info(
                "%d replies from the store, %d from the endpoint; %d attempts failed and %d ended unclear; "
                "this run cost %s, all of the store %s",
                counts.from_store,
                counts.asked,
                counts.failed,
                counts.unclear,
                dollars(counts.cost_nano),
                dollars(store.spent_nano()),
            )


def record(artifact: Draft, judge: Judge, answers: Sequence[Answer]) -> None:
    """What the manifest tells of the replies used, and the run record of this run's requests.

    The manifest tells what follows from the store: the same replies give the same manifest, whoever paid them and when.
    """
    from w2s.judge_store import NANO

    replies = {reply.key: reply for answer in answers for reply in answer.replies}.values()
    artifact.record(
        template_sha256=judge.template.sha256,
        model=sorted({reply.model for reply in replies}),
        questions=len(answers),
        malformed=sum(answer.value is None for answer in answers),
        malformed_because=_tally(answer.status for answer in answers if answer.value is None),
        replies=len(replies),
        asked_again=sum(len(answer.replies) - 1 for answer in answers),
        prompt_tokens=sum(reply.prompt_tokens or 0 for reply in replies),
        completion_tokens=sum(reply.completion_tokens or 0 for reply in replies),
        replies_without_usage=sum(reply.prompt_tokens is None for reply in replies),
        cost_usd=sum(reply.cost_nano for reply in replies) / NANO,
    )
    lost, counts = judge.store.lost(), judge.counts
    artifact.measure(
        endpoint=judge.endpoint.name,
        from_store=counts.from_store,
        asked=counts.asked,
        attempts_failed=counts.failed,
        attempts_unclear=counts.unclear,
        cost_usd=counts.cost_nano / NANO,
        store_cost_usd=judge.store.spent_nano() / NANO,
        store_lost_requests=lost.requests,
        store_lost_usd_at_most=lost.worst_nano / NANO,
    )


def _tally(reasons: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for reason in sorted(reasons):
        found[reason] = found.get(reason, 0) + 1
    return found


def draw(rows: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """``number`` rows at random, in their order; all of them if there are fewer.

    Raises:
        DataError: there is nothing to draw from.
    """
    import numpy as np

    if rows.empty:
        raise DataError("there is nothing to judge: the tables are empty")
    places = np.random.default_rng(seed).permutation(len(rows))[:number]
    return rows.iloc[np.sort(places)].reset_index(drop=True)


def in_both_orders(template: Template, pairs: pd.DataFrame, first: str, second: str) -> list[Question]:
    """Each pair twice, its two answers in either order, pair by pair.

    Args:
        template: the wording.
        pairs: id, prompt and the columns ``first`` and ``second`` with the answers.
    """
    from w2s.judge_client import Question

    return [
        Question(
            f"id {name}, order {order}",
            judge_prompts.fill(template, prompt, *both_orders(one, other, order)),
        )
        for name, prompt, one, other in zip(
            *(pairs[key] for key in ("id", "prompt", first, second)), strict=True
        )
        for order in ORDERS
    ]


def both_orders(first: Any, second: Any, order: int) -> tuple[Any, Any]:
    """Two answers in the order in which they are shown (see ORDERS), and back."""
    return (first, second) if order == 0 else (second, first)
