"""The repository's CITATION.cff: who made the workflow, under which licence, and which papers it reproduces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from w2s.errors import DataError

SPDX = "https://spdx.org/licenses"


@dataclass(frozen=True)
class Person:
    """A person or, with one name only, a group."""

    name: str
    orcid: str = ""
    is_person: bool = True

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Person:
        """An author as CITATION.cff writes them."""
        if "name" in entry:
            return cls(entry["name"], is_person=False)
        parts = [entry.get("given-names"), entry.get("family-names")]
        return cls(" ".join(filter(None, parts)), entry.get("orcid", ""))


@dataclass(frozen=True)
class Citation:
    """What of CITATION.cff is used here."""

    title: str
    abstract: str
    licence: str
    authors: Sequence[Person]
    references: Sequence[Mapping[str, Any]]

    @property
    def licence_url(self) -> str:
        """Address of the licence's text."""
        return f"{SPDX}/{self.licence}"


def read_citation(path: Path) -> Citation:
    """Read a CITATION.cff.

    Raises:
        DataError: it is no YAML, or lacks one of its parts.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Citation(
            content["title"],
            content["abstract"].strip(),
            content["license"],
            [Person.of(entry) for entry in content["authors"]],
            [{"title": r["title"], "url": r["url"], "authors": r["authors"]} for r in content["references"]],
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"not a citation file ({error!r})",
            where=path,
            instead="title, abstract, license, authors and references as CITATION.cff of the repository has them",
        ) from error
