"""What the paper's tables show, from this run's tables, with the paper's printed value beside each number.

A *layout* says which quantities a kind of table has and where each comes from; all layouts make one wide frame with
a row per line of the table. Nothing here knows how a table is written (:mod:`w2s.written`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import load
from w2s.errors import DataError
from w2s.published import of_metric, pair, pair_feedback
from w2s.results import (
    SETTING,
    UNTUNED,
    arm_order,
    feedback_detail,
    feedback_of,
    is_sft,
    main_gold,
    of_students,
    policy_of,
    read_if_there,
    read_result,
    records,
    same_model,
    share_label,
    with_untuned_by_recipe,
)
from w2s.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

MEASUREMENTS = ["data", "share", "student", "arm", "recipe", "metric", "judge", "seed", "id", "value"]


@dataclass(frozen=True)
class Quantity:
    """One number of a line: the columns that hold it and its interval, and what the paper calls it.

    ``form``: ``"number"``, ``"signed"``, ``"percent"`` (a share of 1; the paper prints percent).
    """

    name: str
    words: str
    form: str = "number"
    metrics: tuple[str, ...] = ()
    low: str = ""
    high: str = ""


@dataclass(frozen=True)
class Layout:
    """A kind of table: its lines (a function of the tables' manifest), its settings and its quantities."""

    lines: Callable[[Path], pd.DataFrame]
    settings: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    counts: tuple[str, ...]
    title: str = ""


# -- lines ---------------------------------------------------------------------------------------------------------


def reward_lines(tables: Path) -> pd.DataFrame:
    """A line per arm by the main judge: reward, gain over un-tuned, difference to human, label agreement.

    ``without_sft`` tells the recipes whose students begin DPO at the base model (Table 11).
    """
    rewards = read_result(tables, "rewards.csv")
    gold = main_gold(tables, rewards)
    lines = with_untuned_by_recipe(of_students(rewards[rewards["gold"] == gold]))
    differences = read_result(tables, "differences.csv")
    differences = differences[differences["gold"] == gold]
    key = [*SETTING, "arm"]
    for name, baseline in (("gain", UNTUNED), ("difference", "human")):
        mine = differences[
            [
                other == baseline
                or (baseline != UNTUNED and policy_of(other) == baseline and not is_sft(other))
                for other in differences["baseline"]
            ]
        ]
        columns = {"difference": name, "low": f"{name}_low", "high": f"{name}_high"}
        mine = mine.rename(columns=columns)[[*key, *columns.values()]]
        _check_once(mine, key, f"{tables}, differences.csv, baseline {baseline}")
        lines = lines.merge(mine, on=key, how="left")
    lines = lines.merge(agreements(tables), on=["data", "share", "feedback"], how="left")
    lines = lines.assign(without_sft=lines["recipe"].isin(load(tables).spec.get("without_sft", [])))
    return _in_order(lines.rename(columns={"gold": "judge"}))


def agreements(tables: Path) -> pd.DataFrame:
    """Agreement of each feedback's labels with human and with gold ones, one row per data, share, feedback."""
    labels = read_if_there(tables, "labels.csv")
    key = ["data", "share", "feedback"]
    wide = labels[key].drop_duplicates()
    for against in ("human", "gold"):
        mine = labels[labels["against"] == against]
        _check_once(mine, key, f"{tables}, labels.csv, against {against}")
        names = {name: f"{name}_{against}" for name in ("agreement", "low", "high")}
        wide = wide.merge(mine.rename(columns=names)[[*key, *names.values()]], on=key, how="left")
    return wide


def label_lines(tables: Path) -> pd.DataFrame:
    """A line per feedback: agreement of its labels with human and with gold ones."""
    labels = read_result(tables, "labels.csv")
    size = labels.groupby(["data", "share", "feedback"], sort=False)[["seeds", "n"]].max().reset_index()
    lines = agreements(tables).merge(size, on=["data", "share", "feedback"])
    return _in_order(lines.assign(arm=lines["feedback"]))


def response_lines(tables: Path) -> pd.DataFrame:
    """A line per feedback and judge: gold rewards of the data's responses that its labels prefer or reject."""
    lines = read_result(tables, "responses.csv").rename(columns={"gold": "judge"})
    return _in_order(lines.assign(arm=lines["feedback"]))


def vote_lines(tables: Path) -> pd.DataFrame:
    """A line per feedback and LLM judge: consistency of its votes, and their share for the label."""
    lines = read_result(tables, "votes.csv")
    return _in_order(lines.assign(arm=lines["feedback"]))


def seed_lines(tables: Path) -> pd.DataFrame:
    """A line per arm after DPO: mean and interval, sample variance and standard deviation of the seeds' means.

    Raises:
        DataError: there is one seed only, which has no variance.
    """
    lines = reward_lines(tables)
    lines = lines[[bool(feedback_of(arm)) and not is_sft(arm) for arm in lines["arm"]]]
    means = seed_means(tables, str(lines["judge"].iloc[0]) if len(lines) else "")
    spread = means.groupby([*SETTING, "arm"])["value"].agg(["count", "var", "std"]).reset_index()
    spread = spread.rename(columns={"var": "variance", "std": "deviation"})
    lines = lines.merge(spread, on=[*SETTING, "arm"], how="left")
    lone = lines[~(lines["count"] >= 2)]
    if len(lone):
        raise DataError(
            f"arm {lone['arm'].iloc[0]!r} has measurements of fewer than two seeds: no variance",
            where=tables,
            instead="an experiment with several seeds",
        )
    return lines


def seed_means(tables: Path, judge: str) -> pd.DataFrame:
    """Mean reward of each arm of students in each seed: data, share, student, recipe, arm, seed, value.

    Raises:
        DataError: the tables have no single measurements of rewards by this judge.
    """
    path = load(tables).path("measurements.parquet")
    cells = read_parquet(path, MEASUREMENTS)
    cells = cells[(cells["metric"] == "reward") & (cells["judge"] == judge)]
    if cells.empty:
        raise DataError(f"no reward by judge {judge!r}", where=path)
    cells = cells.assign(recipe=cells["recipe"].fillna(""))
    return cells.groupby([*SETTING, "arm", "seed"])["value"].mean().reset_index()


def _in_order(lines: pd.DataFrame) -> pd.DataFrame:
    """Lines by setting in the order of the table, arms in theirs; teachers of a policy as the table has them."""
    for name in ("student", "recipe"):
        if name not in lines:
            lines = lines.assign(**{name: ""})
    if "beta" not in lines:
        lines = lines.assign(beta=float("nan"))
    settings = list(lines[list(SETTING)].drop_duplicates().itertuples(index=False, name=None))
    keys = list(lines[list(SETTING)].itertuples(index=False, name=None))

    def rank(row: int) -> tuple:
        untuned, sft, (policy, _) = arm_order(lines["arm"].iloc[row])
        return settings.index(keys[row]), untuned, sft, policy

    return lines.iloc[sorted(range(len(lines)), key=rank)].reset_index(drop=True)


def _check_once(frame: pd.DataFrame, key: list[str], where: str) -> None:
    twice = frame[frame.duplicated(key)]
    if len(twice):
        row = ", ".join(str(twice.iloc[0][name]) for name in key)
        raise DataError(f"{row} occurs twice", where=where)


# -- layouts -------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "rewards": Layout(
        reward_lines,
        ("data", "share", "student", "recipe", "judge"),
        (
            Quantity(
                "agreement_human",
                "Labels equal to human",
                "percent",
                ("match_percent", "kept_human_labels_percent"),
                "low_human",
                "high_human",
            ),
            Quantity("mean", "Gold reward", "number", ("gold_reward",), "low", "high"),
            Quantity("gain", "Gain over un-tuned", "signed", ("gain_over_untuned",), "gain_low", "gain_high"),
            Quantity("difference", "Minus human", "signed", (), "difference_low", "difference_high"),
        ),
        ("seeds", "prompts"),
    ),
    "responses": Layout(
        response_lines,
        ("data", "share", "judge"),
        (
            Quantity("chosen", "Chosen", "number", ("chosen_gold_reward",)),
            Quantity("rejected", "Rejected", "number", ("rejected_gold_reward",)),
            Quantity("gap", "Chosen minus rejected", "signed", ("chosen_minus_rejected",), "low", "high"),
            Quantity(
                "gold_agrees",
                "Gold model sides with the label",
                "percent",
                ("gold_sides_with_weak_percent",),
                "gold_agrees_low",
                "gold_agrees_high",
            ),
        ),
        ("seeds", "n"),
        "Gold reward of the data's responses",
    ),
    "votes": Layout(
        vote_lines,
        ("data", "share", "judge"),
        (
            Quantity("consistency", "Consistency", "number", ("gpt4_consistency",), "low", "high"),
            Quantity(
                "label_share",
                "Votes for the label",
                "percent",
                ("gpt4_sides_with_weak_percent",),
                "label_low",
                "label_high",
            ),
        ),
        ("seeds", "pairs", "votes"),
        "Votes of an LLM judge",
    ),
    "seeds": Layout(
        seed_lines,
        ("data", "share", "student", "recipe", "judge"),
        (
            Quantity("mean", "Mean gold reward", "number", ("gold_reward",), "low", "high"),
            Quantity("variance", "Sample variance of the seeds", "number", ("gold_reward_variance",)),
            Quantity("deviation", "Standard deviation of the seeds", "number"),
            Quantity("difference", "Minus human, paired", "signed", (), "difference_low", "difference_high"),
        ),
        ("seeds", "prompts"),
    ),
    "labels": Layout(
        label_lines,
        ("data", "share"),
        (
            Quantity(
                "agreement_human",
                "Labels equal to human",
                "percent",
                ("match_percent", "kept_human_labels_percent"),
                "low_human",
                "high_human",
            ),
            Quantity("agreement_gold", "Labels equal to gold", "percent", (), "low_gold", "high_gold"),
        ),
        ("seeds", "n"),
    ),
}


# -- the paper's values --------------------------------------------------------------------------------------------


@dataclass
class Printed:
    """The paper's values of an item, found by the role of a line: its student, feedback and setting."""

    item: pd.DataFrame
    students: dict[str, str]
    sources: dict[str, str]
    judges: dict[str, str]

    @classmethod
    def beside(cls, item: pd.DataFrame, lines: pd.DataFrame) -> Printed:
        """Pair the names of the lines with the paper's."""
        named = item[(item["student"] != "")]
        golds = [gold for gold in dict.fromkeys(item["gold"]) if gold]
        judges = list(dict.fromkeys(lines["judge"])) if "judge" in lines else []
        sources = [source for source in dict.fromkeys(map(feedback_of, lines["arm"])) if source]
        return cls(
            item,
            pair([name for name in lines["student"] if name], list(named["student"])),
            pair_feedback(sources, [source for source in dict.fromkeys(item["feedback"]) if source]),
            pair(judges, golds),
        )

    def value(self, line: Any, quantity: Quantity) -> float:
        """The printed value of a line's quantity in the unit of ours; NaN if the paper has none.

        Raises:
            DataError: the paper has several, so that the role does not tell which is meant.
        """
        if is_sft(line.arm) or not quantity.metrics:
            return float("nan")
        found = of_metric(self.item, *quantity.metrics)
        if line.student:
            found = found[found["student"].isin([self.students.get(line.student), ""])]
        if line.arm == UNTUNED:
            found = found[found["arm"] == UNTUNED]
        else:
            found = found[
                (found["feedback"] == self.sources.get(line.arm, line.arm)) & (found["arm"] != UNTUNED)
            ]
        found = found[found["gold"].isin([self.judges.get(getattr(line, "judge", "")), ""])]
        found = found[[_same_setting(row, line) for row in records(found)]]
        if len(found) > 1:
            raise DataError(
                f"several printed values of {quantity.words.lower()} fit arm {line.arm!r}: "
                + ", ".join(found["id"]),
                where="the published values",
            )
        if found.empty:
            return float("nan")
        return float(found["value"].iloc[0]) / (100 if quantity.form == "percent" else 1)

    @property
    def roles(self) -> list[str]:
        """``"OPT-125M for demo-s"``: the paper's students and teachers whose names differ from ours, each once."""
        pairs = list(self.students.items())
        pairs += [(feedback_detail(ours), feedback_detail(theirs)) for ours, theirs in self.sources.items()]
        different = [
            f"{theirs} for {ours}"
            for ours, theirs in pairs
            if theirs and same_model(ours) != same_model(theirs)
        ]
        return list(dict.fromkeys(different))


def _same_setting(row: Any, line: Any) -> bool:
    """Whether a printed row's share, beta and SFT are the line's; what a row does not say fits any."""
    if row.share and row.share != share_label(line.share):
        return False
    if row.beta and not math.isclose(float(row.beta), line.beta, rel_tol=1e-6):
        return False
    return not row.sft or (row.sft == "no") == getattr(line, "without_sft", False)


def fair_coin(votes: int) -> float:
    """Expected share of the majority among so many throws of a fair coin: 0.623 for ten (Table 4's floor)."""
    return sum(math.comb(votes, k) * max(k, votes - k) for k in range(votes + 1)) / (votes * 2**votes)
