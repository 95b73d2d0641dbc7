"""Export a finished run as a Workflow Run RO-Crate: what was made, from what, how and by what, for other tools.

The crate's root is the folder of the run's results. Figures, report, scorecards, tables, model cards and the copy of the
workflow are files with their SHA-256; each artifact is a data set with the digest of its content and the action that made
it: script, settings, parents, times, container. docs/provenance.md tells more.

Inputs:  tables (from which all artifacts behind them are found), the files that are no artifacts, CITATION.cff.
Outputs: ``ro-crate-metadata.json``, and beside it a copy of Snakefile, rules and configuration files as they are now.
The same run gives the same bytes: dates are those of its records.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import write_json


def arguments() -> cli.StageParser:
    """The command line."""
    parser = cli.StageParser(__doc__ or "")
    parser.input("--tables", nargs="+", help="manifests of all tables of the run")
    parser.input("--files", nargs="*", help="figures, report, scorecards, index of models")
    parser.input("--citation", help="CITATION.cff of the repository")
    parser.spec("--preset", help="name of the configuration preset")
    parser.spec("--agent", type=cli.json_object, default=None, help="JSON: name and orcid of who runs it")
    parser.option(
        "--snakefile", type=Path, help="the workflow's Snakefile, with rules/ beside it", required=True
    )
    parser.option(
        "--configuration", type=Path, nargs="+", required=True, help="configuration files, as merged"
    )
    parser.option("--engine", default="unknown", help="version of Snakemake")
    parser.output("--workflow", help="folder for the copy of the workflow")
    parser.output("--output", help="ro-crate-metadata.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the crate's metadata and the copy of the workflow."""
    args = arguments().parse_args(argv)

    from w2s.citation import Person, read_citation
    from w2s.crate import FinishedRun, describe

    snakefile, configuration = copied(args)
    agent = Person(args.agent["name"], args.agent.get("orcid") or "") if args.agent else None
    run = FinishedRun(
        folder=args.output.parent,
        preset=args.preset,
        tables=args.tables,
        others=args.files,
        workflow=[*snakefile, *configuration],
        configuration=configuration,
        engine=args.engine,
        citation=read_citation(args.citation),
        agent=agent,
    )
    write_json(describe(run), args.output)


def copied(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Copies of the Snakefile with its rules, and of the configuration files, each in its order.

    A file of the repository keeps its place; one from elsewhere is put into ``overlays/`` under its number and name.
    """
    base = args.snakefile.resolve().parent
    code = [args.snakefile, *sorted((base / "rules").glob("*.smk"))]
    return (
        [copy(path, args.workflow / path.resolve().relative_to(base)) for path in code],
        [
            copy(path, args.workflow / place(path.resolve(), base, number))
            for number, path in enumerate(args.configuration, 1)
        ],
    )


def place(path: Path, base: Path, number: int) -> Path:
    """Where a configuration file is put, relative to the copy."""
    return path.relative_to(base) if path.is_relative_to(base) else Path("overlays", f"{number}-{path.name}")


def copy(source: Path, target: Path) -> Path:
    """Copy a file's content; returns the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


if __name__ == "__main__":
    cli.run(main)
