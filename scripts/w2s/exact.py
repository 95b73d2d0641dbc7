"""The demo world's own rewards of texts, for the stages that need no reward model. No torch is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from w2s.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def rewards(
    settings: dict[str, Any], prompts: Iterable[str], responses: Iterable[str], places: Iterable[str]
) -> pd.DataFrame:
    """Exact rewards of responses to prompts: columns ``reward`` and ``malformed``, in the given order.

    ``malformed`` says whether any sentence is not of the world's language or cut off.

    Args:
        settings: of the world; checked, for a reward depends on the prompt and the response only.
        places: what to name each response by in an error.

    Raises:
        ConfigError: these are no settings of a world.
        DataError: a prompt is not of the world's language; its place is named.
    """
    import pandas as pd

    from w2s import world

    world.Settings.read(settings)
    found = []
    for prompt, response, place in zip(prompts, responses, places, strict=True):
        try:
            found.append(world.reward(prompt, response))
        except DataError as error:
            raise DataError(error.what, where=place, instead=error.instead) from error
    return pd.DataFrame(found, columns=["reward", "malformed"]).astype({"reward": float, "malformed": bool})
