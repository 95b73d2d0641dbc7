"""Configurations with one thing wrong, in every section: file, key and what to write instead, and never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from preset_files import BASE, merged
from strategies import Record, anything, changed, damaged, refusal, refused_or, tried
from w2s.config import REFERENCES, load_config, read_yaml
from w2s.schema import Config

WHOLE = {name: merged(name) for name in ("paper-a", "paper-b", "demo-paper-a", "demo-paper-b")}
SECTIONS = sorted(
    name for name in Config.model_fields if any(isinstance(raw.get(name), Mapping) for raw in WHOLE.values())
)

# Sections that are one entry themselves.
FLAT = ("runtime", "cluster")


def with_entry(section: str) -> dict[str, Any]:
    """A whole configuration that has entries in a section; those of the demos before those of the papers."""
    return next(raw for name, raw in sorted(WHOLE.items()) if raw.get(section))


def keys_of(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all keys in nested mappings."""
    inner = value.items() if isinstance(value, Mapping) else ()
    return [
        found for key, below in inner for found in [(*path, str(key)), *keys_of(below, (*path, str(key)))]
    ]


def at(raw: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        raw = raw[key]
    return raw


@pytest.mark.parametrize("section", SECTIONS)
def test_one_thing_wrong_in_a_section(record_property: Record, section: str) -> None:
    """Another value, a missing key, another name: valid all the same, or refused with its place."""
    raw = with_entry(section)

    def check(content: Any) -> None:
        refused_or(lambda: load_config({**raw, section: content}), "where:")

    tried(record_property, changed(raw[section]), 25, check)


def misspellable(section: str) -> list[tuple[str, ...]]:
    """Paths of the section's keys that the schema knows by name and no user has chosen."""
    schema = Config.model_json_schema()
    known = {key for node in (schema, *schema["$defs"].values()) for key in node.get("properties", {})}
    chosen = {
        name
        for raw in WHOLE.values()
        for other in SECTIONS
        if other not in FLAT
        for name in raw.get(other) or {}
    }
    return [
        path
        for path in keys_of(with_entry(section)[section])
        if path[-1] in known - chosen and len(path[-1]) > 3
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_is_refused_with_the_right_one(record_property: Record, section: str) -> None:
    """In each section, at each depth where the schema knows the keys."""
    raw = with_entry(section)

    def check(path: tuple[str, ...]) -> None:
        content = copy.deepcopy(raw[section])
        parent, wrong = at(content, path[:-1]), path[-1][:-1] + "_x"
        parent[wrong] = parent.pop(path[-1])
        message = refusal(lambda: load_config({**raw, section: content}), f"unknown key {wrong!r}", section)
        assert path[-1] in message

    paths = misspellable(section)
    tried(record_property, st.sampled_from(paths), min(12, len(paths)), check)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: f"{reference[0]}.{reference[1]}")
def test_a_name_that_leads_nowhere(reference: tuple[str, str, str]) -> None:
    """For each kind of reference that a shipped configuration uses: the last letters of the name are wrong."""
    section, dotted, target = reference
    for raw in WHOLE.values():
        for name, entry in (raw.get(section) or {}).items():
            spoilt = _spoilt(copy.deepcopy(entry), dotted.split("."))
            if spoilt is not None:
                content = {**raw[section], name: spoilt[0]}
                message = refusal(lambda: load_config({**raw, section: content}), section, spoilt[1], target)  # noqa: B023
                assert "is not declared under" in message
                return
    pytest.skip("no shipped configuration has one")


def _spoilt(entry: Any, keys: list[str]) -> tuple[Any, str] | None:
    """The entry with a wrong name at a key path, and that name; None if it has none there."""
    if isinstance(entry, list):
        for index, item in enumerate(entry):
            found = _spoilt(item, keys)
            if found is not None:
                entry[index] = found[0]
                return entry, found[1]
        return None
    if not keys:
        return (f"{entry}-x", f"{entry}-x") if isinstance(entry, str) else None
    if not isinstance(entry, dict) or entry.get(keys[0]) is None:
        return None
    found = _spoilt(entry[keys[0]], keys[1:])
    if found is None:
        return None
    entry[keys[0]] = found[0]
    return entry, found[1]


def test_anything_instead_of_a_configuration(record_property: Record) -> None:
    def check(content: Any) -> None:
        refused_or(lambda: load_config({**WHOLE["paper-a"], **content}), "where:")

    names = st.sampled_from([*Config.model_fields, "", "x", "Data"])
    tried(record_property, st.dictionaries(names, anything, min_size=1, max_size=2), 80, check)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {a: 1}\ndata: {b: 2}\n", "'data' stands twice"),
        ("data:\n  hh: {a: 1}\n  hh: {b: 2}\n", "'hh' stands twice"),
        ("1: a\n1: b\n", "1 stands twice"),
        ("data:\n\tb: 1\n", "\\t"),
        ("data: {a: 1\n", "expected"),
        ("data: *nowhere\n", "nowhere"),
        ("data: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("data: &a [*a]\nrun: [x]\n", None),
        ("? [a, b]\n: 1\n", "unhashable"),
        ("? {a: b}\n: 1\n", "unhashable"),
        ("- a\n- b\n", "mapping"),
        ("", "mapping"),
        ("text\n", "mapping"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: \x00\n", "special characters"),
        ("a: 2026-99-99\n", None),
        ("a: '\n", "end of stream"),
        ("%YAML 9.9\n---\na: 1\n", "incompatible"),
        ("? " * 5000 + "\n", None),
        ("[" * 5000 + "\n", None),
    ],
)  # fmt: skip
def test_yaml_that_is_none_or_ambiguous(tmp_path: Path, text: str, said: str | None) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(text, encoding="utf-8")
    if said is None:
        refused_or(lambda: load_config({**WHOLE["paper-a"], **read_yaml(path)}, [path]), "where:")
    else:
        assert said in refusal(lambda: read_yaml(path), "preset.yaml")


def test_a_damaged_preset(tmp_path: Path, record_property: Record) -> None:
    """Whatever is left of the file: read as YAML and refused with its name, or read and validated."""
    path = tmp_path / "preset.yaml"
    whole = yaml.safe_dump({"data": WHOLE["demo-paper-a"]["data"], "run": ["a_figure_2a"]}).encode()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        overlay = refused_or(lambda: read_yaml(path), "preset.yaml")
        if overlay is not None:
            refused_or(lambda: load_config({**WHOLE["demo-paper-a"], **overlay}, [BASE, path]), "where:")

    tried(record_property, damaged(whole), 60, check)


def test_a_reward_model_is_no_teacher() -> None:
    """It has learnt from labels of the whole train side, of what it would label too."""
    raw = copy.deepcopy(WHOLE["demo-paper-a"])
    gold = next(name for name, entry in raw["models"].items() if entry.get("reward"))
    taught = [name for name, entry in raw["feedback"].items() if entry.get("teacher")]
    assert len(taught) > 1
    for name in taught:
        feedback = {**raw["feedback"], name: {**raw["feedback"][name], "teacher": gold}}
        refusal(
            lambda: load_config({**raw, "feedback": feedback}),  # noqa: B023
            f"feedback.{name}.teacher",
            "learnt from labels",
        )  # noqa: B023
