"""A YAML file read key by key: what is unknown, missing, double or of the wrong kind is refused with file and key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w2s.errors import ConfigError

MISSING: Any = object()


class Node:
    """A mapping of the file that knows its place and which of its keys have been read."""

    def __init__(self, content: object, file: str, place: str) -> None:
        self._file, self._place = file, place
        if not isinstance(content, dict):
            raise ConfigError("no mapping of keys", where=self.where(""), instead="key: value")
        self._content: dict[str, Any] = content
        self._read: set[str] = set()

    @property
    def key_name(self) -> str:
        """The key under which the node itself stands."""
        return self._place.rpartition(".")[2]

    @property
    def keys(self) -> list[str]:
        """All keys, in their order."""
        return [str(key) for key in self._content]

    def where(self, key: str) -> str:
        """File and key."""
        return f"{self._file}: {'.'.join(filter(None, [self._place, key])) or 'top'}"

    def error(self, key: str, what: str, instead: str) -> ConfigError:
        """An error at a key."""
        return ConfigError(what, where=self.where(key), instead=instead)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._content

    def take(self, key: str, kind: type, default: Any = MISSING) -> Any:
        """The value of a key, checked to be of a kind."""
        self._read.add(key)
        if key not in self._content:
            if default is MISSING:
                raise self.error(key, f"the key {key} is missing", f"{key}: <{kind.__name__}>")
            return default
        value = self._content[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"{value!r} is no {kind.__name__}", f"{key}: <{kind.__name__}>")
        return value

    def number(self, key: str, default: Any = MISSING) -> Any:
        """A number."""
        self._read.add(key)
        value = self._content.get(key, default)
        if value is MISSING:
            raise self.error(key, f"the key {key} is missing", f"{key}: <number>")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"{value!r} is no number", f"{key}: <number>")
        return float(value)

    def choice(self, key: str, known: Sequence[str], default: Any = MISSING) -> Any:
        """One of some words."""
        value = self.take(key, str, default)
        if value is not default and value not in known:
            raise self.error(key, f"unknown {key} {value!r}", f"one of {', '.join(known)}")
        return value

    def choices(self, key: str, known: Sequence[str]) -> list[str]:
        """A list of some words."""
        values = self.names(key, required=False)
        for value in values:
            if value not in known:
                raise self.error(key, f"unknown {key} {value!r}", f"some of {', '.join(known)}")
        return values

    def names(self, key: str, required: bool = True) -> list[str]:
        """A name or a list of names."""
        self._read.add(key)
        value = self._content.get(key, [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.error(key, f"{value!r} is no list of names", f"{key}: [<name>, ...]")
        if required and not names:
            raise self.error(key, f"the key {key} is missing", f"{key}: [<name>, ...]")
        return names

    def last(self, key: str) -> str:
        """The last key of a node: it is read, and no other may be left."""
        value = self.take(key, str)
        self.done()
        return value

    def child(self, key: str) -> Node:
        """The mapping below a key."""
        return Node(self.take(key, dict), self._file, ".".join(filter(None, [self._place, key])))

    def texts(self, key: str, defaults: Any) -> dict[str, str]:
        """The texts below a key, for the fields of a dataclass; those that are not there as in ``defaults``."""
        found = vars(defaults)
        if self.has(key):
            entry = self.child(key)
            found = {name: entry.take(name, str, text) for name, text in found.items()}
            entry.done()
        return dict(found)

    def mapping(self, key: str) -> list[Node]:
        """A mapping of mappings."""
        place = ".".join(filter(None, [self._place, key]))
        return [
            Node(value, self._file, f"{place}.{name}") for name, value in self.take(key, dict, {}).items()
        ]

    def sequence(self, key: str, required: bool = True) -> list[Node]:
        """A list of mappings; each is named by its id where it has one."""
        values = self.take(key, list, MISSING if required else [])
        if required and not values:
            raise self.error(key, f"{key} is empty", "at least one entry")
        place = ".".join(filter(None, [self._place, key]))
        names = [
            value.get("id", str(number)) if isinstance(value, dict) else str(number)
            for number, value in enumerate(values, 1)
        ]
        return [
            Node(value, self._file, f"{place}[{name}]") for name, value in zip(names, values, strict=True)
        ]

    def done(self) -> None:
        """Refuse keys that nobody read, with the nearest one that would have been."""
        for key in self._content:
            if key not in self._read:
                near = difflib.get_close_matches(str(key), sorted(self._read), n=1)
                instead = f"{near[0]}?" if near else f"one of {', '.join(sorted(self._read))}"
                raise self.error(str(key), f"unknown key {key!r}", instead)


def read_yaml(path: Path) -> object:
    """A YAML file; a key that stands twice in a mapping is refused, not overwritten.

    Raises:
        ConfigError: no YAML, or such a key.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe loader that refuses double keys."""

        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands twice", node.start_mark
                    )
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:  # a wrong date is a ValueError
        raise ConfigError(f"not a readable YAML file: {error}", where=path) from None
