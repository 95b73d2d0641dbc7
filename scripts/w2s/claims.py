"""The claims of a paper as data: ``published/claims-*.yaml``, read and checked.

A claim is a list of parts; a part is one statistic of one experiment's measurements and what the paper says of it. Arms
are named by role, never by a model: by the policy that a feedback's name begins with and its rank among the experiment's
feedback of that policy, in the order in which the experiment lists it. The same file thus serves every preset.

    weak          the first weak feedback                    untuned       the student as it was
    weak 2        the second one                             teacher       the weak teacher itself
    weak each     each of them, one comparison for each      human sft     the student after SFT only
    weak 2+       each from the second one on

For paper B a feedback is a refinement and its policy the first word of its name: ``naive``, ``icl``, ``infer``, ...

Everything is checked before a number is read: an unknown key, a name that leads nowhere and a test without what it needs
are refused with file and key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from pathlib import Path

from w2s.checked_yaml import Node, read_yaml

METRICS = (
    *("reward", "tokens", "win", "score", "agreement", "chosen_reward", "rejected_reward"),
    *("consistency", "vote", "similarity", "gap", "sides"),
    *("content", "style", "balance", "both", "correct", "marker", "words", "copied", "excess_risk"),
)
STATISTICS = ("difference", "level", "trend", "r_squared")
TESTS = ("above", "below", "no-lower", "equal")
JUDGES = ("main", "other", "any")
ALONG = ("share", "beta", "shown", "weak")
PRINTED = ("welch", "sign", "differences", "counts")
COUNTED = ("above", "below", "equal")
_ARM = re.compile(r"(?P<policy>[a-z]+)(?: (?P<rank>\d+\+?|each))?(?P<sft> sft)?")
_PICK = re.compile(r"(smallest|largest)( \d+)?|others|all")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: an arm by role, and which recipe, beta or share where those are compared.

    Attributes:
        policy: first word of a feedback's name, ``untuned`` or ``teacher``.
        ranks: first and last rank, counted from 1; the last is None for "and all that follow".
        sft: the student before preference optimisation.
        recipe: rank of the recipe in the experiment, None where recipes are not compared.
        beta, share, shown: ``"smallest"``, ``"smallest 2"``, ``"largest"``, ``"others"`` (those the other side leaves),
            ``"all"``. With ``shown`` all feedback of the policy is one arm, told apart by its number of examples.
    """

    policy: str
    ranks: tuple[int, int | None] = (1, 1)
    sft: bool = False
    recipe: int | None = None
    beta: str | None = None
    share: str | None = None
    shown: str | None = None

    @property
    def text(self) -> str:
        """The role in words."""
        first, last = self.ranks
        rank = "" if (first, last) == (1, 1) else f" no. {first}" if last else f", each from no. {first} on"
        more = [f"recipe no. {self.recipe}"] if self.recipe else []
        more += [
            f"{name} {getattr(self, name)}" for name in ("beta", "share", "shown") if getattr(self, name)
        ]
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
    published: Printed | None


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
    data: str = ""
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
    """A claim of the paper, in our words, with the place where it stands.

    A definition has no parts: ``definition`` says how the workflow keeps to it.
    """

    id: str
    text: str
    place: str
    parts: tuple[Part, ...]
    definition: str = ""


@dataclass(frozen=True)
class PrintedCheck:
    """A computation on the paper's own numbers: what they can bear; ``signs`` if all differences should have one sign.

    ``counts`` has groups of differences (sum of plus minus sum of minus) instead of pairs, and counts those that lie
    above, below or within ``within`` of zero.
    """

    id: str
    text: str
    kind: str
    pairs: tuple[tuple[str, str], ...] = ()
    variances: tuple[str, str] | None = None
    seeds: int | None = None
    signs: bool = False
    test: str = ""
    within: float = 0.0
    groups: tuple[tuple[str, tuple[Printed, ...]], ...] = ()


@dataclass(frozen=True)
class Words:
    """What the page calls things: parts that a made-up world is silent on, the paper's numbers, how they came out."""

    silent: str = "Parts that need what made-up data do not have"
    numbers: str = "the paper's own printed numbers"
    printed: str = "The paper printed"


@dataclass(frozen=True)
class Claims:
    """A whole file."""

    paper: str
    title: str
    scales: Mapping[str, Scale]
    needs: Mapping[str, str]
    claims: tuple[Claim, ...]
    printed: tuple[PrintedCheck, ...] = field(default=())
    words: Words = field(default=Words())

    @property
    def parts(self) -> list[Part]:
        """All parts of all claims."""
        return [part for claim in self.claims for part in claim.parts]

    @property
    def published_ids(self) -> set[str]:
        """Every id of a printed value that the file refers to."""
        numbers = [number for part in self.parts for number in part.published]
        numbers += [scale.published for scale in self.scales.values() if scale.published]
        numbers += [number for check in self.printed for _, group in check.groups for number in group]
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
    words = Words(**node.texts("words", Words()))
    found = Claims(node.take("paper", str), node.take("title", str), scales, needs, claims, printed, words)
    node.done()
    _check_unique([claim.id for claim in claims], node, "claims")
    _check_unique([part.id for part in found.parts], node, "parts")
    return found


def _claim(node: Node, scales: Mapping[str, Scale], needs: Mapping[str, str]) -> Claim:
    definition = node.take("definition", str, "")
    parts = () if definition else tuple(_part(entry, scales, needs) for entry in node.sequence("parts"))
    claim = Claim(node.take("id", str), node.take("text", str), node.take("place", str), parts, definition)
    node.done()
    return claim


def _part(node: Node, scales: Mapping[str, Scale], needs: Mapping[str, str]) -> Part:
    """One part; what its statistic and its test need must be there, and nothing that they do not take."""
    statistic = node.choice("statistic", STATISTICS, "difference")
    test = node.choice("test", TESTS)
    along = node.choice("along", ALONG) if statistic == "trend" else None
    left = _side(node, "left")
    if along and getattr(left, along, None):
        raise node.error("left", f"a pick of {along} in a trend along it", "no pick")
    has_right = statistic in ("difference", "r_squared") or (along == "weak" and node.has("right"))
    part = Part(
        id=node.take("id", str),
        text=node.take("text", str),
        experiment=node.take("experiment", str),
        statistic=statistic,
        metric=node.choice("metric", METRICS),
        test=test,
        left=replace(left, shown="all") if along == "shown" else left,
        right=_side(node, "right") if has_right else None,
        third=_side(node, "third") if statistic == "r_squared" else None,
        judge=node.choice("judge", JUDGES, "main"),
        data=node.take("data", str, ""),
        share=_pick(node, "share"),
        along=along,
        reference=node.number("reference") if statistic == "level" else None,
        margin=_margin(node, scales) if test in ("no-lower", "equal") else None,
        scale=node.choice("scale", tuple(scales), None),
        exceptions=_fraction(node),
        needs=tuple(node.choices("needs", tuple(needs))),
        published=_printed_list(node, "published", required=False),
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
        _printed(node.child("published"))[0] if node.has("published") else None,
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
        _pick(entry, "shown"),
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
        raise node.error(key, f"{pick!r} picks nothing", "smallest, smallest 2, largest, others, all")
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


def _printed_list(node: Node, key: str, required: bool = True) -> tuple[Printed, ...]:
    return tuple(number for entry in node.sequence(key, required) for number in _printed(entry))


def _printed(node: Node) -> tuple[Printed, ...]:
    """One number; with ``each``, a list of words for each name in braces, one for every combination of the words."""
    words = {}
    if node.has("each"):
        lists = node.child("each")
        words = {name: lists.names(name) for name in lists.keys}
    ids = {name: node.names(name, required=name == "plus") for name in ("plus", "minus", "half")}
    node.done()
    try:
        return tuple(
            Printed(
                *(
                    tuple(text.format_map(dict(zip(words, combination, strict=True))) for text in texts)
                    for texts in ids.values()
                )
            )
            for combination in product(*words.values())
        )
    except (KeyError, ValueError, IndexError) as error:
        raise node.error("each", f"no words for {error}", "a list for each name in braces") from None


def _printed_check(node: Node) -> PrintedCheck:
    kind = node.choice("kind", PRINTED)
    if kind == "counts":
        return _counts(node)
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


def _counts(node: Node) -> PrintedCheck:
    groups = []
    for entry in node.sequence("groups"):
        groups.append((entry.take("label", str), _printed_list(entry, "differences")))
        entry.done()
    check = PrintedCheck(
        node.take("id", str),
        node.take("text", str),
        "counts",
        test=node.choice("test", COUNTED),
        within=node.number("within", 0.0),
        groups=tuple(groups),
    )
    node.done()
    return check


def _check_unique(names: Sequence[str], node: Node, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise node.error("claims", f"ids of {what} occur twice: {', '.join(twice)}", "one id for one thing")
