"""Hash what a run made again, from tables and figures back to the raw data, and name every file that was altered.

    ./w2s verify                                              # all under results/ and resources/
    ./w2s verify results/demo/tables/a_figure_2a              # an artifact and all that it was made from
    ./w2s verify results/demo/figures                         # figures, by the run's RO-Crate

Each manifest names the files of its artifact with their digests, and the artifacts it was made from with theirs; it and
the run record beside it bear a seal of their own. A file that was changed, removed or added is named with the digest
that was expected and the one that was found, and so is an artifact that was made again after something was made from it.
Figures, reports and scorecards are no artifacts: they are compared with ``results/<preset>/ro-crate-metadata.json``
where the run has one, and else counted as files that no record covers. Not looked at: logs, benchmarks and what
Snakemake keeps in ``.snakemake``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from w2s import cli
from w2s.errors import ArtifactError
from w2s.handles import ROOT, given
from w2s.verification import Verification

ROOTS = ("results", "resources")
# A word on how far it is, on standard error, so often (seconds).
EVERY = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Verify what is given, with all that it was made from; exit code 2 if anything is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, help="manifests, artifacts' folders, files or folders of results"
    )
    parser.add_argument(
        "--root",
        action="append",
        type=Path,
        help=f"without paths, what to verify; default: {', '.join(ROOTS)}",
    )
    args = parser.parse_args(argv)
    paths = [given(path) for path in args.paths or args.root or ()]
    paths = paths or [ROOT / name for name in ROOTS if (ROOT / name).is_dir()]
    if not paths:
        raise ArtifactError(
            "there is nothing to verify", where=ROOT, instead=f"a run makes {' and '.join(ROOTS)}"
        )
    started = told = time.monotonic()
    verification = Verification()
    problems = 0
    for problem in verification.problems(paths):
        if problem is not None:
            print(f"error: {problem}", flush=True)
            problems += 1
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            print(f"... {verification.counts(problems, told - started)}", file=sys.stderr, flush=True)
    for line in verification.uncovered():
        print(line)
    print(verification.counts(problems, time.monotonic() - started))
    return cli.EXIT_WRONG_INPUT if problems else 0


if __name__ == "__main__":
    cli.run(main)
