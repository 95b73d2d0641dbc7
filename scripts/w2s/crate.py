"""A finished run as a Workflow Run RO-Crate: one JSON-LD file that other tools read.

The crate's root is the folder of the run's results. It follows three profiles, each of which includes the one before:
Process, Workflow and Provenance Run Crate 0.5, on RO-Crate 1.1. What is in it, and what is not: docs/provenance.md.

The content depends on what lies in the run's folder only: no random names, no date of today, ids in the order of paths.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from w2s import handles
from w2s.artifact import CARD, MANIFEST, Artifact, file_digest
from w2s.citation import Citation, Person
from w2s.errors import ArtifactError
from w2s.provenance import ancestry, commit, environment_rows

if TYPE_CHECKING:
    from rocrate.model import File
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

VERSION = "1.1"
WORKFLOW = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    WORKFLOW: "Workflow RO-Crate",
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
# Apptainer runs from a SIF file, also where it pulled the image from a registry.
SIF = "https://w3id.org/ro/terms/workflow-run#SIFImage"
DONE = "http://schema.org/CompletedActionStatus"
HUB = "https://huggingface.co"
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".yaml": "application/yaml",
}
# What `environment_rows` calls a property of the machine -> its id in the crate.
MACHINE = {"Processor": "processor", "Cores": "cores", "GPU": "gpus", "System": "system"}


@dataclass(frozen=True)
class FinishedRun:
    """What a crate is made of.

    Args:
        folder: the crate's root, where the results of the run lie.
        preset: its name.
        tables: manifests of the tables; with all that they were made from they are the run's artifacts.
        others: files that are no artifacts: figures, report, scorecards, the index of models.
        workflow: Snakefile, rules and configuration as they lie in ``folder``; the Snakefile first.
        configuration: those of ``workflow`` that are configuration, in the order in which they were merged.
        engine: version of Snakemake.
        citation: the repository's CITATION.cff.
        agent: who ran it, if they said so.
    """

    folder: Path
    preset: str
    tables: Sequence[Path]
    others: Sequence[Path]
    workflow: Sequence[Path]
    configuration: Sequence[Path]
    engine: str
    citation: Citation
    agent: Person | None = None


def describe(run: FinishedRun) -> dict[str, Any]:
    """The crate's metadata, JSON-LD.

    Raises:
        ArtifactError: a table is missing, a record behind it was edited, or it lies outside of the run's folder.
    """
    return _Crate(run).metadata()


class _Crate:
    """A crate in the making; each method adds one kind of entity."""

    def __init__(self, run: FinishedRun) -> None:
        from rocrate.rocrate import ROCrate

        self.run = run
        self.crate: ROCrate = ROCrate(version=VERSION)
        found = ancestry(run.tables).artifacts
        self.artifacts = sorted(found, key=lambda artifact: artifact.folder.as_posix())
        self.digests = {artifact.manifest_path.resolve(): artifact.digest for artifact in self.artifacts}
        self.made = [artifact for artifact in self.artifacts if not _is_source(artifact)]
        self.entities = {
            artifact.manifest_path.resolve(): self._artifact(artifact) for artifact in self.artifacts
        }

    def metadata(self) -> dict[str, Any]:
        """Everything, put together."""
        authors = [self._person(person) for person in self.run.citation.authors]
        papers = [self._paper(reference) for reference in self.run.citation.references]
        workflow = self._workflow(authors, papers)
        actions = self._actions()
        outputs = [self._file(path) for path in sorted(self.run.others)]
        tables = [self.entities[path.resolve()] for path in self.run.tables]
        whole = self._whole(workflow, [*outputs, *tables], authors)
        self._engine(whole, actions)
        self._root(authors, papers, [whole, *(action for _, action in actions)])
        self.crate.metadata.extra_contexts.append(CONTEXT)
        return _compact(self.crate.metadata.generate())

    # -- data ----------------------------------------------------------------------------------------------------

    def _artifact(self, artifact: Artifact) -> Entity:
        """An artifact as a data set, with the digest of its content; of tables each file too."""
        if _is_source(artifact):
            return self._source(artifact)
        name = self._relative(artifact.folder)
        stage, files = artifact.manifest["stage"], artifact.manifest["files"]
        is_table = artifact.manifest_path in [path.resolve() for path in self.run.tables]
        kept = [MANIFEST, *files] if is_table else [CARD] if (artifact.folder / CARD).is_file() else []
        parts = [self._file(artifact.folder / file) for file in kept]
        about = {
            "name": f"{name} ({stage})",
            "description": f"{len(files)} files, {sum(entry['bytes'] for entry in files.values())} bytes, listed with "
            f"their SHA-256 in {MANIFEST}; the identifier is the digest over them",
            "identifier": f"sha256:{artifact.digest}",
        }
        return self.crate.add_dataset(
            artifact.folder, name, properties=about | ({"hasPart": parts} if parts else {})
        )

    def _source(self, artifact: Artifact) -> Entity:
        """What was fetched: by its address and revision on the hub, or as a local folder by its files alone."""
        facts, name = artifact.facts, artifact.folder.name
        kept = f"{HUB}/{'datasets/' if facts['kind'] == 'dataset' else ''}{facts['origin']}"
        files = [
            self._thing(
                f"#source/{name}/{quote(path)}",
                "DataDownload",
                name=path,
                contentSize=str(entry["bytes"]),
                sha256=entry["sha256"],
            )
            for path, entry in artifact.manifest["files"].items()
        ]
        about = {
            "name": name,
            "description": f"fetched as {facts['kind']}; the identifier is the digest over its files",
            "identifier": f"sha256:{artifact.digest}",
            "distribution": files,
            "version": facts["revision"],
            "license": facts["licence"],
            "conditionsOfAccess": facts.get("terms", ""),
            "url": f"{kept}/tree/{facts['revision']}" if facts["kind"] != "local" else "",
        }
        return self._thing(
            f"#source/{name}", "Dataset", **{key: value for key, value in about.items() if value}
        )

    def _taken(self, parent: handles.Parent) -> Entity:
        """A parent as it was used: what lies in its place by now counts only if it has the same digest."""
        if self.digests.get(parent.path) == parent.digest:
            return self.entities[parent.path]
        return self._gone(parent.path, parent.digest)

    def _gone(self, manifest: Path, digest: str) -> Entity:
        """An artifact that is there no longer: what is left of it is what its children recorded."""
        name = os.path.relpath(manifest.parent, self.run.folder.resolve())
        about = {"name": name, "description": "no longer kept, or made again since"}
        # With the digest, for two children may have used different ones in the same place.
        identity = f"#gone/{quote(name)}/{digest[:12]}"
        return self._thing(identity, "Dataset", **about, identifier=f"sha256:{digest}")

    def _file(self, path: Path, kind: type[File] | None = None) -> Entity:
        """A file of the run with its size and SHA-256."""
        from rocrate.model import File

        name = self._relative(path)
        if (present := self.crate.get(quote(name))) is not None:
            return present
        known = {"name": name, "contentSize": str(path.stat().st_size), "sha256": file_digest(path)}
        known |= {"encodingFormat": MEDIA_TYPES.get(path.suffix, "text/plain")}
        return self.crate.add((kind or File)(self.crate, path, name, properties=known))

    def _relative(self, path: Path) -> str:
        name = os.path.relpath(path.resolve(), self.run.folder.resolve())
        if name.startswith(".."):
            raise ArtifactError("it lies outside of the run's folder", where=path)
        return name

    # -- who, with what -------------------------------------------------------------------------------------------

    def _person(self, person: Person) -> Entity:
        kind = "Person" if person.is_person else "Organization"
        return self._thing(person.orcid or f"#{quote(person.name)}", kind, name=person.name)

    def _paper(self, reference: Mapping[str, Any]) -> Entity:
        authors = [self._person(Person.of(entry)) for entry in reference["authors"]]
        return self._thing(
            reference["url"],
            "ScholarlyArticle",
            name=reference["title"],
            author=authors,
            url=reference["url"],
        )

    def _workflow(self, authors: list[Entity], papers: list[Entity]) -> Entity:
        """The Snakefile, with a step for each stage and the software that its jobs had."""
        from rocrate.model import ComputationalWorkflow

        snakefile, *others = self.run.workflow
        for path in others:
            self._file(path)
        language = self.crate.add(_language(self.crate, self.run.engine))
        entity = self._file(snakefile, ComputationalWorkflow)
        entity.properties()["@type"].append("HowTo")
        stages = _in_order(self.made)
        tools = [self._tool(stage) for stage in stages]
        for name, value in {
            "conformsTo": self._reference(BIOSCHEMAS),
            "name": self.run.citation.title,
            "version": ", ".join(sorted({commit(artifact.run["git"]) for artifact in self.made})),
            "license": self.run.citation.licence_url,
            "author": authors,
            "citation": papers,
            "programmingLanguage": language,
            "softwareRequirements": self._libraries(),
            "hasPart": tools,
            "step": [self._step(position, stage) for position, stage in enumerate(stages, 1)],
            "input": [self._file_parameter("configuration", self.run.configuration)],
            "output": [self._file_parameter("results", self.run.others)],
        }.items():
            entity[name] = value
        return entity

    def _file_parameter(self, name: str, files: Sequence[Path]) -> Entity:
        parameter = self._thing(f"#{name}", "FormalParameter", name=name, additionalType="File")
        for path in files:
            self._file(path)["exampleOfWork"] = parameter
        return parameter

    def _tool(self, stage: str) -> Entity:
        """A stage's script; its version is the fingerprint of its sources, or several where jobs differed."""
        members = [artifact for artifact in self.made if artifact.manifest["stage"] == stage]
        names = dict.fromkeys(name for artifact in members for name, _ in _settings(artifact))
        code = sorted({artifact.run["code"] or "unknown" for artifact in members})
        return self._thing(
            f"#tool/{stage}",
            "SoftwareApplication",
            name=f"scripts/{stage}.py",
            softwareVersion=", ".join(code),
            input=[self._parameter(stage, name, members) for name in names],
        )

    def _parameter(self, stage: str, name: str, members: Iterable[Artifact]) -> Entity:
        values = [artifact.spec[name] for artifact in members if artifact.spec.get(name) is not None]
        kinds = {_data_type(value) for value in values}
        kind = kinds.pop() if len(kinds) == 1 else "Text"
        return self._thing(
            f"#parameter/{stage}/{name}",
            "FormalParameter",
            name=name,
            additionalType=kind,
        )

    def _step(self, position: int, stage: str) -> Entity:
        tool = self.crate.get(f"#tool/{stage}")
        return self._thing(
            f"#step/{stage}", "HowToStep", name=stage, position=str(position), workExample=tool
        )

    def _libraries(self) -> list[Entity]:
        """Each version of Python and of each library that a job had."""
        found = set()
        for artifact in self.made:
            environment = artifact.run["environment"]
            found |= {("Python", environment["python"]), *environment["libraries"].items()}
        return [
            self._thing(f"#{name}-{version}", "SoftwareApplication", name=name, softwareVersion=version)
            for name, version in sorted(found)
        ]

    # -- what happened --------------------------------------------------------------------------------------------

    def _actions(self) -> list[tuple[str, Entity]]:
        """One action per artifact: what was made of what, with which settings, when and how."""
        return [(artifact.manifest["stage"], self._action(artifact)) for artifact in self.made]

    def _action(self, artifact: Artifact) -> Entity:
        stage, run, name = artifact.manifest["stage"], artifact.run, self._relative(artifact.folder)
        settings = [self._setting(stage, key, value) for key, value in _settings(artifact)]
        # One that went in under two names is one object.
        taken = {(parent.path, parent.digest): parent for parent in handles.parents(artifact)}
        parents = [self._taken(parent) for parent in taken.values()]
        started, ended = _times(artifact)
        about = {
            "name": f"{stage}: {name}",
            "description": f"{run['wall_s']:.1f} s, at most {run['peak_memory_mb']} MB, sources {run['code']}, "
            f"commit {commit(run['git'])}",
            "instrument": self.crate.get(f"#tool/{stage}"),
            "object": [*parents, *settings],
            "result": self.entities[artifact.manifest_path.resolve()],
            "startTime": started,
            "endTime": ended,
            "actionStatus": DONE,
        }
        if run["container"]:
            about["containerImage"] = self._container(run["container"])
        if self.run.agent:
            about["agent"] = self._person(self.run.agent)
        return self._thing(f"#made/{name}", "CreateAction", **about)

    def _setting(self, stage: str, name: str, value: Any) -> Entity:
        written = json.dumps(value, sort_keys=True)
        digest = hashlib.sha256(written.encode()).hexdigest()[:12]
        return self._thing(
            f"#setting/{stage}/{name}/{digest}",
            "PropertyValue",
            name=name,
            value=value if isinstance(value, str | int | float) else written,
            exampleOfWork=self.crate.get(f"#parameter/{stage}/{name}"),
        )

    def _container(self, digest: str) -> Entity:
        about = {"name": digest, "additionalType": self._reference(SIF)}
        if digest.startswith("sha256:"):
            about["sha256"] = digest.removeprefix("sha256:")
        return self._thing(f"#container/{quote(digest)}", "ContainerImage", **about)

    def _whole(self, workflow: Entity, results: list[Entity], authors: list[Entity]) -> Entity:
        """The run as a whole, from its first job's start to its last one's end."""
        times = [_times(artifact) for artifact in self.made]
        sources = [
            self.entities[artifact.manifest_path.resolve()]
            for artifact in self.artifacts
            if _is_source(artifact)
        ]
        configuration = [self._file(path) for path in self.run.configuration]
        about = {
            "name": f"run of preset {self.run.preset}",
            "description": f"{len(self.made)} artifacts, made by {len(_in_order(self.made))} stages",
            "instrument": workflow,
            "object": [*configuration, *sources],
            "result": results,
            "startTime": min(start for start, _ in times),
            "endTime": max(end for _, end in times),
            "actionStatus": DONE,
            "resourceUsage": self._usage(),
        }
        if self.run.agent:
            about["agent"] = self._person(self.run.agent)
        return self._thing("#run", "CreateAction", **about)

    def _usage(self) -> list[Entity]:
        """Time and memory of the jobs, and the machines that they ran on."""
        wall = sum(artifact.run["wall_s"] for artifact in self.made)
        peak = max(artifact.run["peak_memory_mb"] for artifact in self.made)
        found = [
            self._used("jobs-wall-time", "wall time of all jobs together", round(wall, 1), "SEC"),
            self._used("peak-memory", "peak memory of one job", peak, "4L"),
        ]
        rows = dict(environment_rows(self.made))
        return found + [
            self._used(key, name, "; ".join(rows[name]), "C62")
            for name, key in MACHINE.items()
            if name in rows
        ]

    def _used(self, key: str, name: str, value: Any, unit: str) -> Entity:
        return self._thing(
            f"#usage/{key}", "PropertyValue", name=name, propertyID=key, value=value, unitCode=unit
        )

    def _engine(self, whole: Entity, actions: list[tuple[str, Entity]]) -> None:
        """Snakemake, which made a job of each action."""
        engine = self._thing(
            "#snakemake", "SoftwareApplication", name="Snakemake", softwareVersion=self.run.engine
        )
        controls = [
            self._thing(
                f"#control/{stage}",
                "ControlAction",
                name=f"jobs of {stage}",
                instrument=self.crate.get(f"#step/{stage}"),
                object=[action for other, action in actions if other == stage],
            )
            for stage in _in_order(self.made)
        ]
        self._thing(
            "#organise",
            "OrganizeAction",
            name=f"Snakemake {self.run.engine}",
            instrument=engine,
            object=controls,
            result=whole,
            startTime=whole["startTime"],
            endTime=whole["endTime"],
        )

    def _root(self, authors: list[Entity], papers: list[Entity], actions: list[Entity]) -> None:
        citation, root = self.run.citation, self.crate.root_dataset
        licence = self._thing(
            "#licence",
            "CreativeWork",
            name=f"{citation.licence} for what the workflow made; sources keep their own licences",
            description="Results derive from data and models that are listed with their licences; what those ask "
            "for holds for what derives from them.",
        )
        profiles = [
            self._thing(uri, "CreativeWork", name=name, version=uri.rsplit("/", 1)[1])
            for uri, name in PROFILES.items()
        ]
        last = max(_times(artifact)[1] for artifact in self.made)
        for name, value in {
            "conformsTo": profiles,
            "name": f"{citation.title}: preset {self.run.preset}",
            "description": f"{citation.abstract} This is the finished run of the preset {self.run.preset}.",
            "datePublished": last[:10],
            "license": licence,
            "author": authors,
            "citation": papers,
            "mainEntity": self._file(self.run.workflow[0]),
            "mentions": actions,
        }.items():
            root[name] = value
        self.crate.metadata["conformsTo"] = [
            self._reference(uri) for uri in (self.crate.metadata.profile, WORKFLOW)
        ]

    def _thing(self, identity: str, kind: str, **about: Any) -> Entity:
        """A contextual entity; one that is there already is given back as it is."""
        from rocrate.model import ContextEntity

        return self.crate.get(identity) or self.crate.add(
            ContextEntity(self.crate, identity, properties={"@type": kind, **about})
        )

    @staticmethod
    def _reference(uri: str) -> dict[str, str]:
        return {"@id": uri}


def _compact(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same with lists of one as what is in them, the form that RO-Crate 1.1 asks for."""
    graph = [
        {
            key: value[0] if isinstance(value, list) and len(value) == 1 else value
            for key, value in entity.items()
        }
        for entity in metadata["@graph"]
    ]
    return metadata | {"@graph": graph}


def _is_source(artifact: Artifact) -> bool:
    return artifact.manifest["stage"] == "fetch"


def _settings(artifact: Artifact) -> list[tuple[str, Any]]:
    """The settings that have a value."""
    return [(name, value) for name, value in artifact.spec.items() if value is not None]


def _in_order(artifacts: Iterable[Artifact]) -> list[str]:
    """The stages, in the order in which each was first run."""
    ordered = sorted(artifacts, key=lambda artifact: (artifact.run["started"], artifact.folder.as_posix()))
    return list(dict.fromkeys(artifact.manifest["stage"] for artifact in ordered))


def _times(artifact: Artifact) -> tuple[str, str]:
    """Start and end, ISO 8601, to the second."""
    started = datetime.fromisoformat(artifact.run["started"])
    return started.isoformat(), (started + timedelta(seconds=math.ceil(artifact.run["wall_s"]))).isoformat()


def _data_type(value: object) -> str:
    kinds: Sequence[tuple[type, str]] = ((bool, "Boolean"), (int, "Integer"), (float, "Float"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "Text")


def _language(crate: ROCrate, version: str) -> Entity:
    from rocrate.model.computerlanguage import snakemake

    return snakemake(crate, version=version)
