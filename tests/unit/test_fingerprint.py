"""Fingerprints of code: what must not change them, what must, and for which scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from w2s import fingerprint as module
from w2s.fingerprint import fingerprint, sources

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

TREE = {
    "train.py": '''
        """Train."""
        from helpers import loop
        from helpers.maths import mean as average

        def main():
            """Run."""
            rate = 5e-7  # as in the paper
            return loop.run(rate), average([1, 2])
        ''',
    "plot.py": """
        from helpers import drawing

        def main():
            import helpers.late
            drawing.draw()
        """,
    "score.py": """
        import json
        import helpers.maths

        print(json.dumps(helpers.maths.mean([1.0])))
        """,
    "alone.py": "print('alone')\n",
    "helpers/__init__.py": '"""Helpers."""\n',
    "helpers/loop.py": "from . import deep\n\ndef run(rate):\n    return deep.DEPTH * rate\n",
    "helpers/deep.py": "from .maths import mean\n\nDEPTH = mean([3])\n",
    "helpers/maths.py": 'def mean(values):\n    """The mean."""\n    return sum(values) / len(values)\n',
    "helpers/drawing.py": "import matplotlib\n\n\nclass Figure:\n    '''A figure.'''\n\n\ndef draw():\n    pass\n",
    "helpers/late.py": "X = 1\n",
    "helpers/unused.py": "Y = 1\n",
}
STAGES = ("train", "plot", "score", "alone")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / "scripts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "scripts"


def forget() -> None:
    for remembered in (module._module_files, module._read_at, module._kept):
        remembered.cache_clear()


def prints(tree: Path) -> dict[str, str]:
    forget()  # another process would look anew
    return {name: fingerprint(tree / f"{name}.py") for name in STAGES}


def changed(tree: Path, edit: str, old: str, new: str) -> set[str]:
    before = prints(tree)
    path = tree / edit
    text = path.read_text()
    assert old in text, "the edit must apply"
    path.write_text(text.replace(old, new, 1))
    after = prints(tree)
    return {name for name in STAGES if before[name] != after[name]}


SAME = {
    "a comment added": (
        "train.py",
        "rate = 5e-7  # as in the paper",
        "rate = 5e-7  # five tenths of a millionth",
    ),
    "a comment line added": ("helpers/maths.py", "    return sum", "    # the mean\n    return sum"),
    "a comment removed": ("train.py", "  # as in the paper", ""),
    "a function's docstring": ("helpers/maths.py", "The mean.", "The arithmetic mean."),
    "a module's docstring": ("train.py", "Train.", "Train a model."),
    "a class's docstring": ("helpers/drawing.py", "A figure.", "The figure."),
    "a docstring removed": ("helpers/maths.py", '    """The mean."""\n', ""),
    "blank lines": ("helpers/maths.py", "def mean", "\n\n\ndef mean"),
    "a line broken": (
        "helpers/maths.py",
        "sum(values) / len(values)",
        "(\n        sum(values)\n        / len(values)\n    )",
    ),
    "quotes": ("alone.py", "'alone'", '"alone"'),
    "a number written otherwise": ("train.py", "5e-7", "0.0000005"),
    "a trailing comma": ("train.py", "average([1, 2])", "average([1, 2,])"),
    "a module nobody imports": ("helpers/unused.py", "Y = 1", "Y = 2"),
}


@pytest.mark.parametrize("edit", SAME)
def test_what_means_the_same_has_the_same_fingerprint(tree: Path, edit: str) -> None:
    assert changed(tree, *SAME[edit]) == set()


def meanings(*bodies: str) -> int:
    """How many different meanings the bodies of a function have."""
    parsed = (module._parse(f"def f(given, limit=1):\n    {body}\n".encode(), "f.py")[0] for body in bodies)
    return len(set(parsed))


RENAMED = {
    "a variable": ("total = given; return total", "result = given; return result"),
    "a variable that an inner function reads": (
        "rate = given; return lambda x: x * rate",
        "speed = given; return lambda x: x * speed",
    ),
    "an unpacking": ("low, high = given; return high - low", "a, b = given; return b - a"),
    "a loop's variable": ("for row in given: print(row)", "for line in given: print(line)"),
    "a resource": ("with given as stream: return stream", "with given as file: return file"),
    "an annotated variable": ("total: int = given; return total", "sum_: int = given; return sum_"),
}


@pytest.mark.parametrize("bodies", RENAMED.values(), ids=RENAMED)
def test_another_name_for_a_local_variable_means_the_same(bodies: tuple[str, str]) -> None:
    assert meanings(*bodies) == 1


NOT_ALIKE = {
    "another order": ("a, b = given; return a - b", "b, a = given; return a - b"),
    "a global name": ("a = given; return a + b", "b = given; return b + b"),
    "a parameter": ("a = given; return limit", "limit = given; return limit"),
    "two variables made one": ("a = 1; b = 2; return a", "a = 1; a = 2; return a"),
    "an attribute": ("a = given; return a.a", "b = given; return b.b"),
    "a keyword": ("a = given; return g(a=a)", "b = given; return g(b=b)"),
    "a member of a class": ("class C: a = 1\n    return C.a", "class C: b = 1\n    return C.a"),
    "a global declaration": ("global a; a = given", "global b; b = given"),
    "another variable within": (
        "a = given; g = [a for a in limit]; return a",
        "a = given; g = [b for b in limit]; return b",
    ),
    "names that are read": ("a = given; return locals()", "b = given; return locals()"),
    "a name shown": ("a = given; return f'{a=}'", "b = given; return f'{b=}'"),
    "an imported name": ("import a; return a", "import b; return b"),
}


@pytest.mark.parametrize("bodies", NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_only_the_names_of_local_variables_do_not_count(bodies: tuple[str, str]) -> None:
    assert meanings(*bodies) == 2


def test_a_name_outside_the_body_is_not_a_local_variable() -> None:
    texts = ("@a\ndef f(x=a):\n    a = 1\n    return a\n", "@b\ndef f(x=b):\n    b = 1\n    return b\n")
    assert len({module._parse(text.encode(), "f.py")[0] for text in texts}) == 2


def test_each_source_has_a_digest_of_its_own(tree: Path) -> None:
    before = module.digests(tree / "train.py")
    assert list(before) == [path.relative_to(tree).as_posix() for path in sources(tree / "train.py")]
    path = tree / "helpers/maths.py"
    path.write_text(path.read_text().replace("sum(values)", "sum(sorted(values))"))
    forget()
    after = module.digests(tree / "train.py")
    assert {name for name in before if before[name] != after[name]} == {"helpers/maths.py"}


def test_dates_do_not_count(tree: Path) -> None:
    before = prints(tree)
    for path in tree.rglob("*.py"):
        os.utime(path, (1, 1))
    assert prints(tree) == before


def test_the_place_does_not_count(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere" / "scripts")
    assert prints(tmp_path / "elsewhere" / "scripts") == prints(tree)


OTHER: dict[str, tuple[str, str, str, set[str]]] = {
    "a script": ("alone.py", "'alone'", "'not alone'", {"alone"}),
    "a number": ("train.py", "5e-7", "5e-6", {"train"}),
    "a direct import": ("helpers/drawing.py", "pass", "return 1", {"plot"}),
    "an import inside a function": ("helpers/late.py", "X = 1", "X = 2", {"plot"}),
    "a helper of two": ("helpers/maths.py", "sum(values)", "sum(sorted(values))", {"train", "score"}),
    "a helper's helper, by relative import": (
        "helpers/deep.py",
        "DEPTH = mean([3])",
        "DEPTH = mean([4])",
        {"train"},
    ),
    "a module imported from its package": ("helpers/loop.py", "* rate", "+ rate", {"train"}),
    "the package": ("helpers/__init__.py", '"""Helpers."""', "Z = 1", {"train", "plot", "score"}),
    "an import added": ("alone.py", "print", "import helpers.late\nprint", {"alone"}),
    "a name swapped": (
        "train.py",
        "loop.run(rate), average([1, 2])",
        "average([1, 2]), loop.run(rate)",
        {"train"},
    ),
    "a text that is no docstring": ("alone.py", "print('alone')", "text = 'alone'\nprint(text)", {"alone"}),
    "a default added": ("helpers/drawing.py", "def draw()", "def draw(size=1)", {"plot"}),
}


@pytest.mark.parametrize("edit", OTHER)
def test_an_edit_changes_exactly_the_scripts_that_import_it(tree: Path, edit: str) -> None:
    *change, expected = OTHER[edit]
    assert changed(tree, *change) == expected


def test_a_renamed_helper_is_a_change(tree: Path) -> None:
    before = prints(tree)
    (tree / "helpers/late.py").rename(tree / "helpers/later.py")
    after = prints(tree)
    assert {name for name in STAGES if before[name] != after[name]} == {"plot"}


def test_sources_are_those_imported_directly_or_not(tree: Path) -> None:
    def names(stage: str) -> list[str]:
        return [path.relative_to(tree).as_posix() for path in sources(tree / f"{stage}.py")]

    assert names("alone") == ["alone.py"]
    assert names("train") == [
        "helpers/__init__.py",
        "helpers/deep.py",
        "helpers/loop.py",
        "helpers/maths.py",
        "train.py",
    ]


def test_the_kept_entries_agree_with_a_fresh_parse(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "kept.json"
    monkeypatch.setattr(module, "CACHE", cache)
    results = []
    for _ in range(2):  # first without, then with kept entries
        forget()
        results.append(prints(tree))
    assert cache.is_file()
    assert results[0] == results[1]
    cache.write_text("{ broken")
    forget()
    assert prints(tree) == results[0]


def test_a_folder_that_cannot_be_written_is_no_problem(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    before = prints(tree)
    monkeypatch.setattr(module, "CACHE", tmp_path / "file" / "kept.json")
    forget()
    assert prints(tree) == before


def test_every_stage_of_ours_has_its_modules() -> None:
    """The import graph of the real scripts: each reads the core, only figures read the plotting."""
    stages = [path for path in SCRIPTS.glob("*.py") if path.stem != "make_docs"]
    assert len(stages) > 20
    for script in stages:
        names = {path.name for path in sources(script)}
        assert {"cli.py", "errors.py", script.name} <= names
        assert ("plotting.py" in names) == script.stem.startswith("plot_")
        assert "config.py" not in names, (
            "a stage never reads the configuration: everything comes through its spec"
        )


def test_all_scripts_together_take_less_than_60_ms() -> None:
    """In a new process, as each cluster job draws the plan anew; processor time, for the machine may be busy."""
    code = (
        "import sys, time; from pathlib import Path; from w2s.fingerprint import fingerprint\n"
        "scripts = sorted(Path(sys.argv[1]).glob('*.py')); start = time.process_time()\n"
        "[fingerprint(script) for script in scripts]; print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code, str(SCRIPTS)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    times = [
        float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.060, times
