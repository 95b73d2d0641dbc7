"""Write the recipes as configured beside the paper's printed ones (paper A: Tables 6, 7 and 8).

One line per step and setting: the printed value, each model's configured one, and whether they are the same. A
setting that the paper does not print, or that this workflow derives instead of configuring it (gradient
accumulation, ZeRO stage), is said to be so and counts as neither. The paper's Table 6 is the judge's prompt: ours
is shown whole with its SHA-256 digest, in words of our own.

Inputs:  tables (``recipes.csv`` of ``summarise``), the published values, templates of the judge's prompts.
Outputs: Markdown, an HTML fragment for the report, and the comparison as CSV: model, step, setting, value,
published, verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from w2s import cli
from w2s.artifact import file_digest
from w2s.errors import DataError
from w2s.published import published_item
from w2s.results import experiment_name, read_if_there, records
from w2s.written import Document, Table, Text, write

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "a_table_6": "Table 6: the prompt of the LLM judge",
    "a_table_7": "Table 7: hyper-parameters on HH-RLHF",
    "a_table_8": "Table 8: hyper-parameters on TL;DR",
}
SAME, DIFFERS = "same", "differs"
NOT_PRINTED, NOT_CONFIGURED, DERIVED = "not printed", "not in the recipe", "derived"
# What follows from the number of devices here, so that the global batch and the steps do not depend on it.
FROM_DEVICES = ("gradient_accumulation", "zero_stage")
WRITTEN = ["model", "step", "setting", "value", "published", "verdict"]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", help="manifest of the experiment's tables")
    parser.input("--published", help="published/values.csv")
    parser.input("--template", nargs="*", help="templates of the judge's prompts, to be shown whole")
    parser.output("--md", help="the comparison as Markdown")
    parser.output("--html", help="the comparison as a fragment of a page")
    parser.output("--csv", help="the comparison as CSV")
    parser.spec("--artifact", default=None, help="the paper's item, where it is not the experiment's name")
    args = parser.parse_args(argv)
    from w2s.tables import write_csv

    name = args.artifact or experiment_name(args.tables)
    item = published_item(args.published, args.tables, args.artifact)
    recipes = read_recipes(args.tables, args.template)
    # An item that prints a prompt and no settings is about the prompt alone.
    about_settings = len(item) > 0 or not args.template
    compared = compare(recipes if about_settings else recipes.iloc[:0], item)
    tables = comparison_tables(compared)
    texts = [template_text(path) for path in args.template]
    write(
        Document(TITLES.get(name, name), notes_of(compared, texts), tables, texts), md=args.md, html=args.html
    )
    write_csv(compared, args.csv)


def read_recipes(tables: Path, templates: Sequence[Path]) -> pd.DataFrame:
    """The configured settings, one row per model, step and setting.

    Raises:
        DataError: a setting occurs twice, or there is neither a setting nor a template to show.
    """
    recipes = read_if_there(tables, "recipes.csv")
    where = f"{tables}, recipes.csv"
    if recipes.empty and not templates:
        raise DataError("no setting and no template to show", where=where)
    twice = recipes.duplicated(["model", "step", "setting"])
    if twice.any():
        row = recipes[twice].iloc[0]
        raise DataError(f"{row['setting']} of {row['model']}, {row['step']}, occurs twice", where=where)
    return recipes


def compare(recipes: pd.DataFrame, item: pd.DataFrame) -> pd.DataFrame:
    """Each configured setting with the printed one, then what is printed and not configured, in that order."""
    import pandas as pd

    printed = {(row.step, row.metric): row.value for row in records(item) if row.step}
    rows = []
    for row in records(recipes):
        value = printed.get((row.step, row.setting))
        verdict = NOT_PRINTED if value is None else SAME if same_setting(row.value, value) else DIFFERS
        shown = "" if value is None else f"{value:g}"
        rows.append((row.model, row.step, row.setting, row.value, shown, verdict))
    # A model is held against the steps that it has; a student's recipe may lack one.
    for model, step in recipes[["model", "step"]].drop_duplicates().itertuples(index=False):
        configured = set(recipes.loc[(recipes["model"] == model) & (recipes["step"] == step), "setting"])
        rows += [
            (model, step, setting, "", f"{value:g}", DERIVED if setting in FROM_DEVICES else NOT_CONFIGURED)
            for (of_step, setting), value in printed.items()
            if of_step == step and setting not in configured
        ]
    return pd.DataFrame(rows, columns=WRITTEN)


def same_setting(configured: str, printed: float) -> bool:
    """Whether a configured text is the printed number, however it is written."""
    try:
        return math.isclose(float(configured), printed, rel_tol=1e-9)
    except ValueError:
        return False


def comparison_tables(compared: pd.DataFrame) -> list[Table]:
    """A table per step: settings in rows, the paper's and each model's value in columns; models alike share one."""
    tables = []
    for step, mine in compared.groupby("step", sort=False):
        columns: dict[tuple, list[str]] = {}
        order = list(dict.fromkeys(mine["setting"]))
        for model, rows in mine.groupby("model", sort=False):
            values = rows.set_index("setting")["value"].to_dict()
            columns.setdefault(tuple(values.get(setting, "") for setting in order), []).append(str(model))
        published = mine.drop_duplicates("setting").set_index("setting")["published"]
        verdicts = mine.groupby("setting", sort=False)["verdict"].agg(
            lambda found: list(dict.fromkeys(found))
        )
        header = ["Setting", "Paper", *(", ".join(models) for models in columns.values()), "Verdict"]
        rows_written = [
            [setting.replace("_", " "), published[setting] or "–"]
            + [values[place] or "–" for values in columns]
            + [_verdict(verdicts[setting])]
            for place, setting in enumerate(order)
        ]
        numbers = frozenset(range(1, len(header) - 1))
        tables.append(Table(header, rows_written, numbers, f"Step {str(step).upper()}"))
    return tables


def _verdict(found: list[str]) -> str:
    """One word for a setting of all models; a difference of any is marked."""
    if DIFFERS in found:
        return "≠ differs" + (" for some" if len(found) > 1 else "")
    return found[0] if len(found) == 1 else ", ".join(found)


def template_text(path: Path) -> Text:
    """A template whole, with its digest.

    Raises:
        DataError: it cannot be read as text.
    """
    try:
        body = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"not a readable template ({error})", where=path) from error
    return Text(f"Template {path.stem}", [("Our wording", body)], f"SHA-256 {file_digest(path)}")


def notes_of(compared: pd.DataFrame, texts: Sequence[Text]) -> list[str]:
    """What one must know to read the comparison, computed from what is in it."""
    notes = []
    if len(compared):
        held = compared[compared["verdict"].isin([SAME, DIFFERS])]
        different = held[held["verdict"] == DIFFERS]
        named = ", ".join(
            dict.fromkeys(f"{row.setting.replace('_', ' ')} of {row.step}" for row in records(different))
        )
        notes.append(
            f"{len(held) - len(different)} of {len(held)} settings that the paper prints are the same here"
            + (f"; different: {named}." if len(different) else ".")
        )
        if (compared["verdict"] == DERIVED).any():
            notes.append(
                "Derived: it follows from the number of devices, so that the global batch and the number of steps "
                "do not depend on it."
            )
        if (compared["verdict"] == NOT_CONFIGURED).any():
            notes.append(
                "Not in the recipe: printed, but no setting of a recipe here; the catalogue may hold it elsewhere."
            )
    if texts:
        notes.append(
            "The paper's prompt asks for a score of 1 to 10 for each of two answers on one line, then for reasons; "
            "criteria: helpful, harmless, relevant, accurate, deep, creative, detailed. Ours asks for the same in "
            "words of its own."
        )
    return notes


if __name__ == "__main__":
    cli.run(main)
