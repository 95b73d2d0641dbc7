"""Malformed inputs of every kind for property-based tests, and what must become of each: a counted drop or a clear error.

The examples are the same in every run, and each test records how many it tried.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from w2s.errors import W2SError

#: The type of pytest's ``record_property``.
Record = Callable[[str, object], None]

# What stands in a text where nobody expects it.
ODD_TEXTS = (
    *(
        "",
        " ",
        "\ufeff",
        "\x00",
        "\u2028",
        "a\r\nb",
        "é",
        "\U0001f600",
        "nan",
        "null",
        "../x",
        "/",
        "a" * 5000,
    ),
    "\ud800",  # half of a surrogate pair
)
odd_texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
odd_numbers = st.sampled_from(
    [0, -1, 2, 10**30, -(10**400), 1.5, 1e308, float("nan"), float("inf"), float("-inf"), True]
)
scalars = st.none() | st.booleans() | odd_numbers | odd_texts
#: Any JSON value, and the two that JSON has not but Python's reader takes.
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=6,
)


def tried(
    record: Record,
    values: st.SearchStrategy[Any],
    most: int,
    check: Callable[[Any], object],
) -> None:
    """Call ``check`` with up to ``most`` of ``values``, and record the number as this test's cases.

    A value of which ``check`` can say nothing it gives back with hypothesis's ``reject``: that is no case, and another is tried.
    """
    cases = 0

    @settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=most,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def each(value: Any) -> None:
        nonlocal cases
        check(value)
        cases += 1

    each()
    assert cases > most // 4, f"{cases} of {most} cases: most values say nothing of what is tested"
    record("cases", cases)


def refusal(call: Callable[[], object], *named: str) -> str:
    """The message with which ``call`` refuses; it names each of ``named``. No other exception will do."""
    with pytest.raises(W2SError) as caught:
        call()
    message = str(caught.value)
    for name in named:
        assert name in message, f"{name!r} is not named in: {message}"
    assert message.isprintable() or all(line.isprintable() for line in message.replace("\t", " ").split("\n"))
    return message


def refused_or(call: Callable[[], Any], *named: str) -> Any:
    """What ``call`` returns, or None where it refuses as in :func:`refusal`."""
    try:
        return call()
    except W2SError as error:
        for name in named:
            assert name in str(error), f"{name!r} is not named in: {error}"
        return None


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` cut off, with other bytes in its middle, with a hole, in another encoding, doubled, or none of it."""
    at = draw(st.integers(0, max(0, len(content) - 1)))
    length = draw(st.integers(1, 24))
    kinds: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "cut": lambda: content[:at],
        "headless": lambda: content[at + 1 :],
        "overwritten": lambda: (
            content[:at] + draw(st.binary(min_size=length, max_size=length)) + content[at + length :]
        ),
        "zeroed": lambda: content[:at] + bytes(length) + content[at + length :],
        "hole": lambda: content[:at] + content[at + length :],
        "noise": lambda: draw(st.binary(min_size=1, max_size=200)),
        "gzipped": lambda: gzip.compress(content),
        "utf-16": lambda: content.decode("latin-1").encode("utf-16"),
        "bom": lambda: b"\xef\xbb\xbf" + content,
        "web page": lambda: b"<!doctype html><title>404</title>",
        "pickle": lambda: b"\x80\x04\x95" + content[:40],
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which one place holds something else, is gone, or is there under another name."""
    places = list(_places(value))
    path = draw(st.sampled_from(places))
    return _replaced(value, path, draw)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from _places(below, (*path, key))


def _replaced(value: Any, path: tuple[Any, ...], draw: st.DrawFn) -> Any:
    if not path:
        return draw(anything.filter(lambda other: other != value))
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) > 1:
        copy[path[0]] = _replaced(value[path[0]], path[1:], draw)
        return copy
    how = draw(st.sampled_from(["other", "other", "gone", "renamed"]))
    old = copy.pop(path[0])
    if how == "gone":
        return copy
    if isinstance(copy, list):
        copy.insert(path[0], draw(anything.filter(lambda other: other != old)))
    elif how == "renamed":
        copy[f"{path[0]}_"] = old
    else:
        copy[path[0]] = draw(anything.filter(lambda other: other != old))
    return copy


def write_json_lines(path: Path, rows: list[Any], **how: Any) -> Path:
    """JSON lines with whatever Python's writer can express, NaN and half surrogates included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, **how) + "\n" for row in rows)
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    return path
