"""The tables that ``summarise`` makes, as figures and the report read them, and the published values beside
them.

Contract 12 of the architecture: figures read tables only. Every table is checked when it is read, so that a
missing column or a number that is none is named with file and row instead of becoming a gap in a figure.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import load
from w2s.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

UNTUNED = "untuned"
TEACHER = "teacher"
SFT_SUFFIX = "-sft"
# Feedback is named by its policy, or by policy and what it is made from ("weak-opt-125m"). Per policy, in the
# order in which they are shown: its name in a table, and what its labels are. Others follow.
POLICY_WORDS = {
    "human": ("human", "human labels"),
    "weak": ("weak", "weak labels"),
    "prompted": ("prompted", "labels of a prompted model"),
    "reward": ("reward model", "labels of a reward model"),
    "match": ("match", "labels that equal human ones"),
    "mismatch": ("mismatch", "labels that differ from human ones"),
    "random": ("random noise", "human labels with random flips"),
    "kept": ("random noise, kept part", "the kept part of randomly flipped labels"),
    "flipped": ("random noise, flipped part", "the flipped part of randomly flipped labels"),
    "confident": ("confident", "confident weak labels"),
    "ensemble": ("ensemble", "labels of an ensemble"),
    "everything": ("human, all data", "human labels of all data"),
    "gold": ("gold", "gold labels"),
}
POLICIES = tuple(POLICY_WORDS)
# The parts of randomly flipped labels are made as parts of weak ones are; they are shown as what they are.
PARTS_OF_NOISE = {"match-random": "kept", "mismatch-random": "flipped"}


@dataclass(frozen=True)
class Columns:
    """What a table must have: text columns, numbers, numbers that may be empty."""

    text: tuple[str, ...]
    numbers: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """All names that must be there."""
        return [*self.text, *self.numbers, *self.optional]


TABLES = {
    "rewards.csv": Columns(
        text=("experiment", "data", "share", "student", "recipe", "arm", "feedback", "step", "gold"),
        numbers=("seeds", "prompts", "mean", "low", "high"),
        optional=("beta", "malformed", "truncated", "tokens"),
    ),
    "differences.csv": Columns(
        text=(
            *("experiment", "data", "share", "student", "recipe"),
            *("arm", "baseline", "gold", "seed_differences"),
        ),
        numbers=("seeds", "prompts", "difference", "low", "high"),
        optional=("beta",),
    ),
    "lengths.csv": Columns(
        text=("experiment", "data", "share", "student", "recipe", "arm", "baseline", "gold"),
        numbers=("seeds", "prompts", "mean"),
        optional=(
            *("beta", "tokens", "reward_per_token", "difference", "tokens_difference"),
            *("adjusted", "low", "high", "slope"),
        ),
    ),
    "labels.csv": Columns(
        text=("experiment", "data", "share", "feedback", "against"),
        numbers=("seeds", "n", "agreement", "low", "high"),
    ),
    "label_quality.csv": Columns(
        text=("experiment", "data", "feedback", "bin"),
        numbers=("n",),
        optional=("margin_low", "margin_high", "mean_confidence", "agreement_human", "agreement_gold"),
    ),
    "costs.csv": Columns(text=("stage",), numbers=("jobs", "wall_s"), optional=("peak_memory_mb",)),
    "responses.csv": Columns(
        text=("experiment", "data", "share", "feedback", "gold"),
        numbers=("seeds", "n", "chosen", "rejected", "gap", "low", "high"),
        optional=("gold_agrees", "gold_agrees_low", "gold_agrees_high"),
    ),
    "comparisons.csv": Columns(
        text=("experiment", "data", "share", "student", "recipe", "arm", "baseline", "judge"),
        numbers=("seeds", "prompts", "win", "tie", "lose", "score", "low", "high"),
        optional=("length_controlled", "position_bias", "malformed"),
    ),
    "votes.csv": Columns(
        text=("experiment", "data", "share", "feedback", "judge"),
        numbers=("seeds", "pairs", "votes", "consistency", "low", "high"),
        optional=("label_share", "label_low", "label_high", "malformed"),
    ),
    "similarity.csv": Columns(
        text=("experiment", "data", "share", "student", "encoder", "left", "right"),
        numbers=("seeds", "prompts", "r2", "low", "high", "slope", "intercept"),
        optional=("pearson", "spearman", "mean_left", "mean_right"),
    ),
    "similarity_points.csv": Columns(
        text=("experiment", "data", "student", "seed", "id", "arm"), numbers=("similarity",)
    ),
    "examples.csv": Columns(
        text=(
            *("experiment", "data", "share", "seed", "id", "kind", "prompt"),
            *("response_first", "label_first", "response_second", "label_second", "votes"),
        ),
        numbers=(),
        optional=("reward_first", "reward_second"),
    ),
    "recipes.csv": Columns(text=("model", "step", "setting", "value"), numbers=()),
}
DROPS = Columns(text=("subset", "reason"), numbers=("rows",))
PUBLISHED = Columns(
    text=(
        *("id", "paper", "artifact", "data", "student", "teacher"),
        *("arm", "setting", "gold", "metric", "source", "note"),
    ),
    numbers=("value",),
)


def read_result(tables: Path, name: str) -> pd.DataFrame:
    """Read one table of a ``summarise`` artifact, e.g. ``"rewards.csv"``.

    Raises:
        ArtifactError: the artifact or the table is missing.
        DataError: a column is missing or a cell is no number; the message names the row.
    """
    return read_table(load(tables).path(name), TABLES[name])


def result_names(tables: Path) -> list[str]:
    """The tables that an experiment has, in the order of :data:`TABLES`."""
    present = load(tables).manifest["files"]
    return [name for name in TABLES if name in present]


def read_if_there(tables: Path, name: str) -> pd.DataFrame:
    """As :func:`read_result`; of an experiment without this table an empty one, with its columns."""
    import pandas as pd

    if name in result_names(tables):
        return read_result(tables, name)
    columns = TABLES[name]
    kinds = dict.fromkeys(columns.text, "str") | dict.fromkeys(
        (*columns.numbers, *columns.optional), "float64"
    )
    return pd.DataFrame(columns=columns.all).astype(kinds)


def experiment_name(tables: Path) -> str:
    """The experiment that the tables belong to."""
    return str(load(tables).spec.get("experiment", tables.parent.name))


def read_published(path: Path) -> pd.DataFrame:
    """Read ``published/values.csv``: one printed number of a paper a row, ids unique."""
    frame = read_table(path, PUBLISHED)
    twice = frame.loc[frame["id"].duplicated(), "id"]
    if len(twice):
        raise DataError(f"id {twice.iloc[0]!r} occurs twice", where=f"{path}, row {twice.index[0] + 2}")
    return frame


def read_table(path: Path, columns: Columns) -> pd.DataFrame:
    """Read a CSV; text columns as text (empty stays empty), numbers as float64, optional numbers with NaN."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = [row for row in csv.reader(stream, strict=True) if row] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"not a readable table ({error})", where=path) from error
    # pandas would take the first column of longer rows for an index, and fill shorter ones.
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{len(row)} cells under {len(header)} columns", where=f"{path}, row {number}")
    raw = pd.DataFrame(rows, columns=header, dtype=str)
    missing = [name for name in columns.all if name not in raw.columns]
    if missing:
        raise DataError(
            f"column {', '.join(missing)} missing",
            where=path,
            instead=f"the columns {', '.join(columns.all)}",
        )
    for name in (*columns.numbers, *columns.optional):
        raw[name] = _numbers(raw[name], path, may_be_empty=name in columns.optional)
    return raw


def _numbers(column: pd.Series, path: Path, *, may_be_empty: bool) -> pd.Series:
    """A text column as float64; a cell that is no finite number stops the run."""
    import numpy as np
    import pandas as pd

    empty = column.str.strip().str.lower().isin(["", "nan"])
    values = pd.to_numeric(column.mask(empty), errors="coerce").astype("float64")
    wrong = pd.Series(~np.isfinite(values.to_numpy())) & ~(empty & may_be_empty)
    if wrong.any():
        row = wrong.to_list().index(True)
        raise DataError(
            f"{column.iloc[row]!r} is no number",
            where=f"{path}, row {row + 2}, column {column.name}",
            instead="a finite decimal number" + (" or nothing" if may_be_empty else ""),
        )
    return values


def main_gold(tables: Path, rewards: pd.DataFrame) -> str:
    """The judge that the experiment declares as its main one; without a declaration, the table's first.

    Raises:
        DataError: the table has no rows, or none of the declared judge.
    """
    if rewards.empty:
        raise DataError(
            "the table of rewards has no rows", where=tables, instead="a run with at least one evaluation"
        )
    declared = load(tables).spec.get("main_gold")
    if declared and declared not in set(rewards["gold"]):
        known = ", ".join(sorted(set(rewards["gold"])))
        raise DataError(f"no reward by the main judge {declared!r}", where=tables, instead=f"one of {known}")
    return str(declared or rewards["gold"].iloc[0])


def feedback_of(arm: str) -> str:
    """Feedback source of an arm: ``"weak-sft"`` and ``"weak"`` -> ``"weak"``; un-tuned -> ``""``."""
    return "" if arm == UNTUNED else arm.removesuffix(SFT_SUFFIX)


def of_students(rewards: pd.DataFrame) -> pd.DataFrame:
    """The rows of students, tuned or not; those of the teachers' own responses are left out."""
    return rows_where(rewards, "arm", lambda arm: arm.removesuffix(SFT_SUFFIX) != TEACHER)


def with_untuned_by_recipe(rewards: pd.DataFrame) -> pd.DataFrame:
    """Rewards with the un-tuned model's row once per recipe of its setting.

    A base model has no recipe; among several recipes it stands beside the arms of each. Without a tuned arm
    it stays as it is.
    """
    import pandas as pd

    setting = ["data", "share", "student", "gold"]
    untuned, tuned = rewards[rewards["arm"] == UNTUNED], rewards[rewards["arm"] != UNTUNED]
    recipes = tuned.groupby([*setting, "recipe"], sort=False)["beta"].first().reset_index()
    spread = untuned.drop(columns=["recipe", "beta"]).merge(recipes, on=setting, how="left")
    spread["recipe"] = spread["recipe"].fillna("")
    whole = pd.concat([spread[rewards.columns], tuned], ignore_index=True) if len(spread) else tuned
    return whole.reset_index(drop=True)


def is_sft(arm: str) -> bool:
    """Whether the arm is the student before preference optimisation."""
    return arm.endswith(SFT_SUFFIX)


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples. (Their fields have the types that the table's reader gave them.)"""
    return iter(frame.itertuples())


def rows_where(frame: pd.DataFrame, column: str, test: Callable[[str], bool]) -> pd.DataFrame:
    """The rows whose cell in ``column`` passes ``test``; an empty table stays a table with its columns."""
    return frame.iloc[[row for row, cell in enumerate(frame[column]) if test(cell)]]


def policy_of(feedback: str) -> str:
    """Policy of a feedback source: ``"weak-opt-125m"`` -> ``"weak"``; an unknown one is its own."""
    return _split(feedback)[0]


def feedback_detail(feedback: str) -> str:
    """What a source is made from: ``"weak-opt-125m"`` -> ``"opt-125m"``, ``"human"`` -> ``""``."""
    return _split(feedback)[1]


def _split(feedback: str) -> tuple[str, str]:
    """Policy and the rest; ``"match-random"`` is the kept part of random flips."""
    for name, policy in (*PARTS_OF_NOISE.items(), *((policy, policy) for policy in POLICIES)):
        if feedback == name or feedback.startswith(f"{name}-"):
            return policy, feedback[len(name) + 1 :]
    return feedback, ""


def feedback_order(feedback: str) -> tuple[int, str]:
    """Sort key of feedback sources."""
    policy = policy_of(feedback)
    return (POLICIES.index(policy) if policy in POLICIES else len(POLICIES), feedback)


def feedback_label(feedback: str) -> str:
    """A source's labels in words: ``"weak-opt-125m"`` -> ``"weak labels (from opt-125m)"``."""
    return _in_words(feedback, 1)


def feedback_name(feedback: str) -> str:
    """A source in words, for tables: ``"weak-opt-125m"`` -> ``"weak (from opt-125m)"``."""
    return _in_words(feedback, 0)


def _in_words(feedback: str, which: int) -> str:
    policy, detail = policy_of(feedback), feedback_detail(feedback)
    words = POLICY_WORDS.get(policy, (policy, f"{policy} labels"))[which]
    return words + (f" (from {detail})" if detail else "")


def weak_minus_human(differences: pd.DataFrame, gold: str) -> pd.DataFrame:
    """Paper A's question by one judge: rows of a weak arm after DPO against a human arm after DPO."""
    mine = differences[differences["gold"] == gold]
    mine = rows_where(mine, "arm", lambda arm: policy_of(arm) == "weak" and not is_sft(arm))
    return rows_where(mine, "baseline", lambda arm: policy_of(arm) == "human" and not is_sft(arm))


def arm_order(arm: str) -> tuple[int, int, tuple[int, str]]:
    """Sort key of arms: un-tuned first, then SFT only, then after DPO."""
    return (int(arm != UNTUNED), int(not is_sft(arm)), feedback_order(feedback_of(arm)))


def arm_label(arm: str) -> str:
    """An arm in words: ``"weak-opt-125m-sft"`` -> ``"weak (from opt-125m), SFT only"``."""
    if arm == UNTUNED:
        return "un-tuned"
    if feedback_of(arm) == TEACHER:
        return "the teacher itself" + (", SFT only" if is_sft(arm) else "")
    return feedback_name(feedback_of(arm)) + (", SFT only" if is_sft(arm) else ", SFT + DPO")


def share_label(share: str) -> str:
    """``"1-of-2"`` -> ``"1/2"``."""
    return share.replace("-of-", "/")


def same_model(name: str) -> str:
    """Key under which two spellings of a model's name are equal: ``"OPT-1.3B"`` and ``"opt-1.3b"``."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def share_value(share: str) -> float:
    """``"1-of-2"`` or ``"1/2"`` -> 0.5.

    Raises:
        DataError: it is no fraction.
    """
    numerator, _, denominator = share_label(share).partition("/")
    try:
        return int(numerator) / int(denominator)
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{share!r} is no labelled share", instead="such as 1-of-2") from error


SETTING = ("data", "share", "student", "recipe")


def setting_labels(frame: pd.DataFrame, columns: Sequence[str] = SETTING) -> pd.Series:
    """Per row the names that tell its setting from the table's others; the student's if there is one
    setting only.

    A column that has one value in the whole table says nothing and is left out. Recipes that differ in beta
    are told by it. A row without recipe (an un-tuned model) counts as of any.
    """
    import pandas as pd

    telling = telling_columns(frame, columns) or [
        next(name for name in reversed(columns) if name != "recipe")
    ]
    parts = frame[telling].copy()
    if "share" in telling:
        parts["share"] = ["labelled share " + share_label(share) for share in parts["share"]]
    if "recipe" in telling:
        parts["recipe"] = recipe_labels(frame)
    joined = [" · ".join(filter(None, row)) for row in parts.itertuples(index=False)]
    return pd.Series(joined, index=frame.index, dtype="str")


def telling_columns(frame: pd.DataFrame, columns: Sequence[str] = SETTING) -> list[str]:
    """The columns that have more than one value; for recipes an empty one does not count."""
    return [
        name
        for name in columns
        if (frame.loc[frame[name] != "", name] if name == "recipe" else frame[name]).nunique() > 1
    ]


def recipe_labels(frame: pd.DataFrame) -> list[str]:
    """Recipes in words: by beta if each of the table's recipes has its own, else by name."""
    tuned = frame[frame["recipe"] != ""]
    by_recipe = tuned.groupby("recipe")["beta"].first() if "beta" in frame else tuned["recipe"].iloc[:0]
    if len(by_recipe) and by_recipe.notna().all() and by_recipe.is_unique:
        return [f"β = {by_recipe[recipe]:g}" if recipe else "" for recipe in frame["recipe"]]
    return list(frame["recipe"])


def counts(frame: pd.DataFrame) -> str:
    """``"3 seeds, 300 prompts"``, or ranges where rows differ."""
    return f"{plural(frame['seeds'], 'seed')}, {plural(frame['prompts'], 'prompt')}"


def plural(values: pd.Series, noun: str) -> str:
    """A count with its noun: one number if all rows have the same, else the range."""
    low, high = int(values.min()), int(values.max())
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, U+2212 for minus, never a negative zero."""
    rounded = round(value, digits)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded):.{digits}f}"


def number(value: float, digits: int = 2) -> str:
    """A number with U+2212 for minus, never a negative zero."""
    return signed(value, digits).removeprefix("+")


def interval(low: float, high: float, digits: int = 2) -> str:
    """``"[−0.03, 0.27]"``."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def seed_values(text: str) -> list[float]:
    """The semicolon list of per-seed differences."""
    return [float(part) for part in text.split(";") if part.strip()]
