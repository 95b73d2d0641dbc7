"""Lexical signs of a style: how long an answer is, and whether it has one of the words that give a style away.

A marker is a word or a phrase ("ahoy", "just like"). It counts where it stands as a whole word, in any case: "arr" is
neither in "carry" nor in "arrow". No judge is asked; what a marker misses, a style without the word, is its price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from w2s.errors import ConfigError


def count_words(text: str) -> int:
    """The number of words: what stands between blanks."""
    return len(text.split())


def has_marker(text: str, markers: Iterable[str]) -> bool:
    """Whether any of ``markers`` occurs in ``text`` as a whole word or phrase, in any case.

    Raises:
        ConfigError: there is no marker, or one without a letter, a digit or a sign.
    """
    return _pattern(tuple(markers)).search(text.casefold()) is not None


@cache
def _pattern(markers: tuple[str, ...]) -> re.Pattern[str]:
    phrases = [marker.casefold().split() for marker in markers]
    if not phrases or not all(phrases):
        raise ConfigError(
            "no marker, or an empty one", where="--marker", instead="words that give the style away"
        )
    # Within a phrase any white space may stand where the marker has a blank, a line break too.
    joined = "|".join(r"\s+".join(map(re.escape, phrase)) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{joined})(?!\w)")
