"""A dataset's own keys in a recipe's `data:` section: its record `options`, and what is said about other keys there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from segatlas.config.messages import SchemaWords, explain, misplaced, show, unknown
from segatlas.config.schema import Config, DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets import DATASETS, dataset_class
from segatlas.errors import ConfigError, Problem


def check_options(name: str, own: Mapping[str, Any]) -> tuple[Section, list[Problem]]:
    """Check what stands in `data:` besides the keys of all datasets.

    Args:
        name: a dataset of the table.
        own: plain values as they stand in a recipe, or as the record holds them.

    Returns:
        The dataset's record, with the defaults in place of faulty keys, and the problems. A key of another dataset at
        that one's default says nothing, as in a resolved recipe that an earlier version wrote, and is left out.
    """
    record = dataset_class(name).options
    known = {key: value for key, value in own.items() if key in record.model_fields}
    problems = [problem for key in own if key not in known for problem in _foreign(name, key, own[key])]
    problems += [one for number, section in enumerate(_sources(own)) for one in _of_source(name, number, section)]
    try:
        return _read(record, known), problems
    except ValidationError as error:
        words = SchemaWords(record.model_json_schema())
        faults = explain(error.errors(include_url=False), known, words)
    faulty = {problem.key.split(".")[0] for problem in faults}
    problems += [replace(problem, key=f"data.{problem.key}") for problem in faults]
    return _read(record, {key: value for key, value in known.items() if key not in faulty}), problems


def _sources(own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sections of the datasets that one is made of, as far as they are sections."""
    given = own.get("sources") or ()
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, list | tuple) else []


def _of_source(whole: str, number: int, section: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the section of a source of the dataset `whole`: its name, its keys."""
    key, name = f"data.sources.{number}", section.get("name", DataConfig.model_fields["name"].default)
    known = [one for one in DATASETS if one != whole]
    if name not in known:
        return [Problem(key=f"{key}.name", got=show(name), message=unknown("dataset that can be mixed", name, known))]
    own = {one: value for one, value in section.items() if one not in DataConfig.model_fields}
    found = check_options(name, own)[1]
    return [replace(one, key=f"{key}.{one.key.removeprefix('data.')}") for one in found]


def checked(cfg: DataConfig) -> DataConfig:
    """Return the section with its dataset's own keys as `options`. ConfigError where they are keys of another one."""
    options, problems = check_options(cfg.name, cfg.own_fields())
    if problems:
        raise ConfigError(f"data.name={cfg.name}", problems)
    return cfg.checked(options)


def _read(record: type[Section], own: Mapping[str, Any]) -> Section:
    """Read strictly: "3" is no number. As JSON, so that lists become tuples."""
    return record.model_validate_json(json.dumps(dict(own)), strict=True)


def _foreign(name: str, key: str, value: Any) -> list[Problem]:
    """Say what is wrong with a key that the dataset does not have."""
    kind = dataset_class(name)
    fixed = getattr(kind, key, None)  # class names and colours of a published dataset may be stated, truly
    if fixed is not None and json.dumps(value, default=str) == json.dumps(fixed, default=str):
        return []
    owners = [other for other in DATASETS if key in dataset_class(other).options.model_fields]
    for owner in owners:
        default = dataset_class(owner).options.model_fields[key].default
        if json.dumps(value, default=str) == json.dumps(default, default=str):
            return []
    if owners:
        message = f"an option of data.name={' or '.join(owners)}; data.name={name} has none such - remove it"
    else:
        here = [*DataConfig.model_fields, *kind.options.model_fields]
        message = misplaced(key, here, SchemaWords(Config.model_json_schema()))
    return [Problem(key=f"data.{key}", got=show(value), message=message)]
