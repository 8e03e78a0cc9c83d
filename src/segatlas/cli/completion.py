"""What the tab key offers: recipes, keys and their values, models, datasets. Loads no torch.

`segatlas --install-completion` sets it up for the shell in use. Where nothing is offered, shells complete file names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16", "fp16")
SPLITS = ("train", "val", "test")
ENCODER_KEYS = ("model.encoder", "model.encoder.name", "model.encoder.output_stride")
"""Keys of every network on an encoder; the schema of `model:` leaves them to the network."""


def recipe_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what may be the next word of `[RECIPE] [KEY=VALUE]...`."""
    given = [str(word) for word in ctx.params.get("words") or ()]
    if (key := _key_before(given, incomplete)) is not None:
        return _starting(values_of(key), incomplete)
    if "=" in incomplete:
        key, _, begin = incomplete.partition("=")
        return [f"{key}={value}" for value in _starting(values_of(key), begin)]
    is_first = not given and ctx.params.get("config") is None and ctx.params.get("config_file") is None
    names = _starting(recipe_names(), incomplete) if is_first and not ctx.params.get("resume") else []
    return names + key_words(incomplete)


def key_words(incomplete: str) -> list[str]:
    """Return the keys that begin so, as `KEY=`; up to the next dot where there are many."""
    found = _starting(keys(), incomplete)
    if len(found) == 1:  # two words, so that a shell puts no space behind the first
        default = json.dumps(keys()[found[0]]).strip('"')
        return [f"{found[0]}=", f"{found[0]}={default}"]
    depth = incomplete.count(".") + 1
    groups = {".".join(key.split(".")[:depth]) + "." for key in found if key.count(".") >= depth}
    plain = [f"{key}=" for key in found if key.count(".") < depth]
    if len(groups) == 1 and not plain:  # one group alone: what lies in it
        return key_words(next(iter(groups)))
    return sorted(groups) + plain


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return trained models that are called so: runs in `runs/`, and published weights once a letter is there."""
    from segatlas.hub.catalogue import published

    names = [entry.name for entry in published() if entry.name != entry.file] if incomplete else []
    return _starting([*runs(), *names], incomplete)


def networks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return architectures and variants besides what `models` returns."""
    from segatlas.models import list_models

    return _starting(list_models(), incomplete) + models(ctx, incomplete)


def commands_with_lines(incomplete: str) -> list[str]:
    """Return the commands that print a line with --json."""
    from segatlas.cli.json_lines import JSON_LINES

    return _starting(JSON_LINES, incomplete)


def datasets(incomplete: str) -> list[str]:
    """Return the datasets of published weights."""
    from segatlas.hub.catalogue import published

    return _starting(sorted({entry.dataset for entry in published()}), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Return the tasks."""
    from segatlas.tasks import TASKS

    return _starting(TASKS, incomplete)


def devices(incomplete: str) -> list[str]:
    """Return what a network can run on."""
    return _starting(DEVICES, incomplete)


def precisions(incomplete: str) -> list[str]:
    """Return the precisions of a training."""
    return _starting(PRECISIONS, incomplete)


def splits(incomplete: str) -> list[str]:
    """Return the parts of a dataset."""
    return _starting(SPLITS, incomplete)


def recipe_names() -> list[str]:
    """Return the shipped recipes."""
    from segatlas.config import recipes

    return list(recipes())


def runs() -> list[str]:
    """Return the run folders in `runs/`, each task's `last` first."""
    found = sorted(path for path in Path("runs").glob("*/*") if (path / "model").is_dir())
    return [path.as_posix() for path in sorted(found, key=lambda path: path.name != "last")]


@cache
def keys() -> Mapping[str, Any]:
    """Return each key of a recipe with its default; null where there is none."""
    return {**{key: node.get("default") for key, node in _leaves()}, **dict.fromkeys(ENCODER_KEYS)}


def values_of(key: str) -> list[str]:
    """Return values that a key takes, where there are few; else its default, else nothing."""
    if key == "model.name":
        from segatlas.models import list_models

        return list_models()
    if key in ("model.encoder", "model.encoder.name"):
        from segatlas.encoders import ENCODERS

        return list(ENCODERS)
    if key == "data.name":
        from segatlas.data.datasets import DATASETS

        return list(DATASETS)
    if key == "task":
        return tasks("")
    node = next((node for name, node in _leaves() if name == key), None)
    if node is None:
        return []
    default = node.get("default")
    found = [value for member in node.get("anyOf", [node]) for value in _choices(member)]
    if default not in (None, [], {}) and not isinstance(default, bool):
        found.append(json.dumps(default).strip('"'))
    return list(dict.fromkeys(found))


def _choices(node: Mapping[str, Any]) -> list[str]:
    """Return what a schema lists: words of an enumeration or of a pattern, true and false, null."""
    if node.get("type") == "boolean":
        return ["true", "false"]
    if node.get("type") == "null":
        return ["null"]
    if "const" in node:
        return [str(node["const"])]
    words = re.fullmatch(r"\^\(([\w|]+)\)\$", node.get("pattern", ""))
    return words[1].split("|") if words else [str(value) for value in node.get("enum", ())]


@cache
def _leaves() -> list[tuple[str, Mapping[str, Any]]]:
    from segatlas.config.messages import SchemaWords
    from segatlas.config.schema import Config

    return list(SchemaWords(Config.model_json_schema()).leaves())


def _key_before(given: list[str], incomplete: str) -> str | None:
    """Return the key whose value is being typed where a shell, as bash does, makes three words of KEY=VALUE.

    Of a sign that nothing follows yet, the parser hands on an empty word.
    """
    if not incomplete and given and "=" not in given[-1] and (len(given) > 1 or given[-1] in keys()):
        return given[-1]
    if given[-1:] == ["="] and len(given) > 1:
        return given[-2]
    return None


def _starting(words: Iterable[str], begin: str) -> list[str]:
    return [word for word in words if word.startswith(begin)]
