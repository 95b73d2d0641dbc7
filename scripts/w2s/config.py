"""Loading the configuration: ``config.yaml`` and presets against the schema, before any job starts.

Unknown keys are refused with the nearest valid one, wrong types and dangling names are reported with file, key and
what to write instead. Nothing here imports a model library: the Snakefile parses this on each cluster node.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from w2s import checked_yaml
from w2s.errors import ConfigError, W2SError
from w2s.feedback import POLICIES, Policy, check_options, find_policy
from w2s.schema import Config, Experiment, Feedback
from w2s.schema_recipes import DPO, Recipe
from w2s.sections import COMMIT, NAME, SHA256, SHARE
from w2s.transfer_checks import transfer_complaints

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
    ("judges", "world", "worlds"),
    ("recipes", "sft_of", "recipes"),
    ("feedback", "teacher", "models"),
    ("feedback", "recipe", "recipes"),
    ("feedback", "judge", "judges"),
    ("feedback", "of", "feedback"),
    ("evaluations", "golds", "golds"),
    ("experiments", "data", "data"),
    ("experiments", "students", "models"),
    ("experiments", "feedback", "feedback"),
    ("experiments", "recipes", "recipes"),
    ("experiments", "evaluation", "evaluations"),
    ("experiments", "golds", "golds"),
    ("experiments", "comparison.judge", "judges"),
    ("experiments", "votes.judge", "judges"),
    ("experiments", "similarity.encoder", "models"),
    ("corpora", "concepts", "concepts"),
    ("questions", "files.source", "sources"),
    ("questions", "world", "concepts"),
    ("questions", "written.writer", "writers"),
    ("questions", "written.topics", "questions"),
    ("writers", "model", "models"),
    ("writers", "endpoint", "judges"),
    ("tasks", "train", "questions"),
    ("tasks", "world", "concepts"),
    ("refinements", "fine_tuning", "fine_tunings"),
    ("refinements", "through.base", "writers"),
    ("refinements", "through.refinement", "refinements"),
    ("refinements", "through.fine_tuning", "fine_tunings"),
    ("transfers", "task", "tasks"),
    ("transfers", "weak", "writers"),
    ("transfers", "references", "writers"),
    ("transfers", "students.refiner", "writers"),
    ("transfers", "students.base", "writers"),
    ("transfers", "refinements", "refinements"),
    ("transfers", "fine_tuning", "fine_tunings"),
)
# Sections whose entries can be run.
RUNNABLE = ("experiments", "transfers", "mixtures")


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
    problems = [*_dangling(config, places), *_misdeclared(config, places)]
    if not problems:
        problems = [*_impossible(config, places), *_without_effect(config, places)]
        problems += [_problem(places, *complaint) for complaint in transfer_complaints(config)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: no valid YAML, a key that stands twice, or no mapping.
    """
    content = checked_yaml.read_yaml(path)
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
    schema = _schema()
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


@functools.cache
def _schema() -> dict[str, Any]:
    return Config.model_json_schema()


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
        (["run", index], name, "experiments")
        for index, name in enumerate(config.run)
        if not any(name in getattr(config, section) for section in RUNNABLE)
    ]
    for section, dotted, target in REFERENCES:
        for entry_name, entry in getattr(config, section).items():
            for keys, name in _values(entry, dotted.split(".")):
                checks.append(([section, entry_name, *keys], name, target))
    for recipe_name, recipe in config.recipes.items():
        checks += [
            (["recipes", recipe_name, "per_model", model], model, "models") for model in recipe.per_model
        ]
    for task_name, task in config.tasks.items():
        checks += [(["tasks", task_name, "tests", name], name, "questions") for name in task.tests]
        checks += [
            (["tasks", task_name, "tests", name, "ratings", "judge"], test.ratings.judge, "judges")
            for name, test in task.tests.items()
            if test.ratings
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


def _misdeclared(config: Config, places: _Places) -> list[str]:
    """Recipes and feedback that cannot mean anything, whatever is run."""
    problems = []
    for name, recipe in config.recipes.items():
        root = config.recipes.get(recipe.sft_of or "")
        if root is not None and root.sft is None:
            instead = "the recipe that has the key sft itself"
            what = f"recipe {recipe.sft_of!r} has no SFT of its own"
            problems.append(_problem(places, ["recipes", name, "sft_of"], what, instead))
    for name, entry in config.feedback.items():
        found = _feedback_problem(config, name, entry)
        if found is not None:
            key, what, instead = found
            problems.append(_problem(places, ["feedback", name, key], what, instead))
    return problems


# What a policy takes -> keys of its feedback; of a policy that takes nothing, none of them.
KEYS_OF_INPUT: dict[str | None, tuple[str, ...]] = {
    "scores": ("teacher", "recipe"),
    "rewards": ("teacher", "recipe"),
    "preferences": ("judge",),
    "labels": ("of",),
    None: (),
}


def _feedback_problem(config: Config, name: str, entry: Feedback) -> tuple[str, str, str] | None:
    """The first fault of a feedback: (key, what is wrong, what to write instead)."""
    if entry.policy not in POLICIES:
        return "policy", f"{entry.policy!r} is no feedback policy", nearest(entry.policy, POLICIES)
    policy = find_policy(entry.policy)
    if name.split("-")[0] != entry.policy:
        what = f"feedback {name!r} follows policy {entry.policy!r}: tables and figures read the policy from its name"
        return "policy", what, f"the name {entry.policy}-{name}"
    wanted = KEYS_OF_INPUT[policy.takes]
    for key in ("teacher", "recipe", "judge", "of"):
        if key in wanted and not getattr(entry, key):
            return key, f"policy {entry.policy!r} needs the keys {', '.join(wanted)}", "add it"
        if key not in wanted and getattr(entry, key):
            return key, f"policy {entry.policy!r} takes no {key}", "leave it out"
    if entry.teacher in config.models and config.models[entry.teacher].reward is not None:
        what = f"{entry.teacher!r} is a reward model: it has learnt from labels of the examples that it is to label"
        return "teacher", what, "a language model, which the workflow trains on D_l alone"
    if policy.takes == "labels" and name in _ancestors(config, name):
        return "of", f"feedback {name!r} begins with itself", "a feedback that needs no other, in the end"
    return _recipe_or_option_problem(config, entry, policy)


def _recipe_or_option_problem(config: Config, entry: Feedback, policy: Policy) -> tuple[str, str, str] | None:
    recipe = config.recipes.get(entry.recipe or "")
    step = "reward" if policy.takes == "rewards" else "dpo"
    if recipe is not None and getattr(recipe, step) is None:
        return "recipe", f"policy {entry.policy!r} needs a recipe with the key {step}", "another recipe"
    if recipe is not None and step == "dpo" and recipe.without_sft:
        return "recipe", "a teacher begins with SFT", "a recipe with the key sft or sft_of"
    try:
        check_options(policy, entry.options)
    except ConfigError as error:
        return "options", error.what, str(error.instead)
    return None


def _ancestors(config: Config, name: str) -> set[str]:
    """All feedback that a feedback's labels are made of."""
    found: set[str] = set()
    queue = list(config.feedback[name].of)
    while queue:
        other = queue.pop()
        if other not in found and other in config.feedback:
            found.add(other)
            queue += config.feedback[other].of
    return found


def _impossible(config: Config, places: _Places) -> list[str]:
    """Combinations that each key alone does not show, for the experiments that are to run."""
    problems = []
    for name in filter(config.experiments.__contains__, config.run):
        experiment = config.experiments[name]
        for keys, what, instead in itertools.chain(
            _students_problems(config, experiment),
            _world_problems(config, experiment),
            _length_problems(config, experiment),
            _arm_problems(config, experiment),
        ):
            place = keys if keys[0] in ("data", "feedback", "evaluations") else ["experiments", name, *keys]
            problems.append(_problem(places, place, what, instead))
    return list(dict.fromkeys(problems))


Complaint = tuple[list[object], str, str]


def _students_problems(config: Config, experiment: Experiment) -> Iterable[Complaint]:
    """Students and seeds."""
    for student in experiment.students:
        if config.models[student].reward is not None:
            yield ["students"], f"{student!r} is a reward model", "a language model"
    for recipe_name in experiment.recipes:
        recipe = config.recipes[recipe_name]
        if recipe.dpo is None:
            yield (
                ["recipes"],
                f"recipe {recipe_name!r} has no DPO: it is a reward model's",
                "a recipe with dpo",
            )
        if recipe.same_steps_as is not None:
            what = f"recipe {recipe_name!r} has same_steps_as, which is for teachers only"
            yield ["recipes"], what, "a recipe without it"
    if len(set(experiment.seeds)) < len(experiment.seeds):
        yield ["seeds"], "a seed occurs twice", "each seed once"


def _arm_problems(config: Config, experiment: Experiment) -> Iterable[Complaint]:
    """Arms that a measurement compares."""
    human = config.feedback.get("human")
    needs_human = any(_teachers(config, experiment))
    if needs_human and (human is None or human.policy != "human"):
        yield ["feedback", "human"], "teachers learn from feedback 'human'", "human: {policy: human}"
    for key in ("comparison", "similarity"):
        if getattr(experiment, key) is not None and "human" not in experiment.feedback:
            yield ["feedback"], f"{key} needs the arm 'human'", "human among the experiment's feedback"
    if experiment.examples and not any(
        config.feedback[name].policy == "mismatch" for name in experiment.feedback
    ):
        what = "examples are drawn from the disagreement set"
        yield ["feedback"], what, "a feedback of policy mismatch among the experiment's"


def _world_problems(config: Config, experiment: Experiment) -> Iterable[Complaint]:
    """Exact labels and judges that know a world, on data of another one or of none."""
    for data_name in experiment.data:
        data = config.data[data_name]
        for feedback in experiment.feedback:
            if config.feedback[feedback].policy == "gold" and data.world is None:
                what = f"feedback {feedback!r} takes exact labels, but data set {data_name!r} is no world and has none"
                yield ["feedback"], what, "leave it out, or use a data set with adapter: world"
        for gold in golds_of(config, experiment):
            world = config.golds[gold].world
            if world is not None and world != data.world:
                place = ["golds"] if experiment.golds else ["evaluations", experiment.evaluation, "golds"]
                what = (
                    f"judge {gold!r} knows world {world!r}, but data set {data_name!r} is not of that world"
                )
                yield list(place), what, "a judge with a reward model, or a data set of that world"
        for judge in _judges(config, experiment):
            world = config.judges[judge].world
            if world is not None and world != data.world:
                what = (
                    f"judge {judge!r} knows world {world!r}, but data set {data_name!r} is not of that world"
                )
                yield ["data"], what, "a judge behind an endpoint, or a data set of that world"


def _length_problems(config: Config, experiment: Experiment) -> Iterable[Complaint]:
    """Sequences that a model has no positions for."""
    for data_name in experiment.data:
        longest = config.data[data_name].max_tokens + 1  # the end-of-sequence token on top
        for model in dict.fromkeys([*experiment.students, *_teachers(config, experiment)]):
            positions = _positions(config, model)
            if positions is not None and positions < longest:
                yield (
                    ["data", data_name, "max_tokens"],
                    f"sequences of up to {longest} tokens (end-of-sequence token included) do not fit"
                    f" into the {positions} positions of model {model!r}",
                    f"max_tokens: {positions - 1} or less, or a model with more positions",
                )


def golds_of(config: Config, experiment: Experiment) -> list[str]:
    """The gold models of an experiment, the main one first."""
    return experiment.golds or config.evaluations[experiment.evaluation].golds


def _judges(config: Config, experiment: Experiment) -> list[str]:
    feedback = [config.feedback[name].judge for name in all_feedback(config, experiment)]
    others = [item.judge for item in (experiment.comparison, experiment.votes) if item is not None]
    return list(dict.fromkeys([*filter(None, feedback), *others]))


def all_feedback(config: Config, experiment: Experiment) -> list[str]:
    """The feedback of an experiment and all that it is made of."""
    names = list(experiment.feedback)
    for name in experiment.feedback:
        names += sorted(_ancestors(config, name))
    return list(dict.fromkeys(names))


def _without_effect(config: Config, places: _Places) -> list[str]:
    """Settings of DPO that would change no result: whoever writes them means something else."""
    problems = []
    for name, recipe in config.recipes.items():
        for model in [None, *recipe.per_model] if recipe.dpo else []:
            dpo, keys = _dpo(name, recipe, model, "label_smoothing")
            if dpo.label_smoothing and dpo.loss_type != "robust":
                what = f"label_smoothing is not read by loss_type: {dpo.loss_type}"
                problems.append(_problem(places, keys, what, "0, or loss_type: robust"))
    for (name, student), policies in _learnt_from(config).items():
        for key in ("soft_labels", "confidence_weights"):
            dpo, keys = _dpo(name, config.recipes[name], student, key)
            if getattr(dpo, key) and policies <= {"human", "everything"}:
                what = f"{key} changes nothing for {student!r}: it learns from people's labels only, which are certain"
                instead = "false, or a feedback of policy weak among the experiment's"
                problems.append(_problem(places, keys, what, instead))
    return list(dict.fromkeys(problems))


def _learnt_from(config: Config) -> dict[tuple[str, str], set[str]]:
    """(recipe, student) -> policies that DPO learns from, over all experiments to run: they share their trainings."""
    found: dict[tuple[str, str], set[str]] = {}
    for experiment in (config.experiments[name] for name in config.run if name in config.experiments):
        if "dpo" in experiment.steps:
            policies = {config.feedback[name].policy for name in experiment.feedback}
            recipes = [recipe for recipe in experiment.recipes if config.recipes[recipe].dpo]
            for pair in itertools.product(recipes, experiment.students):
                found.setdefault(pair, set()).update(policies)
    return found


def _dpo(name: str, recipe: Recipe, model: str | None, key: str) -> tuple[DPO, list[object]]:
    """A recipe's DPO settings for a model (None: for those without settings of their own), and where ``key`` is set."""
    assert recipe.dpo is not None
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


def _teachers(config: Config, experiment: Experiment) -> list[str]:
    teachers = {config.feedback[name].teacher for name in all_feedback(config, experiment)}
    return sorted(teacher for teacher in teachers if teacher is not None)


def _positions(config: Config, model: str) -> int | None:
    entry = config.models[model]
    return entry.pretrain.positions if entry.pretrain else entry.positions
