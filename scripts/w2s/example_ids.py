"""The ids of examples: hashes of their content, so that an example is the same one wherever it comes from.

Which response stands first is decided by the hashes of the two sides, never by the label.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from w2s.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

LENGTH = 16
Side = tuple[str, str]


def content_hash(parts: tuple[str, ...]) -> str:
    """SHA-256 of some texts, in hex; JSON keeps them apart, whatever characters they hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def example_id(first: Side, second: Side) -> str:
    """The id of an example with these sides (prompt, response), in their order."""
    return content_hash((*first, *second))[:LENGTH]


def check_ids(examples: pd.DataFrame, where: object) -> None:
    """Refuse examples whose content is not that of their ids: edited texts, or responses that changed places.

    Raises:
        DataError: such an example; its id is named.
    """
    other = examples["other_prompt"].where(examples["other_prompt"].notna(), examples["prompt"])
    columns = (examples["id"], examples["prompt"], examples["response_0"], other, examples["response_1"])
    for name, prompt, first, second_prompt, second in zip(*columns, strict=True):
        sides = (prompt, first), (second_prompt, second)
        if name != example_id(*sides) or content_hash(sides[0]) > content_hash(sides[1]):
            raise DataError(
                f"id {name} is not that of its content: a text was edited, or the responses changed places",
                where=where,
                instead="the examples as import_examples wrote them",
            )
