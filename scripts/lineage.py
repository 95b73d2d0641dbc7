"""Say what a table's cell, or an artifact, was made from: down to seeds, labels, weights, data revision and commit.

    ./w2s lineage results/demo/tables/a_figure_2a/rewards.csv --where arm=human --where data=world-t2 --column mean
    ./w2s lineage results/demo/models/demo-s

Of a table the conditions must leave one row. Only what enters the cell is shown: the measurements that it is a summary
of, their number and their mean, and, seed by seed, the artifacts that they were read from with all that these were made
from. Each artifact is told once, with path, digest, settings, commit, container, time and machine; where it is met
again its number stands for it. A cell that is no summary of measurements (costs, recipes, deciles of labels) falls
back to all that its table was made from, and says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.errors import ArtifactError, DataError
from w2s.handles import given, owner


def main(argv: Sequence[str] | None = None) -> None:
    """Print the lineage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a CSV of a tables artifact; an artifact, or a file in it")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="of a table: one row's; several allowed",
    )
    parser.add_argument("--column", default="", help="of a table: the cell's column")
    parser.add_argument("--json", action="store_true", help="as JSON, with all that is recorded")
    args = parser.parse_args(argv)
    path = given(args.path)
    manifest = owner(path)
    if manifest is None:
        raise ArtifactError(
            "this is in no artifact, so nothing is written of what it was made from",
            where=path,
            instead="the tables that it was drawn from: results/<preset>/tables/<experiment>",
        )
    if not (args.where or args.column):
        cell = None
    elif path.suffix != ".csv":
        raise DataError("--where and --column are of tables", where=path, instead="a .csv of the artifact")
    elif not args.column:
        raise DataError("no column is given", where=path, instead="--column with the cell's")
    else:
        from w2s.cells import read_cell

        name = path.resolve().relative_to(manifest.parent.resolve()).as_posix()
        cell = read_cell(manifest, name, args.where, args.column)

    from w2s import lineage

    if args.json:
        print(json.dumps(lineage.as_json(manifest, cell), indent=1, ensure_ascii=False))
        return
    lines = lineage.cell_lines(cell) if cell else lineage.Tree().lines(manifest)
    print("\n".join(lines))


if __name__ == "__main__":
    cli.run(main)
