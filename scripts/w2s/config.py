"""Loading the configuration: ``config.yaml`` and presets against the schema, before any job starts.

Unknown keys are refused with the nearest valid one, wrong types and dangling names are reported with file, key and
what to write instead. Nothing here imports a model library: the Snakefile parses this on each cluster node.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from w2s.errors import ConfigError, W2SError
from w2s.schema import COMMIT, DPO, NAME, SHA256, SHARE, Config, Experiment, Recipe

# Which keys hold the name of an entry of which section: (section, key path) -> section referred to.
REFERENCES: tuple[tuple[str, str, str], ...] = (
    ("tokenizers", "source", "sources"),
    ("tokenizers", "corpus", "corpora"),
    ("corpora", "world", "worlds"),
    ("corpora", "data", "data"),
    ("data", "files.source", "sources"),
    ("data", "world", "worlds"),
    ("data", "tokenizer", "tokenizers"),
    ("models", "source", "sources"),
    ("models", "tokenizer", "tokenizers"),
    ("models", "pretrain.tokenizer", "tokenizers"),
    ("models", "pretrain.corpus", "corpora"),
    ("models", "reward.base", "models"),
    ("models", "reward.data", "data"),
    ("golds", "model", "models"),
    ("golds", "world", "worlds"),
    ("feedback", "teacher", "models"),
    ("feedback", "recipe", "recipes"),
    ("evaluations", "golds", "golds"),
    ("experiments", "data", "data"),
    ("experiments", "students", "models"),
    ("experiments", "feedback", "feedback"),
    ("experiments", "recipe", "recipes"),
    ("experiments", "evaluation", "evaluations"),
)


def load_config(raw: Mapping[str, Any], files: Sequence[str | Path] = ()) -> Config:
    """Validate a merged configuration.

    Args:
        raw: the merged mapping, as Snakemake holds it.
        files: the YAML files it was merged from, the winning ones last; used to name the place of an error.

    Raises:
        ConfigError: listing every problem with file, key and what to write instead.
    """
    places = _Places(files)
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise _as_config_error(error, places) from None
    problems = [*_dangling(config, places), *_impossible(config, places), *_without_effect(config, places)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: no valid YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"not a readable YAML file: {error}", where=path) from None
    if not isinstance(content, dict):
        raise ConfigError("the file holds no mapping of keys", where=path)
    return content


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay one configuration on another as Snakemake does: mappings are merged, anything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def expand_origin(origin: str, source: str) -> str:
    """A local source's path with ``${VARIABLE}`` replaced from the environment.

    Raises:
        ConfigError: the variable is not set.
    """
    missing = [name for name in re.findall(r"\$\{(\w+)\}", origin) if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"the environment variable {missing[0]} is not set",
            where=f"sources.{source}.origin: {origin}",
            instead=f"export {missing[0]}=<folder>, or give the path itself in the configuration",
        )
    return os.path.expandvars(origin)


def nearest(word: str, valid: Iterable[str]) -> str:
    """What to write instead of ``word``."""
    choices = list(valid)
    begun = [choice for choice in choices if word and choice.startswith(word)]
    close = begun or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"{close[0]} (nearest of: {', '.join(sorted(choices))})"
    return f"one of: {', '.join(sorted(choices)) or '(none is declared)'}"


class _Places:
    """Finds the file that a key was written in."""

    def __init__(self, files: Sequence[str | Path]) -> None:
        self._contents = [(str(file), read_yaml(Path(file))) for file in files]

    def of(self, keys: Sequence[object]) -> str:
        """``file: key.path``; the last file that sets the key wins, as in the merge."""
        dotted = ".".join(map(str, keys))
        depth_and_file = [
            (self._depth(content, keys), index, name) for index, (name, content) in enumerate(self._contents)
        ]
        if not depth_and_file or max(depth_and_file)[0] == 0:
            return dotted
        return f"{max(depth_and_file)[2]}: {dotted}"

    @staticmethod
    def _depth(content: object, keys: Sequence[object]) -> int:
        for depth, key in enumerate(keys):
            is_key = isinstance(content, Mapping) and key in content
            is_index = isinstance(content, list) and isinstance(key, int) and key < len(content)
            if not (is_key or is_index):
                return depth
            content = content[key]  # type: ignore[index]
        return len(keys)


FORMS = {
    NAME: "a name of letters, digits, dots, dashes and underscores that begins with a letter or digit",
    COMMIT: "a commit hash, 40 hex digits; a name such as 'main' moves",
    SHA256: "a SHA-256 digest, 64 hex digits",
    SHARE: "a fraction, such as 1/2",
}
# pydantic's type of error -> what is wrong, what to write instead; others keep pydantic's words
MESSAGES = {
    "float_type": ("a number is expected", "a number, such as 0.1 or 5.0e-7"),
    "float_parsing": ("a number is expected", "a number, such as 0.1 or 5.0e-7"),
    "finite_number": ("a finite number is expected", "a number, such as 0.1 or 5.0e-7"),
    "int_type": ("a whole number is expected", "a whole number, such as 16"),
    "int_parsing": ("a whole number is expected", "a whole number, such as 16"),
    "bool_type": ("true or false is expected", "true or false"),
    "bool_parsing": ("true or false is expected", "true or false"),
    "string_type": ("a text is expected", "the text, in quotes if it looks like a number"),
    "list_type": ("a list is expected", "a list: [a, b] or lines that begin with '- '"),
    "dict_type": ("a mapping of keys is expected", "key: value"),
    "invalid_key": ("a key must be a text", "the key in quotes"),
    "too_short": ("the list is empty", "at least one entry"),
}


def _as_config_error(error: ValidationError, places: _Places) -> ConfigError:
    # An unknown key comes first: the missing ones often follow from it.
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    return ConfigError("\n".join(_described(problem, places) for problem in problems))


def _described(problem: Mapping[str, Any], places: _Places) -> str:
    """One problem as the lines of a message: what, where, instead."""
    keys = [key for key in problem["loc"] if key != "[key]"]
    given = problem["input"]
    shown = f" (got {given!r})" if given is None or isinstance(given, str | int | float | bool | list) else ""
    context = problem.get("ctx", {})
    instead: str | None
    match problem["type"]:
        case "extra_forbidden":
            what, instead = f"unknown key {keys[-1]!r}", nearest(str(keys[-1]), _valid_keys(keys[:-1]))
        case "missing":
            what, instead = f"key {keys[-1]!r} is missing", "add it"
        case "literal_error":
            what, instead = f"not a valid value{shown}", context["expected"]
        case "string_pattern_mismatch":
            what, instead = f"not in the right form{shown}", FORMS.get(context["pattern"], context["pattern"])
        case "value_error":
            what, instead = problem["msg"].removeprefix("Value error, "), None
            what += "" if repr(given) in what else shown
        case kind:
            what, instead = MESSAGES.get(kind, (problem["msg"], None))
            what += shown
    return str(W2SError(what, where=places.of(keys), instead=instead))


def _valid_keys(keys: Sequence[object]) -> list[str]:
    """Keys that the schema allows in the mapping at ``keys``."""
    schema = Config.model_json_schema()
    node: dict[str, Any] = schema
    for key in keys:
        node = _resolve(schema, node)
        properties = node.get("properties", {})
        if key in properties:
            node = properties[key]
        elif "items" in node:
            node = node["items"]
        else:
            extra: Any = node.get("additionalProperties") or next(
                iter(node.get("patternProperties", {}).values()), {}
            )
            node = extra if isinstance(extra, dict) else {}
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for branch in node.get("anyOf", []):
        if branch.get("type") != "null":
            return _resolve(schema, branch)
    if "$ref" in node:
        return _resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]])
    return node


def _dangling(config: Config, places: _Places) -> list[str]:
    """References to entries that do not exist."""
    problems = []
    checks: list[tuple[list[object], str, str]] = [
        (["run", index], name, "experiments") for index, name in enumerate(config.run)
    ]
    for section, dotted, target in REFERENCES:
        for entry_name, entry in getattr(config, section).items():
            for keys, name in _values(entry, dotted.split(".")):
                checks.append(([section, entry_name, *keys], name, target))
    for recipe_name, recipe in config.recipes.items():
        checks += [
            (["recipes", recipe_name, "per_model", model], model, "models") for model in recipe.per_model
        ]
    for keys, name, target in checks:
        entries = getattr(config, target)
        if name not in entries:
            problems.append(
                f"{name!r} is not declared under {target}\n  where:   {places.of(keys)}\n"
                f"  instead: {nearest(name, entries)}"
            )
    return problems


def _values(entry: object, keys: list[str]) -> list[tuple[list[object], str]]:
    """(key path, value) of the names at a key path, lists walked through, absent ones left out."""
    if isinstance(entry, list | tuple):
        found = []
        for index, item in enumerate(entry):
            found.extend([([index, *path], value) for path, value in _values(item, keys)])
        return found
    if not keys:
        return [([], entry)] if isinstance(entry, str) else []
    value = getattr(entry, keys[0], None)
    if value is None:
        return []
    return [([keys[0], *path], name) for path, name in _values(value, keys[1:])]


def _impossible(config: Config, places: _Places) -> list[str]:
    """Combinations that each key alone does not show, for the experiments that are to run."""
    problems = []

    def complain(keys: Sequence[object], what: str, instead: str) -> None:
        problems.append(_problem(places, keys, what, instead))

    for name, feedback_entry in config.feedback.items():
        if name.split("-")[0] != feedback_entry.policy:
            complain(
                ["feedback", name],
                f"feedback {name!r} follows policy {feedback_entry.policy!r}: tables and figures read the policy from its name",
                f"{feedback_entry.policy}-{name}",
            )
    for name in config.run:
        experiment = config.experiments.get(name)
        if experiment is None or not _resolvable(config, experiment):
            continue
        human = config.feedback.get("human")
        if _teachers(config, experiment) and (human is None or human.policy != "human"):
            complain(["feedback", "human"], "teachers learn from feedback 'human'", "human: {policy: human}")
        for data_name in experiment.data:
            data = config.data[data_name]
            for feedback in experiment.feedback:
                if config.feedback[feedback].policy == "gold" and data.world is None:
                    complain(
                        ["experiments", name, "feedback"],
                        f"feedback {feedback!r} takes exact labels, but data set {data_name!r} is no world and has none",
                        "leave it out, or use a data set with adapter: world",
                    )
            for gold in config.evaluations[experiment.evaluation].golds:
                world = config.golds[gold].world
                if world is not None and world != data.world:
                    complain(
                        ["evaluations", experiment.evaluation, "golds"],
                        f"judge {gold!r} knows world {world!r}, but data set {data_name!r} is not of that world",
                        "a judge with a reward model, or a data set of that world",
                    )
            longest = data.max_tokens + 1  # the end-of-sequence token on top
            for model in [*experiment.students, *_teachers(config, experiment)]:
                positions = _positions(config, model)
                if positions is not None and positions < longest:
                    complain(
                        ["data", data_name, "max_tokens"],
                        f"sequences of up to {longest} tokens (end-of-sequence token included) do not fit"
                        f" into the {positions} positions of model {model!r}",
                        f"max_tokens: {positions - 1} or less, or a model with more positions",
                    )
        for student in experiment.students:
            if config.models[student].reward is not None:
                complain(
                    ["experiments", name, "students"], f"{student!r} is a reward model", "a language model"
                )
        if len(set(experiment.seeds)) < len(experiment.seeds):
            complain(["experiments", name, "seeds"], "a seed occurs twice", "each seed once")
    return problems


def _without_effect(config: Config, places: _Places) -> list[str]:
    """Settings of DPO that would change no result: whoever writes them means something else."""
    problems = []
    for name, recipe in config.recipes.items():
        for model in [None, *recipe.per_model]:
            dpo, keys = _dpo(name, recipe, model, "label_smoothing")
            if dpo.label_smoothing and dpo.loss_type != "robust":
                what = f"label_smoothing is not read by loss_type: {dpo.loss_type}"
                problems.append(_problem(places, keys, what, "0, or loss_type: robust"))
    for experiment in (config.experiments[name] for name in config.run if name in config.experiments):
        if not _resolvable(config, experiment) or "dpo" not in experiment.steps:
            continue
        if any(config.feedback[name].policy != "human" for name in experiment.feedback):
            continue
        for student, key in itertools.product(experiment.students, ("soft_labels", "confidence_weights")):
            dpo, keys = _dpo(experiment.recipe, config.recipes[experiment.recipe], student, key)
            if getattr(dpo, key):
                what = f"{key} changes nothing for {student!r}: it learns from people's labels only, which are certain"
                instead = "false, or a feedback of policy weak among the experiment's"
                problems.append(_problem(places, keys, what, instead))
    return list(dict.fromkeys(problems))


def _dpo(name: str, recipe: Recipe, model: str | None, key: str) -> tuple[DPO, list[object]]:
    """A recipe's DPO settings for a model (None: for those without settings of their own), and where ``key`` is set."""
    if model is None:
        return recipe.dpo, ["recipes", name, "dpo", key]
    own = getattr(recipe.per_model.get(model), "dpo", None)
    from_own = getattr(own, key, None) is not None
    place = ["per_model", model] if from_own else []
    dpo = recipe.step(model, "dpo")
    assert isinstance(dpo, DPO)
    return dpo, ["recipes", name, *place, "dpo", key]


def _problem(places: _Places, keys: Sequence[object], what: str, instead: str) -> str:
    return f"{what}\n  where:   {places.of(keys)}\n  instead: {instead}"


def _resolvable(config: Config, experiment: Experiment) -> bool:
    """Whether all names of the experiment are declared (if not, the dangling ones are reported already)."""
    return (
        set(experiment.data) <= set(config.data)
        and set(experiment.students) <= set(config.models)
        and set(experiment.feedback) <= set(config.feedback)
        and experiment.recipe in config.recipes
        and experiment.evaluation in config.evaluations
        and set(config.evaluations[experiment.evaluation].golds) <= set(config.golds)
        and {config.feedback[name].teacher for name in experiment.feedback} - {None} <= set(config.models)
    )


def _teachers(config: Config, experiment: Experiment) -> list[str]:
    teachers = {config.feedback[name].teacher for name in experiment.feedback}
    return sorted(teacher for teacher in teachers if teacher is not None)


def _positions(config: Config, model: str) -> int | None:
    entry = config.models[model]
    return entry.pretrain.positions if entry.pretrain else entry.positions
