"""The recipe as users load it: `config`'s schema plus a check of the `model:` section against the architectures.

This is a room above `config` and `models`, because `config` may not know the networks. Names of models and encoders
are checked in torch-free tables; only further keys of `model:` import the one file of that architecture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from segatlas import config
from segatlas.config.architectures import check_fields
from segatlas.config.losses import losses_for
from segatlas.config.messages import show, unknown
from segatlas.config.rules import Fault
from segatlas.config.schema import ModelCheck, ModelConfig, Rule
from segatlas.encoders import ENCODERS, timm_names
from segatlas.errors import Problem
from segatlas.models import ARCHITECTURES, ArchitectureEntry, load_architecture, lookup
from segatlas.tasks import TASKS

LOGGER = logging.getLogger("segatlas")
FROM_DATA = {"num_classes": 2, "in_channels": 3}
"""Stand-ins for what the dataset decides later, where the recipe leaves it open."""


def check_model(model: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of a recipe's `model:` section that the schema cannot see."""
    name = model.get("name", ModelConfig.model_fields["name"].default)
    try:
        _, variant = lookup(name)
    except KeyError:
        known = [*ARCHITECTURES, *(name for entry in ARCHITECTURES.values() for name in entry.variants)]
        return [Problem(key="model.name", got=show(name), message=unknown("model", name, known))]
    problems = _check_encoder(model.get("encoder"))
    own = {key: value for key, value in model.items() if key not in ModelConfig.model_fields}
    if set(own) - {"encoder"} or not isinstance(own.get("encoder", ""), str) or (variant and own):
        record = load_architecture(name)
        _tell_contradictions(name, record.variants[variant] if variant else {}, own)
        fields = {**FROM_DATA, **(record.variants[variant] if variant else {}), **own}
        further = [key for key in ModelConfig.model_fields if key != "name"]
        problems += check_fields(record.config, fields, further=further)
    return problems


def _tell_contradictions(name: str, variant: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Warn where the recipe gives a variant other fields than those that make it: it is obeyed, and no longer that."""
    for key, value in variant.items():
        if key in own and show(own[key]) != show(value):
            text = "model.%s = %s: the network is no longer %s, which has %s; leave the key out for that"
            LOGGER.warning(text, key, show(own[key]), name, show(value))


def _check_encoder(name: Any) -> list[Problem]:
    """Check an encoder's name; what is no text at all is left to the architecture's own config."""
    if not isinstance(name, str) or name in ENCODERS:
        return []
    others = timm_names()
    if name.removeprefix("timm/").split(".")[0] in others:
        return []
    return [Problem(key="model.encoder", got=show(name), message=unknown("encoder", name, [*ENCODERS, *others]))]


def _entry(cfg: config.Config) -> ArchitectureEntry | None:
    """Return the network's line of the table; None where there is no such network, which is told elsewhere."""
    try:
        return lookup(cfg.model.name)[0]
    except KeyError:
        return None


def _task_of_network(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if entry is None or cfg.task not in TASKS or cfg.task in entry.tasks:
        return
    able = [name for name, other in ARCHITECTURES.items() if cfg.task in other.tasks]
    others = f"networks for {cfg.task}: {', '.join(able)}" if able else f"no network is for {cfg.task} yet"
    yield ("task", "model.name"), f"{cfg.model.name} is for {', '.join(entry.tasks)}; {others}"


def _losses_of_network(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    for index, term in enumerate(cfg.losses):
        if entry is not None and term.output != entry.output:
            expected = ", ".join(losses_for(entry.output)) or "nothing; it cannot be trained"
            message = f"a loss on {term.output}, and {cfg.model.name} gives {entry.output} - expected {expected}"
            yield (f"losses.{index}.name", "model.name"), message


class Config(config.Config):
    """A whole recipe, checked to the last key of its network. See `segatlas.config.Config` for the keys."""

    further_rules: ClassVar[tuple[Rule, ...]] = (_task_of_network, _losses_of_network)

    def settled(self) -> Self:
        """Return the recipe with what it leaves open and the network decides: `task` and `losses`, then the rest."""
        entry = _entry(self)
        found: dict[str, Any] = {}
        if entry is not None and "task" not in self.model_fields_set:
            found["task"] = entry.tasks[0]
        if entry is not None and "losses" not in self.model_fields_set:
            found["losses"] = tuple(term(name=name) for name, term in [*losses_for(entry.output).items()][:1])
        cfg = self.model_copy(update=found)
        return super(Config, cfg).settled()

    @classmethod
    def load(
        cls, source: str | Path | Mapping[str, Any], *overrides: str, check_model: ModelCheck | None = check_model
    ) -> Self:
        """Read and check a recipe.

        Args:
            source: a shipped recipe's name, a YAML file's path, or a dict.
            overrides: "a.b=value" words, laid over the recipe in order; the value is YAML.
            check_model: checks the keys of `model:` that belong to the architecture.

        Raises:
            ConfigError: with all problems at once, each with file, line, key, value found and value expected.
        """
        return super().load(source, *overrides, check_model=check_model)
