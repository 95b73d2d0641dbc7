"""The generated pages follow from the code, and the sync test notices when they do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_docs
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return make_docs.pages()


def test_pages_on_disk_are_up_to_date(made: dict[str, str]) -> None:
    changes = make_docs.differences(made)
    assert not changes, f"these pages do not follow from the code; run `make docs`\n{changes}"


def test_every_stage_script_has_a_page(made: dict[str, str]) -> None:
    ends = "\n    cli.run(main)\n"
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py") if path.read_text().endswith(ends)}
    assert scripts
    assert {Path(name).stem for name in made if name.startswith("docs/stages/")} == scripts | {"README"}


def test_a_page_lists_the_whole_command_line(made: dict[str, str]) -> None:
    for name in ("filter_examples", "train_student_dpo", "report"):
        script = ROOT / "scripts" / f"{name}.py"
        usage = subprocess.run(
            [sys.executable, str(script), "--help"], capture_output=True, text=True, check=True
        )
        flags = set(re.findall(r"--[a-z][a-z-]+", usage.stdout.partition("\n\n")[0])) - {"--help"}
        page = made[f"docs/stages/{name}.md"]
        assert flags and {flag for flag in flags if f"| `{flag}` |" not in page} == set()


def test_a_page_says_where_its_artifact_lies(made: dict[str, str]) -> None:
    for name, text in made.items():
        if name.startswith("docs/stages/") and not name.endswith("README.md"):
            made_by_rule = re.search(r"^- `(results/<preset>|resources)/[^`{}]+`$", text, re.MULTILINE)
            assert made_by_rule or "no rule uses it" in text, name
    assert "no rule uses it" not in made["docs/stages/filter_examples.md"]


def test_every_key_of_the_configuration_is_described(made: dict[str, str]) -> None:
    page = made["docs/configuration.md"]
    for key in (
        "preset",
        "launcher",
        "per_model",
        "beta",
        "fallback_template",
        "max_new_tokens",
        "seeds",
        "per_model",
    ):
        assert f"| `{key}` |" in page
    targets = set(re.findall(r"\]\(#(\w+)\)", page))
    assert targets and targets <= {title.lower() for title in re.findall(r"^## (\w+)$", page, re.MULTILINE)}


def test_links_between_files_lead_somewhere(made: dict[str, str]) -> None:
    written = {ROOT / name: text for name, text in made.items()}
    written |= {path: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    for page, text in written.items():
        for target in re.findall(r"(?:\]\(|src=\")(?!https?:|#)([^)#\"]+)", text):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_changed_missing_and_superfluous_pages_show_in_the_diff(tmp_path: Path) -> None:
    made = {"docs/stages/a.md": "one\n", "docs/stages/b.md": "two\n", "docs/configuration.md": "keys\n"}
    make_docs.write(made, tmp_path)
    assert make_docs.differences(made, tmp_path) == ""
    assert "+changed" in make_docs.differences({**made, "docs/stages/a.md": "changed\n"}, tmp_path)
    (tmp_path / "docs/stages/b.md").unlink()
    (tmp_path / "docs/stages/old.md").write_text("gone\n")
    changes = make_docs.differences(made, tmp_path)
    assert "+two" in changes and "-gone" in changes
    make_docs.write(made, tmp_path)
    assert make_docs.differences(made, tmp_path) == "", "a page whose stage is no more is removed"


def test_an_edited_docstring_is_noticed_on_the_command_line(tmp_path: Path) -> None:
    for name in ("scripts", "rules", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    script = tmp_path / "scripts" / "filter_examples.py"
    script.write_text(script.read_text().replace('"""', '"""Something new: ', 1))
    command = [sys.executable, str(tmp_path / "scripts" / "make_docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "+Something new: " in result.stdout and "make docs" in result.stdout


@pytest.mark.parametrize(
    ("docstring", "page"),
    [
        ("r = a*b and x_y, ``a*b``", r"r = a\*b and x\_y, `a*b`"),
        ("inputs:  one,\n    and more\noutputs: two", "- **inputs**: one, and more\n- **outputs**: two"),
        ("    x = y * z", "```\nx = y * z\n```"),
        ("see :mod:`w2s.dpo`", "see `scripts/w2s/dpo.py`"),
    ],
)
def test_docstrings_become_markdown(docstring: str, page: str) -> None:
    assert make_docs.markdown(docstring) == page
