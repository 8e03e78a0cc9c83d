"""Reading a recipe: where it comes from, what it is laid over, which words override it, and what is wrong with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from segatlas.config import schema, yaml_tree
from segatlas.config.habits import KEYS, what_to_write
from segatlas.config.layers import lay_over, make_room
from segatlas.config.messages import SchemaWords, explain, shorten, show, unknown
from segatlas.config.old_keys import grouped, tell_old_keys, todays_keys, todays_path
from segatlas.config.plain import value_problems
from segatlas.config.rules import check_rules
from segatlas.config.schema import DataCheck, ModelCheck
from segatlas.config.yaml_tree import Node, Place
from segatlas.errors import ConfigError, DataError, Problem
from segatlas.files import read_text
from segatlas.printable import printable

ConfigType = TypeVar("ConfigType", bound=schema.Config)
RECIPES = Path(__file__).resolve().parent.parent / "recipes"
NAMED_TERMS = (("losses",), ("distill", "terms"))
"""Lists whose items may be given by name alone."""
MAX_BASES = 2
MAX_BYTES = 1_000_000
OVERRIDE, DICT, DEFAULT, COMMAND = (Place(file=name) for name in ("override", "dict", "default", "command"))


def recipes() -> dict[str, Path]:
    """Return the shipped recipes: `FOLDER_FILE` -> path. Folders that begin with "_" hold parts, not recipes."""
    return {f"{path.parent.name}_{path.stem}": path for path in _shipped() if not path.parent.name.startswith("_")}


@cache
def _shipped() -> dict[Path, str]:
    """Return the files of recipes and parts that come with the package -> how each is called in messages.

    The folders are listed once in a process: that takes longer than to read a recipe.
    """
    return {path: str(path.relative_to(RECIPES.parent.parent)) for path in sorted(RECIPES.glob("*/*.yaml"))}


class Config(schema.Config):
    """A whole recipe. A YAML file may besides hold `base:`, the recipe (or list of them) that it is laid over."""

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Any],
        *overrides: str,
        check_model: ModelCheck | None = None,
        check_data: DataCheck | None = None,
    ) -> Self:
        """Read and check a recipe.

        Args:
            source: a shipped recipe's name, a YAML file's path, or a dict.
            overrides: "a.b=value" words, laid over the recipe in order; the value is YAML.
            check_model: checks the keys of `model:` that belong to the architecture. `segatlas.recipe.Config` brings
                the one that knows all architectures; without it those keys are taken as they are.
            check_data: likewise for the keys of `data:` that belong to the dataset, and for its name.

        Raises:
            ConfigError: with all problems at once, each with file, line, key, value found and value expected.
        """
        tree, title, problems = _whole_tree(source, overrides)
        cfg, faults = _check(cls, tree, check_model, check_data)
        problems += [_locate(problem, tree) for problem in faults]
        if problems or cfg is None:
            if isinstance(source, Mapping) and all(problem.file == OVERRIDE.file for problem in problems):
                title = "overrides"  # no recipe of a file is at fault
            raise ConfigError(title, _in_order(problems))
        return cfg


def located(error: ConfigError, source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> ConfigError:
    """Return an error that arose after its recipe was read, with the places of the keys: file and line, or override."""
    tree, title, _ = _whole_tree(source, overrides)
    problems = [problem if problem.file else _locate(problem, tree) for problem in error.problems]
    return ConfigError(title, _in_order(problems))


def to_yaml(cfg: schema.Config) -> str:
    """Return the whole recipe as YAML, every key with its value, in the schema's order. `load` reads it back equal."""
    return yaml_tree.write(cfg.model_dump(mode="json"))


def json_schema(recipe: type[Config]) -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, for editors: with `base:`, and with losses given by name alone."""
    schema = recipe.model_json_schema()
    texts = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    base = {**texts, "description": "recipe (or list of them) that this one is laid over: a path or a shipped name"}
    schema["properties"] = {"base": base, **schema["properties"]}
    terms = schema["$defs"]["DistillConfig"]["properties"]["terms"]
    for listed in (schema["properties"]["losses"], terms):
        names = sorted(listed["items"]["discriminator"]["mapping"])
        listed["items"] = {"anyOf": [{"enum": names}, listed["items"]]}
    return schema


def _whole_tree(source: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> tuple[Node, str, list[Problem]]:
    """Return the tree with its bases and the overrides merged, the name to print, and the problems so far."""
    tree, title, problems = _read_source(source)
    stated = _stated(overrides)
    problems += tell_old_keys(stated)
    tree = make_room(_expand_names(tree), todays_keys(stated))
    for word in overrides:
        tree, faults = _override(tree, word)
        tree = _expand_names(tree)
        problems += faults
    return _name_run(tree, source), title, problems


def _read_source(source: str | Path | Mapping[str, Any]) -> tuple[Node, str, list[Problem]]:
    """Return the tree with its bases merged, the name to print, and the problems so far."""
    problems: list[Problem] = []
    if isinstance(source, Mapping):
        node = yaml_tree.from_plain(dict(source), DICT)
        return _with_bases(node, Path(), (), problems), "dict" if source else "overrides", problems
    path = _find(str(source), COMMAND, Path(), "recipe")
    return _read_file(path, (), problems), _display(path), problems


def _find(name: str, place: Place, folder: Path, key: str) -> Path:
    """Return the file that a recipe's name or path means. Raises ConfigError naming the nearest shipped recipe."""
    shipped = recipes()
    path = folder / name
    if path.suffix == ".py":
        message = "a config of MMSegmentation? They are not read; docs/from-mmsegmentation.md lists the recipes that "
        message += "train like them, known by name, such as pspnet_ade20k"
        raise ConfigError(name if place is COMMAND else place.file, [_at(place, key, name, message)])
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        message = "a folder, expected a YAML file"
    elif path.suffix in (".yaml", ".yml"):
        message = "no such file"
        guess = unknown("recipe", path.stem, shipped)
        message += f" ({guess})" if "did you mean" in guess else ""
    else:
        message = unknown("recipe", name, shipped) + " (a file's name ends in .yaml)"
    raise ConfigError(name if place is COMMAND else place.file, [_at(place, key, name, message)])


def _read_file(path: Path, below: tuple[Path, ...], problems: list[Problem]) -> Node:
    """Read a file and lay it over its bases. `below` are the files that led here, for cycles and depth."""
    file = _display(path)
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ConfigError(file, [_top(file, f"{size:,} bytes, a recipe has at most {MAX_BYTES:,}")])
        text = read_text(path)
    except OSError as error:
        raise ConfigError(file, [_top(file, f"cannot be read: {error.strerror}")]) from error
    except DataError as error:
        raise ConfigError(file, [_top(file, str(error).removeprefix(f"{printable(path)}: "))]) from error
    node, faults = yaml_tree.parse(text, file)
    if node is None or node.value is None:
        raise ConfigError(file, [_top(file, "the file is empty, expected `key: value` lines")])
    if not isinstance(node.value, dict):
        raise ConfigError(file, [replace(_top(file, "expected `key: value` lines"), got=show(node.plain()))])
    if kind := _data_file(node.value):
        raise ConfigError(file, [_top(file, f"is {kind}, no recipe; give its folder: {path.parent}")])
    problems += faults
    return _with_bases(node, path.parent, (*below, path.resolve()), problems)


def _data_file(keys: Collection[str]) -> str:
    """Return which library's description of a dataset has these keys, "" where it is none."""
    if "names" in keys and {"path", "train", "val", "nc"} & {*keys}:
        return "a YOLO data file"
    is_nnunet = "labels" in keys and {"channel_names", "modality", "numTraining"} & {*keys}
    return "nnU-Net's description of a dataset" if is_nnunet else ""


def _with_bases(node: Node, folder: Path, below: tuple[Path, ...], problems: list[Problem]) -> Node:
    base = node.value.get("base")
    problems += tell_old_keys(node)
    named = todays_keys(node).value
    tree = Node(value={key: child for key, child in named.items() if key != "base"}, place=node.place)
    if base is None:
        return tree
    names = base.plain() if isinstance(base.value, list) else [base.value]
    if not all(isinstance(name, str) for name in names):
        message = "expected a recipe's name or path, or a list of them"
        problems.append(_at(base.place, "base", show(base.plain()), message))
        return tree
    merged = Node(value={}, place=node.place)
    for name in names:
        path = _find(name, base.place, folder, "base")
        if path.resolve() in below:
            raise ConfigError(base.place.file, [_at(base.place, "base", name, "this recipe is its own base")])
        if len(below) > MAX_BASES:
            message = f"bases are at most {MAX_BASES} levels deep"
            raise ConfigError(base.place.file, [_at(base.place, "base", name, message)])
        merged = lay_over(merged, _read_file(path, below, problems))
    return lay_over(merged, tree)


def _stated(words: Sequence[str]) -> Node:
    """Return what the words say by themselves: one layer, whatever their order. Faulty words are left out."""
    tree = Node(value={}, place=OVERRIDE)
    for word in words:
        tree, _ = _override(tree, word, as_written=True)
    return tree


def _override(tree: Node, word: str, *, as_written: bool = False) -> tuple[Node, list[Problem]]:
    """Lay one "a.b=value" word over the tree, under the keys of today if not `as_written`."""
    key, equals, text = word.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        return tree, [_at(OVERRIDE, word, "", "expected KEY=VALUE, for example train.epochs=3")]
    if not text.strip():
        return tree, [_at(OVERRIDE, key, "", f"no value - write {key}=null to clear it")]
    try:
        value, problems = yaml_tree.parse(text, OVERRIDE.file)
    except ConfigError as error:
        return tree, [_at(OVERRIDE, key, shorten(text), error.problems[0].message)]
    if value is None or problems:
        return tree, [_at(OVERRIDE, key, shorten(text), "not a value" if value is None else problems[0].message)]
    if path == ["base"]:
        return tree, [_at(OVERRIDE, key, text, "base is set in a file only - name the recipe instead")]
    said = yaml_tree.from_plain(value.plain(), OVERRIDE)
    if as_written:
        return _set(tree, path, grouped(said, path), key)
    now = todays_path(path)
    return _set(tree, [*now], todays_keys(said, now), key)


def _set(tree: Node, path: list[str], value: Node, key: str) -> tuple[Node, list[Problem]]:
    """Return the tree with `value` laid over what stands at `path`; groups on the way are made."""
    if not path:
        return yaml_tree.merge(tree, value), []
    first, rest = path[0], path[1:]
    below = tree.child(first)
    if isinstance(tree.value, list):
        if below is None:
            count = len(tree.value)
            return tree, [_at(OVERRIDE, key, show(value.plain()), f"the list has {count} items, counted from 0")]
        changed, problems = _set(below, rest, value, key)
        items = [changed if item is below else item for item in tree.value]
        return Node(value=items, place=tree.place), problems
    if tree.value is not None and not isinstance(tree.value, dict):
        return tree, [_at(OVERRIDE, key, show(value.plain()), f"'{first}' cannot be set inside {show(tree.value)}")]
    group = tree.value or {}
    changed, problems = _set(below or Node(value=None, place=OVERRIDE), rest, value, key)
    return Node(value={**group, first: changed}, place=tree.place), problems


def _expand_names(tree: Node) -> Node:
    """Turn a loss, or a term of distillation, given by name alone into a group: `- dice` means `- name: dice`."""
    for section, *further in NAMED_TERMS:
        group = tree.value.get(section)
        if group is None:
            continue
        if not further:
            changed = _with_groups(group)
        elif isinstance(group.value, dict) and (terms := group.value.get(further[0])) is not None:
            changed = Node(value={**group.value, further[0]: _with_groups(terms)}, place=group.place)
        else:
            continue
        tree = Node(value={**tree.value, section: changed}, place=tree.place)
    return tree


def _with_groups(terms: Node) -> Node:
    if not isinstance(terms.value, list):
        return terms
    groups = [
        Node(value={"name": term}, place=term.place) if isinstance(term.value, str) else term for term in terms.value
    ]
    return Node(value=groups, place=terms.place)


def _name_run(tree: Node, source: str | Path | Mapping[str, Any]) -> Node:
    """Call the run after its recipe, where the recipe names none."""
    run = tree.value.get("run", Node(value={}, place=DEFAULT))
    if isinstance(source, Mapping) or not isinstance(run.value, dict):
        return tree
    if (name := run.value.get("name")) is not None and name.value is not None:
        return tree
    stem = str(source) if str(source) in recipes() else Path(source).stem
    named = Node(value={**run.value, "name": Node(value=stem, place=DEFAULT)}, place=run.place)
    return Node(value={**tree.value, "run": named}, place=tree.place)


def _check(
    cls: type[ConfigType], tree: Node, check_model: ModelCheck | None, check_data: DataCheck | None
) -> tuple[ConfigType | None, list[Problem]]:
    """Check every key by itself, then the rules between keys on what is sound, then the architecture's own keys."""
    data = tree.plain()
    cfg, problems = _validate(cls, data)
    sound = data
    while cfg is None:  # leave the faulty keys out, so that the rules can look at the rest
        rest = _without(sound, [problem.key for problem in problems])
        sound = rest if rest != sound else {}  # the path of a key with a dot in it, as a dict may have, finds nothing
        cfg, more = _validate(cls, sound)
        problems += more
    if check_data is not None and not {problem.key for problem in problems} & {"data", "data.name"}:
        options, more = check_data(sound.get("data", {}))
        problems += more
        cfg = cfg if options is None else cfg.model_copy(update={"data": cfg.data.checked(options)})
    cfg = cfg.settled()
    faulty = {problem.key for problem in problems}
    problems += check_rules(cfg, faulty)
    if check_model is not None and not faulty & {"model", "model.name"}:
        problems += [] if _is_shipped(tree.child("model")) else check_model(sound.get("model", {}))
    return (None if problems else cfg), problems


def _is_shipped(model: Node | None) -> bool:
    """Tell whether the whole section stands in shipped recipes: the tests check those, no network is imported."""
    return model is None or model.files() <= set(_shipped().values())


def _validate(cls: type[ConfigType], data: Any) -> tuple[ConfigType | None, list[Problem]]:
    """Check against the schema, strictly: `true` is no number, "3" is none. As JSON, so that lists become tuples."""
    problems = value_problems(data)
    if problems:
        return None, problems
    try:
        return cls.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), data, SchemaWords(cls.model_json_schema()))
        return None, [_with_habit(problem) for problem in problems]


def _with_habit(problem: Problem) -> Problem:
    """Add what to write to the problem of a top-level word that has a meaning in other libraries."""
    meant = what_to_write(problem.key, problem.got.strip('"'))
    is_unknown = problem.message.startswith("unknown key")
    is_told = f"'{KEYS.get(problem.key)}'" in problem.message
    if not meant or is_told or not (is_unknown or problem.message == "expected a group of keys"):
        return problem
    what = "unknown key here" if is_unknown else problem.message
    return replace(problem, message=f"{what} - " + (f"did you mean {meant}?" if problem.key in KEYS else meant))


def _without(data: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the data without these keys; a list goes as a whole where an item of it is faulty."""
    kept = copy.deepcopy(dict(data))
    for key in keys:
        group: Any = kept
        first, _, rest = key.partition(".")
        while rest and isinstance(group.get(first), dict):
            group = group[first]
            first, _, rest = rest.partition(".")
        group.pop(first, None)
    return kept


def _locate(problem: Problem, tree: Node) -> Problem:
    """Fill in where the key was written, and its value, from the tree."""
    node, place, found = tree, tree.place, True
    for part in problem.key.split("."):
        inner = node.child(part)
        if inner is None:
            found = False
            break
        node, place = inner, inner.place
    if problem.key == "model.encoder.name" and tree.value["model"].value["encoder"].place == place:
        problem = replace(problem, key="model.encoder")  # as it was written: by its name alone
    got = problem.got or (show(node.plain()) if found and not isinstance(node.value, dict) else "")
    if not found and node is tree:
        place = DEFAULT
    return replace(problem, file=place.file, line=place.line, got=got)


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Sort by line within a file; files first, then what has no line. Two of a kind are told once."""
    files = list(dict.fromkeys(problem.file for problem in problems if problem.line is not None))
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda p: (files.index(p.file) if p.line else len(files), p.line or 0))


def _display(path: Path) -> str:
    """Return how a file is called in messages: shipped recipes by their place in the package."""
    resolved = path.resolve()
    return str(resolved.relative_to(RECIPES.parent.parent)) if resolved.is_relative_to(RECIPES) else str(path)


def _top(file: str, message: str) -> Problem:
    return Problem(key="(top)", line=1, file=file, message=message)


def _at(place: Place, key: str, got: str, message: str) -> Problem:
    return Problem(key=key, got=got, message=message, file=place.file, line=place.line)
