"""Errors that a user can act on: what is wrong, where, and what to write instead."""

from __future__ import annotations


class W2SError(Exception):
    """Base of all errors that are the input's fault, not the program's.

    Args:
        what: what is wrong, in one sentence.
        where: file and row, or file and key.
        instead: what the user should write or run instead.
    """

    def __init__(self, what: str, *, where: object | None = None, instead: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.instead = instead
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where:   {self.where}")
        if self.instead is not None:
            lines.append(f"  instead: {self.instead}")
        return "\n".join(lines)


class ConfigError(W2SError):
    """The configuration is wrong; raised before any job starts."""


class DataError(W2SError):
    """An input file or a row of it is wrong."""


class JoinError(W2SError):
    """Two tables that must match one to one by id do not."""


class ArtifactError(W2SError):
    """An artifact is missing, incomplete or altered."""


class EnvironmentProblem(W2SError):
    """The machine lacks something that the stage needs."""


class Interrupted(W2SError):
    """The stage was asked to stop. What it had is saved; the same command continues."""
