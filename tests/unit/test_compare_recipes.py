"""Recipes beside the paper's: equal numbers however written, differences marked, the template whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import compare_recipes
import pandas as pd
import pytest
from synthetic_tables import make_label_tables, recipes_table
from w2s.errors import DataError

PUBLISHED = Path(__file__).resolve().parents[2] / "published" / "values.csv"


def written(
    folder: Path, name: str, more: dict[str, pd.DataFrame], *templates: Path
) -> tuple[str, pd.DataFrame]:
    """Run the script: Markdown and the comparison."""
    tables = make_label_tables(folder, name, more)
    md, html, csv = (folder / f"x.{suffix}" for suffix in ("md", "html", "csv"))
    arguments = ["--tables", tables, "--published", PUBLISHED, "--md", md, "--html", html, "--csv", csv]
    arguments += ["--template", *templates] if templates else []
    compare_recipes.main([str(argument) for argument in arguments])
    assert html.read_text(encoding="utf-8").startswith('<section class="written">')
    return md.read_text(encoding="utf-8"), pd.read_csv(csv, dtype=str, keep_default_na=False)


def test_differences_are_marked_and_the_rest_is_told_apart(tmp_path):
    md, compared = written(tmp_path, "a_table_7", {"recipes.csv": recipes_table()})
    verdict = compared.set_index(["model", "step", "setting"])["verdict"]
    assert verdict["students-recipe", "sft", "learning_rate"] == "same"
    assert verdict["students-recipe", "dpo", "learning_rate"] == "differs"
    assert verdict["teachers-recipe", "sft", "schedule"] == "not printed"
    assert verdict["teachers-recipe", "dpo", "zero_stage"] == "derived"
    assert verdict["teachers-recipe", "dpo", "max_tokens"] == "not in the recipe"
    assert "| learning rate | 5e-05 | 0.0002 | ≠ differs |" in md
    assert "different: learning rate of dpo." in md
    # Every printed value is there for each model.
    assert (compared["published"] != "").sum() == 2 * 15


def test_models_that_differ_have_columns_of_their_own(tmp_path):
    recipes = recipes_table()
    recipes.loc[(recipes["model"] == "students-recipe") & (recipes["setting"] == "lora_rank"), "value"] = "16"
    md, _ = written(tmp_path, "a_table_7", {"recipes.csv": recipes})
    assert "| Setting | Paper | teachers-recipe | students-recipe | Verdict |" in md
    assert "| lora rank | 8 | 8 | 16 | ≠ differs for some |" in md


def test_tldr_is_held_against_its_own_table(tmp_path):
    _, compared = written(tmp_path, "a_table_8", {"recipes.csv": recipes_table()})
    dpo = compared[compared["step"] == "dpo"].set_index("setting")
    assert dpo["published"]["beta"].iloc[0] == "0.5" and dpo["verdict"]["beta"].iloc[0] == "differs"


def test_the_template_is_whole_with_its_digest(tmp_path):
    template = tmp_path / "compare.txt"
    template.write_text("Question: {question}\n```\n<b>", encoding="utf-8")
    md, compared = written(tmp_path, "a_table_6", {"recipes.csv": recipes_table()}, template)
    assert template.read_text(encoding="utf-8") in md
    assert hashlib.sha256(template.read_bytes()).hexdigest() in md
    assert compared.empty


def test_nothing_to_show_and_a_repeated_setting_are_refused(tmp_path):
    with pytest.raises(DataError, match="no setting and no template"):
        written(tmp_path / "none", "a_table_6", {})
    twice = pd.concat([recipes_table(), recipes_table().iloc[[0]]])
    with pytest.raises(DataError, match="epochs of teachers-recipe, sft, occurs twice"):
        written(tmp_path / "twice", "a_table_7", {"recipes.csv": twice})


@pytest.mark.parametrize(
    ("configured", "printed", "same"),
    [
        ("1e-05", 1e-5, True),
        ("0.00001", 1e-5, True),
        ("32.0", 32.0, True),
        ("31", 32.0, False),
        ("all", 1.0, False),
    ],
)
def test_numbers_are_compared_as_numbers(configured, printed, same):
    assert compare_recipes.same_setting(configured, printed) is same
