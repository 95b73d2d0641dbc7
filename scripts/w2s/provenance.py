"""Where a result comes from: the artifacts behind it, and what they say of machine, code and settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s.artifact import Artifact, load
from w2s.errors import ArtifactError
from w2s.handles import parents


@dataclass(frozen=True)
class Ancestry:
    """The artifacts behind a result, each once, and the paths of those that are no longer there."""

    artifacts: list[Artifact]
    gone: list[Path]


def walk(manifests: Iterable[Path]) -> Iterator[tuple[Path, Artifact | ArtifactError]]:
    """Everything from ``manifests`` to raw data, each once, what is nearest first: its path, and it or why it is not known.

    Whoever asks decides what an artifact means that was cleaned away or cannot be read; nothing is raised for it.
    """
    queue = [path.resolve() for path in manifests]
    seen: set[Path] = set()
    while queue:
        path = queue.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            artifact = load(path)
        except ArtifactError as error:
            yield path, error
            continue
        yield path, artifact
        queue.extend(parent.path for parent in parents(artifact))


def ancestry(manifests: Iterable[Path]) -> Ancestry:
    """Walk from ``manifests`` to raw data. A parent that was cleaned away is listed; the result itself must
    be there.

    Raises:
        ArtifactError: one of ``manifests`` is missing, or a record on the way cannot be read.
    """
    asked = [path.resolve() for path in manifests]
    for path in asked:
        if not path.is_file():
            raise ArtifactError(
                "the artifact is not there", where=path, instead="run the workflow for it first"
            )
    found: list[Artifact] = []
    gone: list[Path] = []
    for path, artifact in walk(asked):
        if isinstance(artifact, Artifact):
            found.append(artifact)
        elif path.is_file():
            raise artifact
        else:
            gone.append(path)
    return Ancestry(found, sorted(gone))


def commit(git: Mapping[str, Any] | None, length: int | None = None) -> str:
    """The commit of a run record in words, the same wherever people read it.

    Args:
        git: what the record says of the checkout; None where there was none.
        length: hex digits that are shown; None for all.
    """
    if not git:
        return "not in git"
    return git["commit"][:length] + (" with local changes" if git["dirty"] else "")


def environment_rows(artifacts: Sequence[Artifact]) -> list[tuple[str, list[str]]]:
    """Name and values of what the jobs ran in; several values, with their job counts, where jobs differed."""
    commits: Counter[str] = Counter()
    columns: dict[str, Counter[str]] = {
        name: Counter() for name in ("Processor", "Cores", "GPU", "System", "Python", "Container")
    }
    libraries: dict[str, Counter[str]] = {}
    for artifact in artifacts:
        run, environment = artifact.run, artifact.run.get("environment", {})
        commits[commit(run.get("git"))] += 1
        columns["Processor"][environment.get("processor", "")] += 1
        columns["Cores"][str(environment.get("cores", ""))] += 1
        columns["GPU"][_gpus(environment.get("gpus", []))] += 1
        columns["System"][environment.get("system", "")] += 1
        columns["Python"][environment.get("python", "")] += 1
        columns["Container"][run.get("container") or "none"] += 1
        for name, version in environment.get("libraries", {}).items():
            libraries.setdefault(name, Counter())[version] += 1
    rows = [("Git commit", _values(commits))]
    rows += [(name, _values(counter)) for name, counter in columns.items()]
    listed = [f"{name} {' / '.join(_values(counter))}" for name, counter in sorted(libraries.items())]
    return [*rows, ("Libraries", listed or ["none recorded"])]


def settings_rows(artifacts: Sequence[Artifact]) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """Per stage: its name, the number of its artifacts, and each setting with its distinct values."""
    stages: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        stages.setdefault(artifact.manifest["stage"], []).append(artifact)
    rows = []
    for stage, members in sorted(stages.items()):
        names = dict.fromkeys(name for artifact in members for name in artifact.spec)
        settings = []
        for name in names:
            values = dict.fromkeys(
                _text(artifact.spec[name]) for artifact in members if name in artifact.spec
            )
            settings.append((name.replace("_", "-"), " | ".join(sorted(values, key=_as_number))))
        rows.append((stage, len(members), settings))
    return rows


def dates(artifacts: Sequence[Artifact]) -> tuple[str, str]:
    """First and last day (UTC) on which one of the artifacts was made."""
    days = sorted(artifact.run["started"][:10] for artifact in artifacts)
    return days[0], days[-1]


def _values(counter: Counter[str]) -> list[str]:
    if len(counter) == 1:
        return list(counter)
    return [f"{value} ({count} {'job' if count == 1 else 'jobs'})" for value, count in counter.most_common()]


def _gpus(names: Sequence[str]) -> str:
    return ", ".join(f"{count} × {name}" for name, count in Counter(names).items()) or "none"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_number(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)
