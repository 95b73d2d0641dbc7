"""Write the documentation that follows from the code: a page per stage, and the page of all configuration keys.

``docs/stages/<stage>.md`` comes from the script's docstring and command line and from its rule; its index
``docs/stages/README.md`` lists the stages in the order of the workflow; ``docs/configuration.md`` comes from the schema
in scripts/w2s/schema.py. ``--check`` writes nothing and fails with a diff where a file on disk differs (a test does).
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from w2s.schema import Config

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Written by `make docs` from the code: edit {source} instead. -->\n\n"
IMAGES = {"ml": "torch and the model libraries", "light": "no torch", None: "none (local)"}


class Caught(Exception):
    """Carries a stage's command line out of its ``main``."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@dataclass
class Rule:
    """What a page tells of a stage's rule."""

    name: str
    file: str
    image: str | None
    outputs: list[str]


# ---------------------------------------------------------------- stages


def rules(root: Path) -> list[Rule]:
    """All rules that run a script of the same name, in the order of the workflow."""
    found = []
    for file in re.findall(r'^include: "(rules/\w+\.smk)"', (root / "Snakefile").read_text(), re.MULTILINE):
        text = (root / file).read_text()
        for name, body in re.findall(r"^rule (\w+):\n((?:(?: .*)?\n)+)", text, re.MULTILINE):
            if f"scripts/{name}.py" in body:
                image = re.search(r'IMAGES\["(\w+)"\]', body)
                found.append(Rule(name, file, image[1] if image else None, outputs(body)))
    return found


def tools(root: Path) -> list[Rule]:
    """Scripts with a stage's command line that no rule runs."""
    staged = {rule.name for rule in rules(root)}
    scripts = sorted((root / "scripts").glob("*.py"))
    names = [
        path.stem for path in scripts if re.search(r"^    cli\.run\(main\)$", path.read_text(), re.MULTILINE)
    ]
    return [Rule(name, "", None, []) for name in names if name not in staged]


def outputs(body: str) -> list[str]:
    """The paths that a rule makes, with wildcards in angle brackets."""
    block = re.search(r"^    output:\n((?: {8}.*\n)+)", body, re.MULTILINE)
    paths = re.findall(r'f"(\{(?:ROOT|CONFIG\.resources)\}/[^"]+)"', block[1] if block else "")
    names = {
        "{ROOT}": "results/<preset>",
        "{CONFIG.resources}": "resources",
        "{CELL}": "<data>/<share>/seed-<seed>",
        "{STUDENT}": "<task>/seed-<seed>/weak-<weak>/refiner-<refiner>/<refinement>",
    }
    for placeholder, name in names.items():
        paths = [path.replace(placeholder, name) for path in paths]
    return [re.sub(r"\{\{(\w+)\}\}", r"<\1>", path) for path in paths]


def load(path: Path) -> ModuleType:
    """A stage's script as a module. Scripts import heavy libraries only after their arguments are parsed."""
    spec = importlib.util.spec_from_file_location(f"stage_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def command_line(module: ModuleType) -> argparse.ArgumentParser:
    """The parser that a stage's ``main`` makes."""

    def catch(parser: argparse.ArgumentParser, _argv: object = None) -> None:
        raise Caught(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch):
        try:
            module.main([])
        except Caught as caught:
            return caught.parser
    raise AssertionError(f"{module.__name__}.main parses no arguments")


def stage_page(root: Path, rule: Rule) -> str:
    """The page of one stage."""
    module = load(root / "scripts" / f"{rule.name}.py")
    title, _, body = (module.__doc__ or "").strip().partition("\n\n")
    lines = [
        NOTICE.format(source=f"scripts/{rule.name}.py") + f"# {rule.name}",
        "",
        markdown(title),
        "",
        markdown(body),
        "",
        *origin(rule),
        "",
        "## Command line",
        "",
        f"`python scripts/{rule.name}.py` with:",
        "",
    ]
    for group in command_line(module)._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if actions:
            title = (group.title or "").replace("manifest.json", "`manifest.json`")
            lines += [f"### {title[:1].upper()}{title[1:]}", "", *table(actions), ""]
    return "\n".join(lines)


def origin(rule: Rule) -> list[str]:
    """Where a stage's code is and what it makes, as lines."""
    script = f"[scripts/{rule.name}.py](../../scripts/{rule.name}.py)"
    if not rule.file:
        return [f"Script {script}, run by hand; no rule uses it."]
    where = f"Rule `{rule.name}` in [{rule.file}](../../{rule.file}), script {script}"
    image = f"image: {rule.image or 'none'} ({IMAGES[rule.image]})"
    return [f"{where}, {image}. Makes:", "", *(f"- `{path}`" for path in rule.outputs)]


def table(actions: list[argparse.Action]) -> Iterator[str]:
    """A group of arguments as a Markdown table."""
    yield "| argument | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for action in actions:
        name = (action.option_strings or [action.dest])[0]
        yield f"| `{name}` | {value(action)} | {default(action)} | {cell(action.help or '')} |"


def value(action: argparse.Action) -> str:
    """What an argument takes, in words."""
    if isinstance(action, argparse._StoreTrueAction):
        return "(switch)"
    if action.choices is not None:
        kind = ", ".join(f"`{choice}`" for choice in action.choices)
    else:
        kind = cell(getattr(action.type, "__name__", "text").replace("_", " "))
        kind = {
            "str": "text",
            "int": "whole number",
            "float": "number",
            "Path": "path",
            "positive int": "whole number from 1",
        }.get(kind, kind)
    return kind + {"*": ", any number of them", "+": ", one or more"}.get(str(action.nargs), "")


def default(action: argparse.Action) -> str:
    """An argument's default, in words."""
    if action.required:
        return "required"
    if action.default is None or action.default is False or action.default in ([], ""):
        return ""
    return f"`{action.default}`".replace("\n", "\\n")


def markdown(text: str) -> str:
    """A docstring as Markdown: code in backticks, ``key: text`` paragraphs as lists, everything else as it stands."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if all(line.startswith("    ") for line in lines):
            paragraphs.append("```\n" + "\n".join(line[4:] for line in lines) + "\n```")
        elif (
            re.match(r"[a-z][a-z ]*: ", lines[0])
            and any(line.startswith(" ") for line in lines)
            or keyed(lines)
        ):
            paragraphs.append(definitions(lines))
        else:
            paragraphs.append("\n".join(escaped(line) for line in lines))
    return "\n\n".join(paragraphs)


def keyed(lines: list[str]) -> bool:
    """Whether each line begins with a key and a colon."""
    return all(re.match(r"[a-z][a-z ]*: ", line) for line in lines)


def definitions(lines: list[str]) -> str:
    """Lines ``key: text``, continued by indented ones, as a Markdown list."""
    items: list[str] = []
    for line in lines:
        key = re.match(r"([a-z][a-z ]*):\s+(.*)", line)
        if key:
            items.append(f"- **{key[1]}**: {escaped(key[2])}")
        else:
            items[-1] += " " + escaped(line.strip())
    return "\n".join(items)


def escaped(text: str) -> str:
    """Docstring text with ``code`` as `code`, and characters that Markdown would take for markup escaped."""
    text = re.sub(r":mod:`w2s\.(\w+)`", r"``scripts/w2s/\1.py``", text)
    text = re.sub(r":\w+:`([^`]+)`", r"``\1``", text)
    parts = re.split(r"``(.+?)``", text)
    return "".join(
        f"`{part}`" if odd % 2 else re.sub(r"([*_<])", r"\\\1", part) for odd, part in enumerate(parts)
    )


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return escaped(" ".join(text.split())).replace("|", "\\|")


def index_page(root: Path, found: list[Rule]) -> str:
    """The list of stages, by file of rules."""
    lines = [NOTICE.format(source="the docstrings of scripts/*.py") + "# Stages", ""]
    lines += ["One rule, one script, one page each; in the order of the workflow.", ""]
    for file in dict.fromkeys(rule.file for rule in found):
        text = (root / file).read_text()
        lines += [f"## {Path(file).stem}", ""]
        lines += [markdown(text.splitlines()[0].removeprefix("# ")), ""] if text.startswith("# ") else []
        lines += [entry(root, rule) for rule in found if rule.file == file]
        lines.append("")
    lines += [
        "## tools",
        "",
        "Run by hand, on what a run has left.",
        "",
        *(entry(root, rule) for rule in tools(root)),
    ]
    return "\n".join(lines)


def entry(root: Path, rule: Rule) -> str:
    """A line of the index."""
    summary = (load(root / "scripts" / f"{rule.name}.py").__doc__ or "").strip().split("\n\n")[0]
    return f"- [{rule.name}]({rule.name}.md): {escaped(' '.join(summary.split()))}"


# ---------------------------------------------------------------- configuration

INTRODUCTION = """# Configuration

`config.yaml` is the catalogue; a preset (`presets/*.yaml`, or a file of your own given by `--configfile`) is laid over it:
mappings are merged, anything else is replaced. Everything is checked before the first job: an unknown key is refused with
the nearest valid one, a wrong value with file, key and what to write instead. Numbers may be written `5e-7`; YAML reads
that as text, the schema reads it as the number.

"""


def configuration_page(schema: dict[str, Any]) -> str:
    """All keys of the configuration, from a JSON schema."""
    lines = [
        NOTICE.format(source="scripts/w2s/schema.py") + INTRODUCTION + "## Top level",
        "",
        *keys(schema),
        "",
    ]
    for name in referred(schema, schema["$defs"]):
        entry = schema["$defs"][name]
        lines += [f"## {name}", "", escaped(entry.get("description", "")), "", *keys(entry), ""]
    return "\n".join(lines)


def referred(node: Any, definitions: Mapping[str, Any], seen: dict[str, None] | None = None) -> list[str]:
    """Names of the definitions in the order in which the keys lead to them."""
    seen = {} if seen is None else seen
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        if child is not definitions:
            referred(child, definitions, seen)
    if isinstance(node, dict) and "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        if name not in seen:
            seen[name] = None
            referred(definitions[name], definitions, seen)
    return list(seen)


def keys(entry: dict[str, Any]) -> Iterator[str]:
    """The keys of one mapping as a Markdown table."""
    yield "| key | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, node in entry.get("properties", {}).items():
        if name in entry.get("required", []):
            standard = "required"
        elif isinstance(node.get("default"), dict | list) and not node["default"]:
            standard = "none"
        elif isinstance(node.get("default"), dict):
            standard = "its keys' defaults"
        else:
            standard = f"`{spelt(node.get('default'))}`"
        yield f"| `{name}` | {kind(node)} | {standard} | {cell(node.get('description', ''))} |"


def spelt(value: object) -> str:
    """A default as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(spelt(item) for item in value) + "]"
    if value is None or value == "":
        return "null" if value is None else '""'
    return str(value).replace("\n", "\\n")


def kind(node: dict[str, Any]) -> str:
    """The type of a value, in words."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in node or "allOf" in node:
        return " or ".join(kind(branch) for branch in node.get("anyOf", []) + node.get("allOf", []))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{spelt(choice)}`" for choice in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "array":
            return f"list of: {kind(node.get('items', {}))}"
        case "object":
            entries = node.get("additionalProperties") or next(
                iter(node.get("patternProperties", {}).values()), None
            )
            return f"name -> {kind(entries)}" if isinstance(entries, dict) else "mapping"
        case "string":
            return "text"
        case "null":
            return "null"
        case "boolean":
            return "true, false"
        case "integer" | "number" as number:
            word = "whole number" if number == "integer" else "number"
            return ", ".join([word, *bounds(node)])
    return "any"


def bounds(node: dict[str, Any]) -> Iterator[str]:
    """The limits of a number, in words."""
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
    return (f"{word} {node[key]:g}" for key, word in words.items() if key in node)


# ---------------------------------------------------------------- files


def pages(root: Path = ROOT) -> dict[str, str]:
    """Path (from the root) -> text of every page."""
    found = rules(root)
    made = {f"docs/stages/{rule.name}.md": stage_page(root, rule) for rule in [*found, *tools(root)]}
    made["docs/stages/README.md"] = index_page(root, found)
    made["docs/configuration.md"] = configuration_page(Config.model_json_schema())
    return {path: re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n" for path, text in made.items()}


def differences(made: dict[str, str], root: Path = ROOT) -> str:
    """A unified diff from the pages on disk to the ones that follow from the code; empty if they are the same."""
    on_disk = {
        str(path.relative_to(root)): path.read_text() for path in (root / "docs" / "stages").glob("*.md")
    }
    page = root / "docs" / "configuration.md"
    on_disk |= {"docs/configuration.md": page.read_text()} if page.is_file() else {}
    lines: list[str] = []
    for name in sorted(made.keys() | on_disk.keys()):
        old, new = on_disk.get(name, ""), made.get(name, "")
        lines += difflib.unified_diff(
            old.splitlines(True), new.splitlines(True), name, f"{name} (from the code)"
        )
    return "".join(lines)


def write(made: dict[str, str], root: Path = ROOT) -> None:
    """Write all pages, and remove those of stages that are no more."""
    for path in (root / "docs" / "stages").glob("*.md"):
        if str(path.relative_to(root)) not in made:
            path.unlink()
    for name, text in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a page is not up to date"
    )
    if parser.parse_args().check:
        changes = differences(pages())
        print(
            changes + "error: these pages are not up to date\n  instead: make docs"
            if changes
            else "up to date"
        )
        return 1 if changes else 0
    write(pages())
    return 0


if __name__ == "__main__":
    sys.exit(main())
