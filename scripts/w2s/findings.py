"""What a run shows, in plain words and numbers, whichever way it came out: the content of the report.

Nothing here knows what the paper found. A sentence follows from a difference and its interval alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import load
from w2s.results import (
    DROPS,
    SETTING,
    TABLES,
    arm_label,
    arm_order,
    counts,
    experiment_name,
    feedback_label,
    feedback_name,
    feedback_of,
    feedback_order,
    interval,
    main_gold,
    number,
    of_students,
    plural,
    read_if_there,
    read_result,
    read_table,
    records,
    result_names,
    setting_labels,
    share_label,
    signed,
    weak_minus_human,
    with_untuned_by_recipe,
)

if TYPE_CHECKING:
    import pandas as pd

WEAK_BETTER = "weak"
HUMAN_BETTER = "human"
OPEN = "open"
VERDICTS = {
    WEAK_BETTER: "weak labels gave the higher reward",
    HUMAN_BETTER: "human labels gave the higher reward",
    OPEN: "not distinguishable from zero",
}


# Tables of experiments without students, and what they are about.
SUBJECTS = {
    "responses.csv": "the data's responses",
    "votes.csv": "votes of an LLM judge",
    "examples.csv": "single pairs",
    "recipes.csv": "settings",
}


@dataclass(frozen=True)
class Finding:
    """One difference between two arms, with its 95 % interval."""

    setting: str
    arm: str
    baseline: str
    gold: str
    seeds: int
    prompts: int
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Which side the interval lies on, ``"open"`` if it holds zero."""
        if self.low > 0:
            return WEAK_BETTER
        return HUMAN_BETTER if self.high < 0 else OPEN

    @property
    def text(self) -> str:
        """``"+0.12 [−0.03, 0.27]"``."""
        return f"{signed(self.difference)} {interval(self.low, self.high)}"

    @property
    def words(self) -> str:
        """The verdict in words."""
        return VERDICTS[self.verdict]

    @property
    def sentence(self) -> str:
        """``"weak minus human = +0.12 [−0.03, 0.27]: not distinguishable from zero"``."""
        return f"weak minus human = {self.text}: {self.words}"


def experiment(tables: Path) -> dict[str, Any]:
    """All that the report says of one experiment; of one without students, what its labels were asked."""
    rewards = read_if_there(tables, "rewards.csv")
    if rewards.empty:
        return without_students(tables)
    rewards = with_untuned_by_recipe(rewards)
    differences = read_result(tables, "differences.csv")
    gold = main_gold(tables, rewards)
    main = [gold, *[other for other in dict.fromkeys(rewards["gold"]) if other != gold]]
    found = {judge: findings(weak_minus_human(differences, judge)) for judge in main}
    return {
        "name": experiment_name(tables),
        "what": what_was_run(of_students(rewards), gold),
        "gold": gold,
        "headline": headline(found[gold]),
        "caveat": caveat(rewards),
        "findings": found[gold],
        "other_judges": [
            agreement_of_judges(judge, rows, found[gold])
            for judge, rows in found.items()
            if judge != gold and rows
        ],
        "judges": main,
        "rewards": reward_rows(rewards, main),
        "differences": difference_rows(differences, main),
        "lengths": length_rows(read_if_there(tables, "lengths.csv"), gold),
    }


def without_students(tables: Path) -> dict[str, Any]:
    """An experiment on labels or settings alone: no student, hence no reward and nothing to compare."""
    named = [name for name in result_names(tables) if name in SUBJECTS]
    sources = {
        source
        for name in ("responses.csv", "votes.csv", "labels.csv")
        for source in read_if_there(tables, name)["feedback"]
    }
    labels = enumeration([feedback_label(source) for source in sorted(sources, key=feedback_order)])
    about = enumeration([SUBJECTS[name] for name in named]) or "labels"
    of_whom = f" of {labels}" if labels else ""
    return {
        "name": experiment_name(tables),
        "what": f"No student was trained; the experiment is about {about}{of_whom}.",
        "gold": None,
        "headline": f"About {about}; no student was trained for it.",
        "caveat": "",
        "findings": [],
        "other_judges": [],
        "judges": [],
        "rewards": [],
        "differences": [],
        "lengths": [],
    }


def findings(differences: pd.DataFrame) -> list[Finding]:
    """Differences as findings, in the order of the table."""
    if differences.empty:
        return []
    several = differences["arm"].nunique() > 1
    settings = titles(differences)
    return [
        Finding(
            setting + (f" · {feedback_label(feedback_of(row.arm))}" if several else ""),
            *(row.arm, row.baseline, row.gold, int(row.seeds), int(row.prompts)),
            *(row.difference, row.low, row.high),
        )
        for setting, row in zip(settings, records(differences), strict=True)
    ]


def titles(frame: pd.DataFrame) -> list[str]:
    """What tells a row's setting from the others; student and data set where there is one setting only."""
    if len(frame[list(SETTING)].drop_duplicates()) == 1:
        return [f"{row.student} on {row.data}" for row in records(frame)]
    return list(setting_labels(frame))


def agreement_of_judges(judge: str, other: Sequence[Finding], main: Sequence[Finding]) -> str:
    """Whether another judge comes to the same verdicts as the main one."""
    verdicts = {(finding.setting, finding.arm): finding.verdict for finding in main}
    compared = [item for item in other if (item.setting, item.arm) in verdicts]
    same = sum(item.verdict == verdicts[item.setting, item.arm] for item in compared)
    if len(compared) == 1:
        return f"Judge {judge}: {compared[0].text}, {'the same verdict' if same else 'another verdict'}."
    return f"Judge {judge} comes to the same verdict in {same} of {len(compared)} settings."


def headline(found: Sequence[Finding]) -> str:
    """The key result in one plain sentence."""
    if not found:
        return "This run has no pair of a weak and a human arm, so there is nothing to compare."
    number_of = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in VERDICTS}
    if len(found) == 1:
        return {
            WEAK_BETTER: "Weak labels gave the better student.",
            HUMAN_BETTER: "Human labels gave the better student.",
            OPEN: "No difference could be shown between weak and human labels.",
        }[found[0].verdict]
    parts = [
        f"{words} in {number_of[verdict]}"
        for verdict, words in (
            (WEAK_BETTER, "weak labels gave the better student"),
            (HUMAN_BETTER, "human labels did"),
            (OPEN, "no difference could be shown"),
        )
        if number_of[verdict]
    ]
    if number_of[HUMAN_BETTER] and not number_of[WEAK_BETTER]:
        parts[0] = f"human labels gave the better student in {number_of[HUMAN_BETTER]}"
    return f"Of {len(found)} settings: {', '.join(parts)}."


def caveat(rewards: pd.DataFrame) -> str:
    """What the intervals cover."""
    if rewards["seeds"].max() <= 1:
        return (
            "One seed: the intervals cover the choice of prompts only. "
            "Another seed may well give another result; a claim needs at least three."
        )
    seeds, prompts = plural(rewards["seeds"], "seed"), plural(rewards["prompts"], "prompt")
    return (
        f"Intervals are 95 %, bootstrap over {seeds} and {prompts}, the same prompts and seeds for both arms."
    )


def what_was_run(rewards: pd.DataFrame, gold: str) -> str:
    """The run in one sentence."""
    sources = sorted({feedback_of(arm) for arm in rewards["arm"]} - {""}, key=feedback_order)
    students = list(dict.fromkeys(rewards["student"]))
    data = list(dict.fromkeys(rewards["data"]))
    shares = ", ".join(dict.fromkeys(share_label(share) for share in rewards["share"]))
    learners = f"{'Students' if len(students) > 1 else 'Student'} {enumeration(students)}"
    labels = enumeration([feedback_label(source) for source in sources]) or "no labels"
    where = f"{enumeration(data)} (labelled share {shares})"
    return f"{learners} learned from {labels} on {where}; {counts(rewards)}; judge: {gold}."


def enumeration(words: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def reward_rows(rewards: pd.DataFrame, judges: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per setting: its label and its arms, each with mean and interval by every judge."""
    key = list(SETTING)
    entries = []
    settings = titles(rewards.drop_duplicates(key))
    for setting, (_, rows) in zip(settings, rewards.groupby(key, sort=False), strict=True):
        arms = []
        for arm in sorted(dict.fromkeys(rows["arm"]), key=arm_order):
            mine = rows[rows["arm"] == arm]
            cells = {row.gold: f"{number(row.mean)} {interval(row.low, row.high)}" for row in records(mine)}
            first = mine.iloc[0]
            arms.append(
                {
                    "label": arm_label(arm),
                    "rewards": [cells.get(judge, "–") for judge in judges],
                    "malformed": percent(
                        mine["malformed"].dropna().iloc[0] if mine["malformed"].notna().any() else None
                    ),
                    "truncated": percent(first["truncated"]),
                    "tokens": number(first["tokens"], 1) if first["tokens"] == first["tokens"] else "–",
                }
            )
        entries.append({"setting": setting, "arms": arms})
    return entries


def difference_rows(differences: pd.DataFrame, judges: Sequence[str]) -> list[dict[str, Any]]:
    """All differences, main judge first: what, against what, by whom, how much, per seed."""
    mine = differences.iloc[
        sorted(range(len(differences)), key=lambda row: judges.index(differences["gold"].iloc[row]))
    ]
    return [
        {
            "setting": setting,
            "judge": row.gold,
            "arm": arm_label(row.arm),
            "baseline": arm_label(row.baseline),
            "text": f"{signed(row.difference)} {interval(row.low, row.high)}",
            "by_seed": ", ".join(signed(float(value)) for value in row.seed_differences.split(";") if value),
        }
        for setting, row in zip(titles(mine), records(mine), strict=True)
    ]


def length_rows(lengths: pd.DataFrame, gold: str) -> list[dict[str, Any]]:
    """Reward, length and the difference at equal length of each student by the main judge; none where no length is known."""
    mine = with_untuned_by_recipe(of_students(lengths[lengths["gold"] == gold]))
    if not mine["tokens"].notna().any():
        return []
    settings = titles(mine)
    places = [
        (settings.index(setting), arm_order(arm)) for setting, arm in zip(settings, mine["arm"], strict=True)
    ]
    mine = mine.iloc[sorted(range(len(mine)), key=places.__getitem__)]
    return [
        {
            "setting": setting,
            "arm": arm_label(row.arm),
            "mean": number(row.mean),
            "tokens": told(row.tokens, lambda value: number(value, 1)),
            "per_token": told(row.reward_per_token, lambda value: number(value, 3)),
            "difference": told(row.difference, signed),
            "longer": told(row.tokens_difference, lambda value: signed(value, 1)),
            "adjusted": told(row.adjusted, signed)
            + (f" {interval(row.low, row.high)}" if row.low == row.low else ""),
        }
        for setting, row in zip(titles(mine), records(mine), strict=True)
    ]


def told(value: float, words: Callable[[float], str]) -> str:
    """A number in words; a dash where it is not known."""
    return "–" if value != value else words(value)


def label_rows(tables: Sequence[Path]) -> list[dict[str, Any]]:
    """Label agreement of all experiments, each data set and source once; shares are told where they differ."""
    frame = _together(tables, "labels.csv", ["data", "share", "feedback", "against"])
    shares = frame["share"].nunique()
    return [
        {
            "data": row.data + (f" · labelled share {share_label(row.share)}" if shares > 1 else ""),
            "feedback": feedback_name(row.feedback),
            "against": row.against,
            "agreement": percent(row.agreement),
            "interval": f"[{percent(row.low)}, {percent(row.high)}]",
            "n": f"{int(row.n):,}",
            "seeds": int(row.seeds),
        }
        for row in records(frame)
    ]


def quality_groups(tables: Sequence[Path]) -> list[tuple[str, pd.DataFrame]]:
    """Label quality by margin of all experiments: (data set and source, its rows), each once."""
    frame = _together(tables, "label_quality.csv", ["data", "feedback", "bin"])
    several = frame["feedback"].nunique() > 1
    groups = []
    for row in records(frame.drop_duplicates(["data", "feedback"])):
        name = f"{row.data}: {feedback_label(row.feedback)}" if several else row.data
        groups.append((name, frame[(frame["data"] == row.data) & (frame["feedback"] == row.feedback)]))
    return groups


def drop_rows(filtered: Sequence[Path]) -> tuple[list[str], list[dict[str, Any]]]:
    """Reasons, and per data set and subset the rows in, dropped by reason, and kept."""
    tables = [
        (path.parent.name, load(path), read_table(load(path).path("drops.csv"), DROPS)) for path in filtered
    ]
    reasons = list(dict.fromkeys(reason for _, _, drops in tables for reason in drops["reason"]))
    rows = []
    for data, artifact, drops in tables:
        for subset, kept in artifact.facts["rows_kept_by_subset"].items():
            mine = drops[drops["subset"] == subset].groupby("reason")["rows"].sum()
            dropped = {reason: int(mine.get(reason, 0)) for reason in reasons}
            rows_in = kept + sum(dropped.values())
            rows.append(
                {
                    "data": data,
                    "subset": subset,
                    "rows_in": f"{rows_in:,}",
                    "dropped": [f"{count:,}" for count in dropped.values()],
                    "kept": f"{kept:,}",
                    "percent": percent(kept / rows_in if rows_in else None),
                }
            )
    return [reason.replace("_", " ") for reason in reasons], rows


def cost_rows(costs: pd.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """Jobs, wall time, share of all time and peak memory by stage, and the total time in words."""
    total = float(costs["wall_s"].sum())
    rows = [
        {
            "stage": row.stage,
            "jobs": int(row.jobs),
            "time": duration(row.wall_s),
            "share": 100 * row.wall_s / total if total else 0.0,
            "memory": f"{row.peak_memory_mb / 1024:.1f} GiB"
            if row.peak_memory_mb == row.peak_memory_mb
            else "–",
        }
        for row in records(costs)
    ]
    return rows, duration(total)


def duration(seconds: float) -> str:
    """``"1 h 02 min"``, ``"3 min 20 s"`` or ``"4.1 s"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def percent(share: float | None) -> str:
    """A share as percent with one digit; a dash where unknown."""
    return "–" if share is None or share != share else f"{100 * share:.1f} %"


def _together(tables: Sequence[Path], name: str, key: list[str]) -> pd.DataFrame:
    import pandas as pd

    frames = [read_if_there(path, name) for path in tables]
    if not frames:
        return pd.DataFrame(columns=TABLES[name].all)
    return pd.concat(frames, ignore_index=True).drop_duplicates(key).reset_index(drop=True)
