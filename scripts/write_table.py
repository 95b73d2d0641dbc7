"""Write a table of paper A with this run's numbers and the paper's beside them (Tables 1, 2, 4, 10 to 13, the
seed study, the shares in the text of section 4).

What a table shows is its layout:

- ``rewards``: gold reward of each arm with its gain over the un-tuned student, its difference to the human arm
  and the agreement of its labels with human ones (Tables 1, 10, 11, 12, 13).
- ``responses``: gold reward of the data's responses that labels prefer or reject, and how often the gold model
  sides with the label (Table 2, section 4); an experiment with votes of an LLM judge has them below.
- ``votes``: consistency of an LLM judge's votes, and their share for the label (Table 4).
- ``seeds``: each seed's mean, then mean, sample variance *and* standard deviation (the paper's "variance" is not
  defined), and the paired difference of the arms (the seed study of appendix C).
- ``labels``: agreement of each feedback's labels with human and with gold ones.

Brackets hold 95 % intervals. The paper's values stand beside ours by role (scripts/w2s/published.py): other students
or teachers than the paper's are named below the title.

Inputs:  tables of ``summarise``, the published values.
Outputs: the table as Markdown and as an HTML fragment for the report, and as CSV with one row per number:
experiment, layout, data, share, student, recipe, beta, arm, judge, seed, seeds, n, quantity, value, low, high, published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s import cli
from w2s.published import published_item
from w2s.results import (
    UNTUNED,
    arm_label,
    experiment_name,
    feedback_name,
    interval,
    number,
    plural,
    policy_of,
    recipe_labels,
    records,
    result_names,
    share_label,
    signed,
    telling_columns,
)
from w2s.written import Document, Table, write

if TYPE_CHECKING:
    import pandas as pd
    from w2s.tabulated import Layout, Printed, Quantity

KINDS = ("rewards", "responses", "votes", "seeds", "labels")
TITLES = {
    "a_table_1": "Table 1: learning from the weak labels that equal or differ from human ones",
    "a_table_2": "Table 2: gold reward of chosen and rejected responses by whose labels choose",
    "a_table_4": "Table 4: how consistent an LLM judge's preferences are",
    "a_table_10": "Table 10: feedback of other weak models",
    "a_table_11": "Table 11: DPO with and without SFT before it",
    "a_table_12": "Table 12: human labels with random flips",
    "a_table_13": "Table 13: a reward model as weak teacher",
    "a_text_section_4": "Section 4: who sides with the weak label where it differs from the human one",
    "a_seed_study": "Appendix C: the comparison over several seeds",
}
HEADERS = {
    "data": "Data set",
    "share": "Labelled share",
    "student": "Student",
    "recipe": "Recipe",
    "judge": "Judge",
}
WRITTEN = (
    *(
        "experiment",
        "layout",
        "data",
        "share",
        "student",
        "recipe",
        "beta",
        "arm",
        "judge",
        "seed",
        "seeds",
        "n",
    ),
    *("quantity", "value", "low", "high", "published"),
)
COUNTS = {"n": "pairs", "votes": "votes per pair"}
NOTHING = "–"


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.output("--md", help="the table as Markdown")
    parser.output("--html", help="the table as a fragment of a page")
    parser.output("--csv", help="its numbers as CSV")
    parser.spec("--layout", choices=KINDS, help="what the table shows")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)

    import pandas as pd
    from w2s.tables import write_csv

    item = published_item(args.published, args.tables, args.artifact)
    name = args.artifact or experiment_name(args.tables)
    blocks = [block(kind, args.tables, item) for kind in kinds(args.layout, args.tables)]
    written = [table for tables, _, _ in blocks for table in tables]
    notes = list(dict.fromkeys(note for _, notes, _ in blocks for note in notes))
    write(Document(TITLES.get(name, name), notes, written), md=args.md, html=args.html)
    numbers = pd.concat([frame for _, _, frame in blocks], ignore_index=True)
    whole = numbers.assign(experiment=experiment_name(args.tables)).reindex(columns=list(WRITTEN))
    write_csv(whole.astype({"seed": "Int64", "seeds": "Int64", "n": "Int64"}), args.csv)


def kinds(layout: str, tables: Path) -> list[str]:
    """The layouts of a table: an experiment on responses may have votes on the same pairs."""
    return [layout, "votes"] if layout == "responses" and "votes.csv" in result_names(tables) else [layout]


def block(kind: str, tables: Path, item: pd.DataFrame) -> tuple[list[Table], list[str], pd.DataFrame]:
    """The tables of one layout, sentences on how to read them, and their numbers."""
    from w2s.tabulated import LAYOUTS, Printed

    layout = LAYOUTS[kind]
    lines = layout.lines(tables)
    printed = Printed.beside(item, lines)
    numbers = long_numbers(kind, layout, lines, printed)
    written = [wide_table(layout, lines, numbers)]
    if kind == "seeds":
        by_seed, more = seed_table(tables, lines)
        written.append(by_seed)
        numbers = _together(numbers, more)
    return written, notes_of(kind, layout, lines, printed, numbers), numbers


def long_numbers(kind: str, layout: Layout, lines: pd.DataFrame, printed: Printed) -> pd.DataFrame:
    """One row per line and quantity: ours with its interval, and the paper's."""
    import pandas as pd

    rows = []
    for line in records(lines):
        same = {
            name: getattr(line, name, "") for name in ("data", "share", "student", "recipe", "arm", "judge")
        }
        same["share"] = share_label(same["share"])
        same |= {"beta": line.beta, "seeds": line.seeds, "n": getattr(line, layout.counts[1])}
        for quantity in layout.quantities:
            own = {"quantity": quantity.name, "value": getattr(line, quantity.name)}
            own |= {end: getattr(line, getattr(quantity, end), float("nan")) for end in ("low", "high")}
            rows.append({"layout": kind, **same, **own, "published": printed.value(line, quantity)})
    return pd.DataFrame(rows)


def wide_table(layout: Layout, lines: pd.DataFrame, numbers: pd.DataFrame) -> Table:
    """The table as it is read: a line per arm, per quantity ours and, where there is any, the paper's."""
    telling = [name for name in telling_columns(lines, layout.settings) if name in lines]
    several = len(layout.quantities)
    header = ["Feedback", *(HEADERS[name] for name in telling)]
    first = len(header)
    shown = [quantity for quantity in layout.quantities if _any(numbers, quantity, "value", "published")]
    for quantity in shown:
        header.append(quantity.words)
        header += ["Paper"] if _any(numbers, quantity, "published") else []
    header.append(", ".join(COUNTS.get(name, name) for name in layout.counts).capitalize())
    recipes = recipe_labels(lines)
    rows = []
    for place, line in enumerate(records(lines)):
        mine = numbers.iloc[place * several : (place + 1) * several].set_index("quantity")
        settings = {name: getattr(line, name) for name in telling}
        if "share" in settings:
            settings["share"] = share_label(settings["share"])
        if "recipe" in settings:
            settings["recipe"] = recipes[place]
        cells = [arm_name(line.arm), *settings.values()]
        for quantity in shown:
            cells.append(cell(mine.loc[quantity.name], quantity))
            if _any(numbers, quantity, "published"):
                paper = float(mine["published"][quantity.name])
                cells.append(formatted(paper, quantity, printed=True))
        cells.append(", ".join(f"{round(getattr(line, name), 1):,.10g}" for name in layout.counts))
        rows.append(cells)
    return Table(header, rows, frozenset(range(first, len(header))), layout.title)


def arm_name(arm: str) -> str:
    """An arm in a table that has arms after DPO only, unless it says otherwise."""
    return "un-tuned student" if arm == UNTUNED else arm_label(arm).removesuffix(", SFT + DPO")


def cell(row: Any, quantity: Quantity) -> str:
    """Ours with its interval, or a dash."""
    text = formatted(row["value"], quantity)
    if text == NOTHING or row["low"] != row["low"]:
        return text
    if quantity.form == "percent":
        return f"{text} {interval(100 * row['low'], 100 * row['high'], 1)}"
    return f"{text} {interval(row['low'], row['high'])}"


def formatted(value: float, quantity: Quantity, *, printed: bool = False) -> str:
    """A number in the quantity's form, or a dash; the paper prints two digits."""
    if value != value:
        return NOTHING
    if quantity.form == "percent":
        return f"{100 * value:.1f} %"
    return (
        signed(value)
        if quantity.form == "signed"
        else number(value, 3 if quantity.name == "variance" and not printed else 2)
    )


def _any(numbers: pd.DataFrame, quantity: Quantity, *columns: str) -> bool:
    mine = numbers[numbers["quantity"] == quantity.name]
    return bool(mine[list(columns)].notna().any().any())


def seed_table(tables: Path, lines: pd.DataFrame) -> tuple[Table, pd.DataFrame]:
    """Each seed's means of all arms after DPO, and of each arm minus the human one, and the same as numbers."""
    import pandas as pd
    from w2s.tabulated import seed_means

    judge = str(lines["judge"].iloc[0])
    setting = ["data", "share", "student", "recipe"]
    means = seed_means(tables, judge)
    telling = telling_columns(lines, setting)
    arms = list(dict.fromkeys(lines["arm"]))
    human = next((arm for arm in arms if policy_of(arm) == "human"), None)
    others = [arm for arm in arms if human and arm != human]
    header = ["Seed", *(HEADERS[name] for name in telling), *map(feedback_name, arms)]
    header += [f"{feedback_name(arm)} minus human" for arm in others]
    rows, numbers = [], []
    keys = lines[setting].drop_duplicates()
    for key in keys.itertuples(index=False):
        mine = means
        for name in setting:
            mine = mine[mine[name] == getattr(key, name)]
        by_seed = mine.pivot(index="seed", columns="arm", values="value").reindex(columns=arms)
        for seed, values in by_seed.iterrows():
            cells = [_seed_cell(values[arm]) for arm in arms]
            if human:
                cells += [_seed_cell(values[arm] - values[human], sign=True) for arm in others]
            told = [
                share_label(getattr(key, name)) if name == "share" else getattr(key, name) for name in telling
            ]
            rows.append([str(seed), *told, *cells])
            same = dict(zip(setting, key, strict=True)) | {"judge": judge, "seed": seed, "layout": "seeds"}
            same["share"] = share_label(same["share"])
            numbers += [{**same, "arm": arm, "quantity": "seed_mean", "value": values[arm]} for arm in arms]
    numbers_frame = pd.DataFrame(numbers)
    return Table(header, rows, frozenset(range(1 + len(telling), len(header))), "By seed"), numbers_frame


def _seed_cell(value: float, *, sign: bool = False) -> str:
    if value != value:
        return NOTHING
    return signed(value, 3) if sign else number(value, 3)


def notes_of(
    kind: str, layout: Layout, lines: pd.DataFrame, printed: Printed, numbers: pd.DataFrame
) -> list[str]:
    """What one must know to read the table, computed from what is in it."""
    from w2s.tabulated import fair_coin

    constant = [
        f"{HEADERS[name].lower()} {share_label(lines[name].iloc[0])}"
        for name in layout.settings
        if name in lines and name not in telling_columns(lines, layout.settings) and _told(lines, name)
    ]
    told = ", ".join(constant) or "several settings"
    over = "prompts or pairs only (one seed)" if lines["seeds"].max() <= 1 else "seeds and prompts or pairs"
    notes = [
        f"{told[:1].upper()}{told[1:]}; {plural(lines['seeds'], 'seed')}. "
        f"Brackets: 95 % intervals, over {over}."
    ]
    if numbers["published"].notna().any():
        partners = f" Its values are of {'; '.join(printed.roles)}." if printed.roles else ""
        notes.append(f"Columns “Paper” hold the printed values (none has an interval).{partners}")
    else:
        notes.append("The paper prints no value for these lines.")
    if kind == "votes":
        # Votes that were not in the form are missing: the floor is that of the whole number asked for.
        times = sorted({round(votes) for votes in lines["votes"]})
        floors = [f"{number(fair_coin(votes), 3)} with {votes} votes" for votes in times]
        notes.append(
            "Consistency is the majority's share of the votes on a pair; a fair coin has "
            + ", ".join(floors)
            + "."
        )
    if kind == "seeds":
        notes.append(
            "The paper calls its spread a variance without a definition; ours is given as sample variance "
            "(divisor: seeds − 1) and as standard deviation."
        )
    return notes


def _told(lines: pd.DataFrame, name: str) -> bool:
    """Whether a setting that all lines share has a name to tell."""
    return bool((lines[name] != "").all())


def _together(numbers: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([numbers, more], ignore_index=True)


if __name__ == "__main__":
    cli.run(main)
