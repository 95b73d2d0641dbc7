"""Say whether an artifact or a figure would be made again, and why: which setting, source or input differs, old -> new.

    ./w2s explain results/demo/figures/a_figure_2a.pdf --configfile presets/demo.yaml
    ./w2s explain --configfile presets/demo.yaml            # all that a run would make
    ./w2s explain paper_a --configfile presets/paper-a.yaml -- --profile slurm

A target is a file, an artifact's folder or a rule. Snakemake draws its plan, as for a run with the same configuration
files (and further options of its own after ``--``), and nothing is run. What a job was made with is what Snakemake and
the artifacts' own records say. Each cause is told once, where it begins, with the jobs that it concerns and those
that follow; a job that would run only because one of its inputs is made again is no cause of its own. A stage that then
makes the same content again stops what follows.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import MANIFEST
from w2s.handles import ROOT, owner

# Of the files that rules make.
SUFFIXES = {".csv", ".html", ".json", ".md", ".pdf", ".png"}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the explanation."""
    args = arguments(argv)

    from w2s import engine, explanation

    targets = [target(name) for name in args.targets]
    files = [inside(Path(file)) for file in args.configfile]
    os.chdir(ROOT)
    options = [*args.snakemake, *(["--configfile", *files] if files else [])]
    found = engine.with_plan([*targets, *options], lambda workflow: explanation.explain(workflow, targets))
    print("\n".join(explanation.text(found)))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="files, artifacts' folders or rules; default: all")
    parser.add_argument("--configfile", nargs="+", default=[], help="as given to Snakemake for the run")
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.snakemake = given[end + 1 :]
    return args


def target(name: str) -> str:
    """A target as Snakemake names it: a path from the checkout, an artifact by its manifest; a rule stays as it is."""
    path = next((path for path in (Path(name), ROOT / name) if path.exists()), None)
    if path is not None:
        return inside(owner(path) or (path / MANIFEST if path.is_dir() else path))
    if "/" not in name:
        return name
    # What a model is called may have a dot in it too.
    return inside(Path(name) if Path(name).suffix in SUFFIXES else Path(name) / MANIFEST)


def inside(path: Path) -> str:
    """A path relative to the checkout if it lies in it; one that is not there is taken to be relative to it already."""
    whole = Path(os.path.abspath(path)) if path.exists() else ROOT / path
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else str(whole)


if __name__ == "__main__":
    cli.run(main)
