"""What a person states of a file where neither its weights nor settings beside it tell: KEY=VALUE."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from segatlas.config.messages import show, unknown
from segatlas.errors import UsageError
from segatlas.printable import printable


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Return what words KEY=VALUE state; KEY is a dotted path in the library's settings, VALUE is YAML.

    Raises:
        UsageError: no such word, or a value that is no YAML.
    """
    stated: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--set: got '{printable(word)}', expected KEY=VALUE, e.g. encoder_output_stride=16")
        stated[key] = _value(key, value)
    return stated


def _value(key: str, text: str) -> Any:
    try:
        return json.loads(text)  # which reads 1e-5 as a number; YAML does not
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {printable(key)}: got '{printable(text)}', which is no value of YAML") from None


def overlaid(settings: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with what is stated laid over them.

    Args:
        settings: a library's own, groups within groups.
        stated: dotted path -> value.

    Raises:
        UsageError: a path through what is no group.
    """
    result = dict(settings)
    for key, value in stated.items():
        *groups, last = key.split(".")
        place = result
        for group in groups:
            inner = place.get(group, {})
            if not isinstance(inner, Mapping):
                raise UsageError(f"--set {printable(key)}: {printable(group)} is {show(inner)}, no group of settings")
            place[group] = dict(inner)
            place = place[group]
        place[last] = value
    return result


def require_read(stated: Mapping[str, Any], asked: Collection[str], network: str) -> None:
    """Make sure that what is stated was asked for when a network was recognised.

    Args:
        stated: dotted path -> value.
        asked: dotted paths that were looked up, groups among them.
        network: whose settings they are, for the error.

    Raises:
        UsageError: a path that was not; the nearest one is named.
    """
    for key in stated:
        if not any(f"{key}.".startswith(f"{path}.") or path.startswith(f"{key}.") for path in asked):
            raise UsageError(f"--set: {unknown(f'setting of {network} that weights leave open', key, sorted(asked))}")
