"""Hash artifacts again, from a table back to the raw data, and say what was altered.

Each manifest names the files of its artifact with their digests, and the artifacts it was made from with theirs. This
command follows them: a file that was changed, removed or added anywhere on the way is named, and so is an artifact
that was made again after something else was made from it.

    python scripts/verify.py results/demo/tables/*/manifest.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2s import cli
from w2s.artifact import load, verify
from w2s.errors import ArtifactError


def main(argv: Sequence[str] | None = None) -> int:
    """Verify the given artifacts and all that they were made from; exit code 2 on the first problem of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path, help="manifest.json of an artifact")
    args = parser.parse_args(argv)
    problems = 0
    verified: set[Path] = set()
    for manifest, expected in walk(args.manifests):
        if (problem := problem_of(manifest, expected, verified)) is not None:
            print(f"error: {problem}")
            problems += 1
    print(f"{len(verified)} artifacts verified, {problems} problems")
    return cli.EXIT_WRONG_INPUT if problems else 0


def walk(manifests: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    """(manifest, digest that its child recorded or None) of the artifacts and of all their ancestors, each pair once."""
    queue: list[tuple[Path, str | None]] = [(manifest.resolve(), None) for manifest in manifests]
    seen = set()
    while queue:
        entry = queue.pop()
        if entry in seen:
            continue
        seen.add(entry)
        yield entry
        if entry[0].is_file():
            for parent in load(entry[0]).manifest["parents"].values():
                for one in parent if isinstance(parent, list) else [parent]:
                    queue.append(((entry[0].parent / one["path"]).resolve(), one["digest"]))


def problem_of(manifest: Path, expected: str | None, verified: set[Path]) -> ArtifactError | None:
    """What is wrong with one artifact, if anything; files are hashed once however many children it has."""
    try:
        if manifest not in verified:
            verify(manifest)
            verified.add(manifest)
        if expected is not None and load(manifest).digest != expected:
            raise ArtifactError(
                "the artifact was made again after something was made from it",
                where=manifest,
                instead="run the workflow: it makes the descendants again",
            )
    except ArtifactError as error:
        return error
    return None


if __name__ == "__main__":
    cli.run(main)
