"""The claims of a paper as data: ``published/claims-*.yaml``, read and checked.

A claim is a list of parts; a part is one statistic of one experiment's measurements and what the paper says of it. Arms
are named by role, never by a model: by the policy that a feedback's name begins with and its rank among the experiment's
feedback of that policy, in the order in which the experiment lists it. The same file thus serves every preset.

    weak          the first weak feedback                    untuned       the student as it was
    weak 2        the second one                             teacher       the weak teacher itself
    weak each     each of them, one comparison for each      human sft     the student after SFT only
    weak 2+       each from the second one on

Everything is checked before a number is read: an unknown key, a name that leads nowhere and a test without what it needs
are refused with file and key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from w2s.checked_yaml import Node, read_yaml

METRICS = (
    *("reward", "tokens", "win", "score", "agreement", "chosen_reward", "rejected_reward"),
    *("consistency", "vote", "similarity", "gap", "sides"),
)
STATISTICS = ("difference", "level", "trend", "r_squared")
TESTS = ("above", "below", "no-lower", "equal")
JUDGES = ("main", "other", "any")
ALONG = ("share", "beta")
PRINTED = ("welch", "sign", "differences")
_ARM = re.compile(r"(?P<policy>[a-z]+)(?: (?P<rank>\d+\+?|each))?(?P<sft> sft)?")
_PICK = re.compile(r"(smallest|largest)( \d+)?|others")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an arm by role, and which recipe, beta or share where those are compared.

    Attributes:
        policy: first word of a feedback's name, ``untuned`` or ``teacher``.
        ranks: first and last rank, counted from 1; the last is None for "and all that follow".
        sft: the student before preference optimisation.
        recipe: rank of the recipe in the experiment, None where recipes are not compared.
        beta, share: ``"smallest"``, ``"smallest 2"``, ``"largest"``, ``"others"`` (those the other side leaves).
    """

    policy: str
    ranks: tuple[int, int | None] = (1, 1)
    sft: bool = False
    recipe: int | None = None
    beta: str | None = None
    share: str | None = None

    @property
    def text(self) -> str:
        """The role in words."""
        first, last = self.ranks
        rank = "" if (first, last) == (1, 1) else f" no. {first}" if last else f", each from no. {first} on"
        more = [f"recipe no. {self.recipe}"] if self.recipe else []
        more += [f"{name} {pick}" for name, pick in (("beta", self.beta), ("share", self.share)) if pick]
        return f"{self.policy}{rank}{' after SFT' if self.sft else ''}" + (
            f" ({', '.join(more)})" if more else ""
        )


@dataclass(frozen=True)
class Printed:
    """A number of the paper: the mean of some printed values, plus half of others (ties), minus the mean of others."""

    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()
    half: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All printed values in it."""
        return (*self.plus, *self.minus, *self.half)


@dataclass(frozen=True)
class Scale:
    """A difference that others are measured in, e.g. the human arm's gain over the un-tuned student."""

    name: str
    words: str
    metric: str
    left: Side
    right: Side | None
    published: Printed


@dataclass(frozen=True)
class Margin:
    """How far apart two things may lie and still count as equal: a number, or a share of a scale; and why."""

    value: float
    of: str | None
    reason: str


@dataclass(frozen=True)
class Part:
    """One testable statement. See docs/scorecard.md for what each key means."""

    id: str
    text: str
    experiment: str
    statistic: str
    metric: str
    test: str
    left: Side
    right: Side | None = None
    third: Side | None = None
    judge: str = "main"
    share: str | None = None
    along: str | None = None
    reference: float | None = None
    margin: Margin | None = None
    scale: str | None = None
    exceptions: Fraction = Fraction(0)
    needs: tuple[str, ...] = ()
    published: tuple[Printed, ...] = ()
    published_unit: float = 1.0
    series: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, in our words, with the place where it stands."""

    id: str
    text: str
    place: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class PrintedCheck:
    """A computation on the paper's own numbers: what they can bear; ``signs`` if all differences should have one sign."""

    id: str
    text: str
    kind: str
    pairs: tuple[tuple[str, str], ...]
    variances: tuple[str, str] | None = None
    seeds: int | None = None
    signs: bool = False


@dataclass(frozen=True)
class Claims:
    """A whole file."""

    paper: str
    title: str
    scales: Mapping[str, Scale]
    needs: Mapping[str, str]
    claims: tuple[Claim, ...]
    printed: tuple[PrintedCheck, ...] = field(default=())

    @property
    def parts(self) -> list[Part]:
        """All parts of all claims."""
        return [part for claim in self.claims for part in claim.parts]

    @property
    def published_ids(self) -> set[str]:
        """Every id of a printed value that the file refers to."""
        numbers = [number for part in self.parts for number in part.published]
        numbers += [scale.published for scale in self.scales.values()]
        found = {name for number in numbers for name in number.ids}
        found |= {name for part in self.parts for _, name in part.series}
        for check in self.printed:
            found |= {name for pair in check.pairs for name in pair} | set(check.variances or ())
        return found


def read_claims(path: Path) -> Claims:
    """Read and check a file of claims.

    Raises:
        ConfigError: no valid YAML, a key that is unknown, missing, double or of the wrong kind; file and key are named.
    """
    node = Node(read_yaml(path), str(path), "")
    needs = {name: str(words) for name, words in node.take("needs", dict, {}).items()}
    scales = {entry.key_name: _scale(entry) for entry in node.mapping("scales")}
    claims = tuple(_claim(entry, scales, needs) for entry in node.sequence("claims"))
    printed = tuple(_printed_check(entry) for entry in node.sequence("printed", required=False))
    found = Claims(node.take("paper", str), node.take("title", str), scales, needs, claims, printed)
    node.done()
    _check_unique([claim.id for claim in claims], node, "claims")
    _check_unique([part.id for part in found.parts], node, "parts")
    return found


def _claim(node: Node, scales: Mapping[str, Scale], needs: Mapping[str, str]) -> Claim:
    parts = tuple(_part(entry, scales, needs) for entry in node.sequence("parts"))
    claim = Claim(node.take("id", str), node.take("text", str), node.take("place", str), parts)
    node.done()
    return claim


def _part(node: Node, scales: Mapping[str, Scale], needs: Mapping[str, str]) -> Part:
    """One part; what its statistic and its test need must be there, and nothing that they do not take."""
    statistic = node.choice("statistic", STATISTICS, "difference")
    test = node.choice("test", TESTS)
    part = Part(
        id=node.take("id", str),
        text=node.take("text", str),
        experiment=node.take("experiment", str),
        statistic=statistic,
        metric=node.choice("metric", METRICS),
        test=test,
        left=_side(node, "left"),
        right=_side(node, "right") if statistic in ("difference", "r_squared") else None,
        third=_side(node, "third") if statistic == "r_squared" else None,
        judge=node.choice("judge", JUDGES, "main"),
        share=_pick(node, "share"),
        along=node.choice("along", ALONG) if statistic == "trend" else None,
        reference=node.number("reference") if statistic == "level" else None,
        margin=_margin(node, scales) if test in ("no-lower", "equal") else None,
        scale=node.choice("scale", tuple(scales), None),
        exceptions=_fraction(node),
        needs=tuple(node.choices("needs", tuple(needs))),
        published=tuple(_printed(entry) for entry in node.sequence("published", required=False)),
        published_unit=node.number("published_unit", 1.0),
        series=tuple(
            (entry.number("at"), entry.last("value")) for entry in node.sequence("series", required=False)
        ),
    )
    node.done()
    return part


def _scale(node: Node) -> Scale:
    right = _side(node, "right") if node.has("right") else None
    scale = Scale(
        node.key_name,
        node.take("words", str),
        node.choice("metric", METRICS),
        _side(node, "left"),
        right,
        _printed(node.child("published")),
    )
    node.done()
    return scale


def _margin(node: Node, scales: Mapping[str, Scale]) -> Margin:
    entry = node.child("margin")
    margin = Margin(entry.number("value"), entry.choice("of", tuple(scales), None), entry.take("reason", str))
    entry.done()
    if margin.value <= 0:
        raise entry.error("value", f"a margin of {margin.value:g}", "a number above 0")
    return margin


def _side(node: Node, key: str) -> Side:
    entry = node.child(key)
    words = entry.take("arm", str)
    match = _ARM.fullmatch(words)
    if match is None:
        raise entry.error(
            "arm", f"{words!r} is no role", "a policy, a rank and sft: weak, weak 2, weak each, human sft"
        )
    side = Side(
        match["policy"],
        _ranks(match["rank"]),
        bool(match["sft"]),
        entry.take("recipe", int, None),
        _pick(entry, "beta"),
        _pick(entry, "share"),
    )
    entry.done()
    return side


def _ranks(rank: str | None) -> tuple[int, int | None]:
    if rank == "each":
        return 1, None
    first = int((rank or "1").removesuffix("+"))
    return first, None if rank and rank.endswith("+") else first


def _pick(node: Node, key: str) -> str | None:
    pick = node.take(key, str, None)
    if pick is not None and not _PICK.fullmatch(pick):
        raise node.error(key, f"{pick!r} picks nothing", "smallest, smallest 2, largest, others")
    return pick


def _fraction(node: Node) -> Fraction:
    text = node.take("exceptions", str, "0")
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fraction = Fraction(-1)
    if not 0 <= fraction < 1:
        raise node.error("exceptions", f"{text!r} is no share", 'a share of the comparisons below 1, "1/8"')
    return fraction


def _printed(node: Node) -> Printed:
    printed = Printed(
        tuple(node.names("plus")),
        tuple(node.names("minus", required=False)),
        tuple(node.names("half", required=False)),
    )
    node.done()
    return printed


def _printed_check(node: Node) -> PrintedCheck:
    kind = node.choice("kind", PRINTED)
    pairs = []
    for entry in node.sequence("pairs"):
        pairs.append((entry.take("left", str), entry.take("right", str)))
        entry.done()
    variances = None
    if kind in ("welch", "differences"):
        names = node.names("variances")
        if len(names) != 2 or (kind == "welch" and len(pairs) != 1):
            raise node.error(
                "variances", f"{kind} takes two variances, and welch one pair", "[<left>, <right>]"
            )
        variances = (names[0], names[1])
    check = PrintedCheck(
        node.take("id", str),
        node.take("text", str),
        kind,
        tuple(pairs),
        variances,
        node.take("seeds", int) if kind == "welch" else None,
        node.take("signs", bool, False) if kind == "differences" else False,
    )
    node.done()
    return check


def _check_unique(names: Sequence[str], node: Node, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise node.error("claims", f"ids of {what} occur twice: {', '.join(twice)}", "one id for one thing")
