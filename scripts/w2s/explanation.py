"""Why a run would make something again: the plan's jobs, what each was made with, and what differs now.

Snakemake decides what runs; here is said why, in words, and followed back to where it begins. A job that runs because
another one does is no cause. Neither is what Snakemake does not look at: dates, comments, formatting.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s.artifact import MANIFEST, SHORT, Artifact, load
from w2s.errors import ArtifactError
from w2s.fingerprint import SCRIPTS, digests, sources
from w2s.handles import parents
from w2s.words import flags

if TYPE_CHECKING:
    from snakemake.jobs import Job
    from snakemake.persistence import MetadataRecord
    from snakemake.workflow import Workflow

CODE = re.compile(r"[0-9a-f]{16}")  # what rules/common.smk calls `code`, as w2s.fingerprint writes it
ABSENT = "not given"
SHOWN = 3  # names in a list before it becomes a count
LONGEST = 60  # characters of a value


@dataclass(frozen=True)
class Cause:
    """One thing that differs from what something was made with.

    ``what`` is the same wherever the same thing differs, so that it is told once; ``detail`` may depend on the job.
    """

    what: str
    detail: str = ""


@dataclass
class Root:
    """A cause, the jobs that it concerns directly, and those that run because these do."""

    cause: str
    details: Counter[str] = field(default_factory=Counter)
    direct: list[Job] = field(default_factory=list)
    following: list[Job] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """What would run, and why.

    Attributes:
        targets: each target that was asked for, and in a word what becomes of it.
        jobs: number of jobs that would run.
        roots: where it begins, upstream first.
    """

    targets: list[tuple[str, str]]
    jobs: int
    roots: list[Root]


# -- the plan ------------------------------------------------------------------------------------------------------


def explain(workflow: Workflow, targets: Sequence[str]) -> Explanation:
    """Explain a plan that Snakemake drew (:func:`w2s.engine.with_plan`)."""
    dag = workflow.dag
    order = {job: place for place, job in enumerate(job for level in dag.toposorted() for job in level)}
    running = sorted((job for job in dag.needrun_jobs() if not job.rule.norun), key=order.__getitem__)
    roots: dict[str, Root] = {}
    for job in running:
        for cause in causes(workflow, job):
            root = roots.setdefault(cause.what, Root(cause.what))
            root.details[cause.detail] += 1
            if job not in root.direct:
                root.direct.append(job)
    for root in roots.values():
        found = reachable(root.direct, dag.depending, set(running))
        root.following = sorted(found - set(root.direct), key=order.__getitem__)
    return Explanation([(name, fate(workflow, name)) for name in targets], len(running), [*roots.values()])


def causes(workflow: Workflow, job: Job) -> list[Cause]:
    """Why a job would run. One that runs only because another does has no cause of its own; one that seems to have none at
    all has Snakemake's word."""
    found = list(Causes(workflow, job).all())
    if found or any(workflow.dag.needrun(other) for other in workflow.dag.dependencies[job]):
        return found
    return [Cause(f"Snakemake says: {workflow.dag.reason(job)}")]


def reachable(jobs: Iterable[Job], edges: Mapping[Job, Iterable[Job]], among: set[Job]) -> set[Job]:
    """Jobs that are reached from ``jobs`` along ``edges`` without leaving ``among``."""
    queue = deque(jobs)
    found = set(queue)
    while queue:
        for other in edges[queue.popleft()]:
            if other in among and other not in found:
                found.add(other)
                queue.append(other)
    return found


def fate(workflow: Workflow, target: str) -> str:
    """What becomes of a file, or of a rule's outputs, in a word."""
    dag = workflow.dag
    mine = [job for job in dag.jobs if target in job.output or target == job.rule.name]
    if any(dag.needrun(job) for job in mine):
        there = all(os.path.exists(output) for job in mine for output in job.output)
        return "would be made again" if there and not mine[0].rule.norun else "would be made"
    unrecorded = [job for job in mine for output in job.output if record_of(workflow, output) is None]
    if unrecorded:
        found = [words for job in unrecorded for words in by_own_record(job)]
        told = f"; by its own record: {'; '.join(found)}" if found else ""
        return f"up to date by its date; Snakemake has no record of how it was made and compares nothing else{told}"
    return "up to date: nothing would run"


def by_own_record(job: Job) -> Iterator[str]:
    """In what an artifact's manifest and run record differ from a job that would make it now; settings that are left at
    their default are not compared."""
    made = _loaded(next(iter(job.output), ""))
    script = SCRIPTS / f"{job.rule.name}.py"
    if made is None or not script.is_file():
        return
    now, before = settings(str(job.params.get("spec", ""))), settings(_written(made.spec))
    for name, was, will in differences({name: before.get(name, ABSENT) for name in now}, now):
        if not _equal_numbers(was, will):
            yield f"setting {name}: {was} -> {will}"
    recorded, present = made.run["sources"], digests(script)
    for path in sorted(path for path in recorded if present.get(path) != recorded[path]):
        yield f"source scripts/{path} has changed since"


def _written(spec: Mapping[str, Any]) -> str:
    """A manifest's spec as flags; a list of mappings was one JSON text."""
    nested = (list, dict)
    return flags(
        {
            name: json.dumps(value)
            if isinstance(value, list) and any(isinstance(one, nested) for one in value)
            else value
            for name, value in spec.items()
        }
    )


def _equal_numbers(first: str, second: str) -> bool:
    """Whether two texts are one number, be it written as 0.5 or as 1/2."""
    try:
        return float(Fraction(first)) == float(Fraction(second))
    except (ValueError, ZeroDivisionError):
        return False


def record_of(workflow: Workflow, output: str) -> MetadataRecord | None:
    """What Snakemake noted when it made a file."""
    return workflow.persistence.metadata(output)


# -- one job -------------------------------------------------------------------------------------------------------


class Causes:
    """What of one job differs from the time when its outputs were made.

    Args:
        workflow: the plan's.
        job: one that would run.
    """

    def __init__(self, workflow: Workflow, job: Job) -> None:
        self._workflow = workflow
        self._job = job
        self._stage = job.rule.name
        self._records = {
            output: record for output in job.output if (record := record_of(workflow, output)) is not None
        }
        self._made = _loaded(next(iter(job.output), ""))

    def all(self) -> Iterator[Cause]:
        """All causes that lie in the job itself, not in another job."""
        yield from self._outputs()
        for record in list(self._records.values())[:1]:  # one job made all outputs
            yield from self._params(record)
            yield from self._inputs(record)
            yield from self._container(record)
        known = {path for record in self._records.values() for path in record.input_checksums or {}}
        for path in sorted(set(self._workflow.dag.reason(self._job).updated_input) - known):
            yield Cause(f"input {path} is newer, and what it was before is not known")

    def _outputs(self) -> Iterator[Cause]:
        missing = [output for output in self._job.output if not os.path.exists(output)]
        if missing and not self._records:
            yield Cause("not made yet")
        elif missing:
            yield Cause("output is missing, which was made before", missing[0])
        elif self._workflow.dag.reason(self._job).forced:
            unfinished = self._workflow.async_run(self._workflow.persistence.incomplete(self._job))
            yield Cause(
                "the job that made it was interrupted, or runs just now"
                if unfinished
                else "asked for whatever its state (--force, --forcerun, --forceall)"
            )

    def _params(self, record: MetadataRecord) -> Iterator[Cause]:
        change = self._workflow.persistence.params_changed(self._job)
        if not change:
            return
        before, now = (sorted(map(str, map(_value, side))) for side in (change.only_old, change.only_new))
        codes = [value for value in before + now if CODE.fullmatch(value)]
        old, new = (" ".join(value for value in side if value not in codes) for side in (before, now))
        changed = list(differences(settings(old), settings(new)))
        for name, was, will in changed:
            yield Cause(f"setting {name}: {was} -> {will}")
        if codes:
            yield from self._code(record, codes)
        elif not changed:
            yield Cause("its settings are written otherwise, with the same values")

    def _code(self, record: MetadataRecord, codes: Sequence[str]) -> Iterator[Cause]:
        script = SCRIPTS / f"{self._stage}.py"
        if not script.is_file():
            yield Cause(f"the code of {self._stage} has changed ({' -> '.join(codes)})")
            return
        now = digests(script)
        # A figure has no record of its sources; those of what it was drawn from are told by that.
        before = recorded_sources([self._made] if self._made else map(_loaded, self._job.input))
        changed = [path for path in now if path in before and before[path][0] != now[path]]
        if self._made:
            changed += sorted(set(now) ^ set(before))
        for path in changed:
            word = "has changed" if path in now and path in before else "is new" if path in now else "is gone"
            yield Cause(
                f"source scripts/{path} {word} since", _commit(before.get(path, (None, None))[1], path)
            )
        if not changed:
            dates = {os.path.relpath(path, SCRIPTS.parent): path.stat().st_mtime for path in sources(script)}
            newer = [path for path, date in dates.items() if date > (record.endtime or 0)]
            newer.sort(key=dates.__getitem__, reverse=True)
            detail = f"newer than what it made: {listed(newer)}" if newer else ""
            yield Cause(f"the code of {self._stage} has changed since", detail)

    def _inputs(self, record: MetadataRecord) -> Iterator[Cause]:
        before, now = set(record.input or ()), set(map(str, self._job.input))
        if before != now and record.input is not None:
            parts = [("now also", now - before), ("no longer", before - now)]
            words = "; ".join(f"{word} {listed(sorted(paths))}" for word, paths in parts if paths)
            yield Cause(f"the set of inputs has changed: {words}")
        dag, names = self._workflow.dag, input_names(self._job)
        remade = {
            str(path)
            for job, paths in dag.dependencies[self._job].items()
            if dag.needrun(job)
            for path in paths
        }
        for path in self._job.input:
            checksum = (record.input_checksums or {}).get(str(path))
            if str(path) in remade or checksum is None or not os.path.exists(path):
                continue
            if not self._workflow.async_run(path.is_same_checksum(_named(checksum), 1 << 62)):
                yield Cause(
                    f"input {names[str(path)]}: {path} has other content", self._content(path, checksum)
                )

    def _content(self, path: str, checksum: str) -> str:
        """Old and new content of an input, and when it came about."""
        artifact = _loaded(path)
        if artifact is None:
            made = datetime.fromtimestamp(os.path.getmtime(path), UTC)
            return f"{checksum.rpartition(':')[2][:SHORT]} before; changed {made:%Y-%m-%d %H:%M} UTC"
        made = datetime.fromisoformat(artifact.run["started"])
        made_from = parents(self._made) if self._made else []
        before = {parent.digest for parent in made_from if parent.path == Path(path).resolve()}
        change = (
            f"{' or '.join(digest[:SHORT] for digest in before)} -> {artifact.digest[:SHORT]}, "
            if before
            else ""
        )
        if before == {artifact.digest}:
            change = "its files are the same, what it says of them is not, "
        return f"{change}made again {made:%Y-%m-%d %H:%M} UTC"

    def _container(self, record: MetadataRecord) -> Iterator[Cause]:
        if any(self._workflow.persistence.software_stack_changed(self._job)):
            before, now = record.container_img_url or "none", self._job.container_img_url or "none"
            yield Cause(f"container changed: {before} -> {now}")


# -- settings ------------------------------------------------------------------------------------------------------


def settings(spec: str) -> dict[str, Any]:
    """A spec's flags by name, as :func:`w2s.words.flags` wrote them: a value, a list, what a JSON text holds, or True."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in shlex.split(spec):
        if re.match(r"--[a-z]", word):
            words = found[word.removeprefix("--")] = []
        else:
            words.append(word)
    return {
        name: True if not given else _plain(given[0]) if len(given) == 1 else given
        for name, given in found.items()
    }


def differences(before: object, now: object, name: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, old value, new value) of all that differs; within nested mappings the names are joined by dots."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key, ABSENT), now.get(key, ABSENT), inner)
    elif before != now:
        yield name, *_apart(_text(before), _text(now))


def _apart(before: str, now: str) -> tuple[str, str]:
    """Two texts cut to a length, around the place where they begin to differ."""
    if max(len(before), len(now)) <= LONGEST:
        return before, now
    same = len(os.path.commonprefix([before, now]))
    start = max(0, same - LONGEST // 3)
    return _cut(before, start), _cut(now, start)


def _cut(text: str, start: int) -> str:
    end = start + LONGEST
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(word: str) -> Any:
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return value if isinstance(value, dict | list) else word


def _value(text: str) -> object:
    """A parameter from the form in which Snakemake keeps it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# -- records -------------------------------------------------------------------------------------------------------


def recorded_sources(artifacts: Iterable[Artifact | None]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """Source -> (its digest, the state of git) when these artifacts were made; of several the last made."""
    known = sorted((artifact for artifact in artifacts if artifact), key=lambda one: one.run["started"])
    return {
        path: (digest, artifact.run.get("git"))
        for artifact in known
        for path, digest in artifact.run["sources"].items()
    }


def input_names(job: Job) -> dict[str, str]:
    """Path -> the name under which the rule has it."""
    names = dict.fromkeys(map(str, job.input), "")
    for name, paths in job.input.items():
        for path in [paths] if isinstance(paths, str) else paths:
            names[str(path)] = name
    return {path: name or Path(path).parent.name for path, name in names.items()}


@cache
def _loaded(path: str) -> Artifact | None:
    """The artifact of this manifest; None where it is none, or cannot be read."""
    if os.path.basename(path) != MANIFEST:
        return None
    try:
        return load(Path(path))
    except ArtifactError:
        return None


def _commit(git: Mapping[str, Any] | None, path: str) -> str:
    """Where the former state of a source may be looked up."""
    if not git:
        return ""
    commit = git["commit"][:7]
    if git["dirty"]:
        return f"made at commit {commit} with local changes"
    file = f"scripts/{path}"
    return f"made at commit {commit}" + (f"; git diff {commit} -- {file}" if _differs(commit, file) else "")


@cache
def _differs(commit: str, file: str) -> bool:
    """Whether git still has the commit, and another state of the file in it."""
    command = ["git", "-C", str(SCRIPTS.parent), "diff", "--quiet", commit, "--", file]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 1
    except OSError:
        return False


def _named(checksum: str) -> str:
    return checksum if ":" in checksum else f"sha256:{checksum}"


# -- words ---------------------------------------------------------------------------------------------------------


def text(found: Explanation) -> Iterator[str]:
    """The explanation in lines."""
    for name, word in found.targets:
        yield f"{name}: {word}"
    if not found.jobs:
        if not found.targets:
            yield "up to date: nothing would run"
        return
    if found.targets:
        yield ""
    jobs, causes = number(found.jobs, "job"), number(len(found.roots), "cause")
    yield f"{jobs} would run, for {causes}"
    for place, root in enumerate(found.roots, 1):
        details = [detail for detail, _ in root.details.most_common() if detail]
        yield ""
        yield f"{place}. {root.cause}" + (f" ({listed(details, '; ')})" if details else "")
        yield f"   concerns {by_rule(root.direct)}"
        for job in root.direct[:SHOWN]:
            yield f"     {next(iter(job.output), job.rule.name)}"
        if len(root.direct) > SHOWN:
            yield f"     and {len(root.direct) - SHOWN} more"
        if root.following:
            yield f"   then    {by_rule(root.following)}"


def by_rule(jobs: Sequence[Job]) -> str:
    """Rules with their numbers of jobs, in the order of the jobs."""
    return ", ".join(f"{rule} {count}" for rule, count in Counter(job.rule.name for job in jobs).items())


def listed(words: Sequence[str], between: str = ", ") -> str:
    """A few of them, and how many more there are."""
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return between.join(words[:SHOWN]) + more


def number(count: int, noun: str) -> str:
    """``"1 job"``, ``"2,000 jobs"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
