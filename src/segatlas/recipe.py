"""The recipe as users load it: `config`'s schema plus a check of the `model:` section against the architectures.

This is a room above `config` and `models`, because `config` may not know the networks. Names of models and encoders
are checked in torch-free tables; only further keys of `model:` import the one file of that architecture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from segatlas import config
from segatlas.config.architectures import in_section
from segatlas.config.encoder_keys import ENCODER, HOST, dotted_fields
from segatlas.config.messages import show, unknown
from segatlas.config.reference import KeyRow, distillation_reference, reference, rows_of
from segatlas.config.rules import Fault
from segatlas.config.schema import DataCheck, DataConfig, ModelCheck, ModelConfig, Rule
from segatlas.config.section import Section
from segatlas.data.dataset import sources_fault
from segatlas.data.datasets import DATASETS, dataset_class
from segatlas.data.options import check_options
from segatlas.encoders import ENCODERS
from segatlas.errors import ConfigError, Problem, UsageError
from segatlas.losses import LOSSES, AnyLoss, losses_for
from segatlas.metrics import Number, image_classes, monitored
from segatlas.models import ARCHITECTURES, ArchitectureEntry, lookup
from segatlas.models.host import aux_names_of, encoder_of, host_in
from segatlas.models.reading import load_architecture, read_config
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    from torch import nn

    from segatlas.structures import InputSpec

LOGGER = logging.getLogger("segatlas")
FROM_DATA = {"num_classes": 2, "in_channels": 3}
"""Stand-ins for what the dataset decides later, where the recipe leaves it open."""

ASKED = "oneformer"
"""The network that is told what to give: its field `asked_for`."""

CLASS_MAPS = "SemanticLogits"
"""The output that windows, test-time augmentation and class weights are for."""


ENCODER_KEYS = (
    KeyRow(
        key="model.encoder",
        expects="a name, or a group of keys",
        default="",
        meaning="encoder of the network; default: the network's. A name alone leaves the other keys as they are",
    ),
    KeyRow(key="model.encoder.name", expects="text", default="", meaning="one of ours, or a timm backbone"),
    KeyRow(
        key="model.encoder.output_stride",
        expects="a whole number, or null",
        default="",
        meaning="stride of the last map, where that encoder can dilate; null: its own. Also: model.output_stride",
    ),
    KeyRow(
        key="model.encoder.OPTION",
        expects="a value",
        default="",
        meaning="options of that encoder's family, see `segatlas models info NETWORK`. Also: model.encoder_options",
    ),
)
"""What stands in `model:` for every network on an encoder. Its options are in the encoders' files, which load torch."""


def check_model(model: Mapping[str, Any]) -> list[Problem]:
    """Return the problems of a recipe's `model:` section that the schema cannot see."""
    name = model.get("name", ModelConfig.model_fields["name"].default)
    try:
        _, variant = lookup(name)
    except KeyError:
        known = [*ARCHITECTURES, *(name for entry in ARCHITECTURES.values() for name in entry.variants)]
        return [Problem(key="model.name", got=show(name), message=unknown("model", name, known))]
    own = {key: value for key, value in model.items() if key not in ModelConfig.model_fields}
    if not own and lookup(name)[0].needs.host is None:
        return []
    record = load_architecture(name)
    if variant:
        _tell_contradictions(name, record.variants[variant], own)
    made, problems = read_config(record, {**_from_data(own), **own}, variant=variant, strict=True)
    if made is not None and not problems:
        problems = _encoder_cannot_be_made(made, own)
    known = list(dict.fromkeys((*ModelConfig.model_fields, *record.fields, HOST)))
    return [in_section(problem, "model", known, hosted=record.needs.host is not None) for problem in problems]


def _from_data(own: Mapping[str, Any]) -> dict[str, int]:
    """Return stand-ins for what the dataset decides; there are more classes than the recipe says are stuff."""
    stuff = own.get("stuff")
    return {**FROM_DATA, "num_classes": max(2, stuff + 1)} if isinstance(stuff, int) else FROM_DATA


def _encoder_cannot_be_made(made: Any, own: Mapping[str, Any]) -> list[Problem]:
    """Return why an encoder of sound settings cannot be made all the same, as where timm's network has no such stride.

    It is made of shapes only, unless it is one of ours with the settings that it has by itself.
    """
    key, group = ENCODER, own
    while isinstance(host := group.get(HOST), Mapping):
        key, group = f"{HOST}.{key}", host
    spec = encoder_of(made)
    if spec is None or (spec.name in ENCODERS and spec == type(spec)(name=spec.name)):
        return []
    from segatlas.build.network import shapes_only  # loads torch, as the network's file has done before

    try:
        with shapes_only():
            spec.family.build(spec, made.in_channels)
    except UsageError as error:
        return [Problem(key=key, message=str(error))]
    return []


def _network_of_shapes(name: str, own: Mapping[str, Any]) -> nn.Module | None:
    """Return the network without its numbers; None where a key has a fault by itself. UsageError: no layers of that."""
    from segatlas.build.network import build_empty  # loads torch, as the network's file does

    record, variant = load_architecture(name), lookup(name)[1]
    made, faults = read_config(record, {**_from_data(own), **own}, variant=variant)
    return None if faults else build_empty(record, made)


def _unmakeable(name: str, own: Mapping[str, Any], error: UsageError) -> Problem:
    """Return which key no network can be made with: the last without which there is one."""
    reason = f" ({error.__cause__})" if error.__cause__ else ""
    for key in reversed(tuple(own)):
        try:
            _network_of_shapes(name, {other: value for other, value in own.items() if other != key})
        except UsageError:
            continue
        return Problem(key=f"model.{key}", got=show(own[key]), message=f"no {name} can be made with it{reason}")
    return Problem(key="model", message=str(error))


def aux_problems(cfg: config.Config, net: nn.Module) -> list[Problem]:
    """Return a problem for each loss on auxiliary logits that the network does not give while it trains.

    Likewise for each part that predicts and that no loss teaches.
    """
    names = aux_names_of(net)
    if cfg.train.freeze_host and (host := host_in(net)) is not None:  # it is in eval mode
        names = tuple(name for name in names if name not in aux_names_of(host))
    given = ", ".join(f"aux.{name}" for name in names)
    message = f"the network has: {given}" if names else "the network has no auxiliary head; set model.aux=true"
    problems = [
        Problem(key=f"losses.{index}.on", got=show(term.on), message=message)
        for index, term in enumerate(cfg.losses)
        if term.on != "logits" and term.on.removeprefix("aux.") not in names
    ]
    entry = _entry(cfg)
    for name, on in () if entry is None else entry.needs.taught_by:
        if not any(term.on == on for term in cfg.losses):
            message = f"a part of {cfg.model.name} that predicts learns from a loss on {on} alone, and there is none"
            problems.append(Problem(key="losses", message=f"{message}: add {{name: {name}, on: {on}}}"))
    return problems


def check_data(data: Mapping[str, Any]) -> tuple[Section | None, list[Problem]]:
    """Return the own keys of a recipe's dataset as their record, and the problems of its name and of those keys."""
    name = data.get("name", DataConfig.model_fields["name"].default)
    if name not in DATASETS:
        return None, [Problem(key="data.name", got=show(name), message=unknown("dataset", name, DATASETS))]
    return check_options(name, {key: value for key, value in data.items() if key not in DataConfig.model_fields})


def _tell_contradictions(name: str, variant: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Warn where the recipe gives a variant other fields than those that make it: it is obeyed, and no longer that."""
    theirs, ours = dotted_fields(variant), dotted_fields(own)
    for key, value in theirs.items():
        if key in ours and show(ours[key]) != show(value):
            text = "model.%s = %s: the network is no longer %s, which has %s; leave the key out for that"
            LOGGER.warning(text, key, show(ours[key]), name, show(value))


def _entry(cfg: config.Config) -> ArchitectureEntry | None:
    """Return the network's line of the table; None where there is no such network, which is told elsewhere."""
    try:
        return lookup(cfg.model.name)[0]
    except KeyError:
        return None


def _hosts(cfg: config.Config) -> Iterator[ArchitectureEntry]:
    """Yield the lines of the table of the networks inside a wrapper, the outermost first, as far as they are known."""
    host = cfg.model.architecture_fields().get(HOST)
    while isinstance(host, Mapping) and isinstance(name := host.get("name"), str):
        try:
            yield lookup(name)[0]
        except KeyError:
            return
        host = host.get(HOST)


def _frozen_host(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if entry is None or not cfg.train.freeze_host:
        return
    if entry.needs.host is None:
        yield ("train.freeze_host", "model.name"), f"{entry.name} wraps no other network that could be frozen"
    elif cfg.model.start_from is None:
        message = "the host's weights stay as they are, and they are random - set model.start_from to a trained network"
        yield ("train.freeze_host", "model.start_from"), message


def _task_of_network(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if entry is None or cfg.task not in TASKS or cfg.task in entry.tasks:
        return
    able = [name for name, other in ARCHITECTURES.items() if cfg.task in other.tasks]
    others = f"networks for {cfg.task}: {', '.join(able)}" if able else f"no network is for {cfg.task} yet"
    yield ("task", "model.name"), f"{cfg.model.name} is for {', '.join(entry.tasks)}; {others}"


def _asked_for(cfg: config.Config) -> Iterator[Fault]:
    entry, asked = _entry(cfg), cfg.model.architecture_fields().get("asked_for")
    if entry is None or entry.name != ASKED or cfg.task not in entry.tasks:
        return
    asked = asked or entry.tasks[0]
    if asked != cfg.task:
        yield ("model.asked_for", "task"), f"the network is asked for {asked}, and the task is {cfg.task}; set it so"


def _truth_of_data(cfg: config.Config) -> Iterator[Fault]:
    entry, dataset, task = _entry(cfg), cfg.data.name, TASKS.get(cfg.task)
    if entry is None or task is None or task.name not in entry.tasks or dataset not in DATASETS:
        return
    gives, reads = dataset_class(dataset).targets, entry.needs.targets
    if task.target not in reads:
        yield ("task", "model.name"), f"its truth is {task.target}, and {entry.name} trains on {', '.join(reads)}"
    elif task.target not in gives:
        able = ", ".join(name for name in DATASETS if task.target in dataset_class(name).targets) or "none yet"
        message = (
            f"{dataset} gives {', '.join(gives)}, and task {task.name} needs {task.target}; datasets with it: {able}"
        )
        yield (*_written(cfg), "task"), message


def _sources_of_data(cfg: config.Config) -> Iterator[Fault]:
    entry, dataset = _entry(cfg), cfg.data.name
    if entry is None or dataset not in DATASETS:
        return
    needed = _needed_sources(cfg, entry)
    taken = [spec.name for spec in needed]
    lost = next((name for name in cfg.transforms.source_jitter if name not in taken), None)
    if lost is not None:
        told = f"{entry.name} takes no source {lost!r}; besides the image it takes: {', '.join(taken) or 'nothing'}"
        yield (f"transforms.source_jitter.{lost}", "model.name"), told
    fault = sources_fault(needed, dataset, dataset_class(dataset).sources_of(cfg.data))
    if fault:
        able = [name for name in DATASETS if not sources_fault(needed, name, dataset_class(name).sources)]
        yield _written(cfg), f"{fault}; datasets with it: {', '.join(able) or 'none yet'}"


def _needed_sources(cfg: config.Config, entry: ArchitectureEntry) -> list[InputSpec]:
    """Return the sources that the network takes besides the image; its file is imported only where its config says."""
    networks = (entry, *_hosts(cfg))
    if not any(network.needs.from_config for network in networks):
        return [spec for network in networks for spec in network.needs.inputs]
    record, variant = load_architecture(cfg.model.name), lookup(cfg.model.name)[1]
    own = cfg.model.architecture_fields()
    made, _ = read_config(record, {**_from_data(own), **own}, variant=variant)
    return [] if made is None else list(record.inputs(made)[1:])


def _written(cfg: config.Config) -> tuple[str, str]:
    """Return the keys of dataset and network, first the one that the recipe states: its line is told."""
    keys = ("data.name", "model.name")
    return keys if "name" in cfg.data.model_fields_set or "name" not in cfg.model.model_fields_set else keys[::-1]


def _metric_of_task(cfg: config.Config) -> Iterator[Fault]:
    scores, of = scores_of(cfg), "a pre-training" if cfg.pretrain else f"task {cfg.task}"
    if scores and cfg.train.metric not in scores:
        yield ("train.metric", "task"), f"expected a score of {of}: {', '.join(scores)}"


def scores_of(cfg: config.Config) -> Mapping[str, Number]:
    """Return the scores that a recipe's training may watch, the first ranks models; {} of an unknown task.

    The files of the task's metrics are imported for it; they hold no torch.
    """
    if cfg.pretrain is not None:
        return image_classes.NUMBERS
    return monitored(TASKS[cfg.task].metrics) if cfg.task in TASKS else {}


def _network_of_classes(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if cfg.pretrain is None or entry is None:
        return
    takes_more = entry.needs.inputs or entry.needs.from_config
    if entry.output != CLASS_MAPS or entry.needs.host is not None or takes_more:
        yield ("model.name", "pretrain"), f"{entry.name} gives no map of one image, whose mean could say a class"


def _student_of_classes(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if cfg.distill is not None and entry is not None and entry.output != CLASS_MAPS:
        yield (
            ("distill", "model.name"),
            f"distillation is for networks of class maps, and {cfg.model.name} gives {entry.output}",
        )


def _images_without_labels(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if cfg.semi is not None and entry is not None and entry.output != CLASS_MAPS:
        yield ("semi", "model.name"), f"is for networks of class maps, and {cfg.model.name} gives {entry.output}"


def _losses_of_pixels(cfg: Config) -> Iterator[Fault]:
    if cfg.pretrain is not None and tuple(cfg.losses) != (LOSSES["cross_entropy"](),):
        yield ("losses", "pretrain"), "have no meaning where whole images have classes - remove them"


def _losses_of_network(cfg: Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    for index, term in enumerate(cfg.losses):
        place = (f"losses.{index}.name", "model.name")
        expected = ", ".join(_losses_for(entry)) or "nothing; it cannot be trained" if entry is not None else ""
        if entry is not None and term.output != entry.output:
            message = f"a loss on {term.output}, and {cfg.model.name} gives {entry.output} - expected {expected}"
            yield place, message
        elif entry is not None and term.name not in _losses_for(entry):
            yield place, f"{cfg.model.name} does not give what it takes, {term.takes} - expected {expected}"
        elif not term.weighted and term.class_weights is not None:
            yield (f"losses.{index}.class_weights",), f"{term.name} takes none; remove it"


def _losses_for(entry: ArchitectureEntry) -> tuple[str, ...]:
    """Return the names of the losses that a network may train with."""
    return (*entry.needs.losses, *entry.needs.further_losses) or tuple(losses_for(entry.output))


def _parts_of_output(cfg: config.Config) -> Iterator[Fault]:
    entry = _entry(cfg)
    if entry is None or entry.output == CLASS_MAPS:
        return
    message = f"for class maps, and {cfg.model.name} gives {entry.output}"
    if cfg.model.input.mode == "slide":
        yield ("model.input.mode", "model.name"), f"windows are {message} - expected whole"
    if cfg.eval.tta:
        yield ("eval.tta", "model.name"), f"test-time augmentation is {message} - remove it"


def common_keys() -> tuple[str, list[KeyRow]]:
    """Return title and rows of the keys that all recipes have."""
    title, rows = reference(Config)[0]
    names = f"one of: {', '.join(DATASETS)}"
    rows = [replace(row, expects=names) if row.key == "data.name" else row for row in rows]
    place = [row.key for row in rows].index("model.name") + 1
    return title, [*rows[:place], *ENCODER_KEYS, *rows[place:]]


def dataset_keys() -> list[tuple[str, list[KeyRow]]]:
    """Return (title, rows) of the own keys of each dataset that has any."""
    tables = [(name, rows_of(dataset_class(name).options, "data")) for name in DATASETS]
    return [(f"Keys of `data` that only data.name={name} has", rows) for name, rows in tables if rows]


def loss_keys() -> list[tuple[str, list[KeyRow]]]:
    """Return (title, rows) of the keys of all losses, then of each loss."""
    return reference(Config)[1:]


def distillation_keys() -> list[tuple[str, list[KeyRow]]]:
    """Return (title, rows) of the keys of each term of `distill.terms`."""
    return distillation_reference()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file with the keys of every dataset, each allowed for those that have it."""
    schema = config.json_schema(Config)
    data = schema["$defs"]["DataConfig"]
    records = {name: dataset_class(name).options.model_json_schema() for name in DATASETS}
    own = {name: record.get("properties", {}) for name, record in records.items()}
    common = set(data["properties"])
    for record in records.values():
        data["properties"] |= record.get("properties", {})
        schema["$defs"] |= record.get("$defs", {})
    data["properties"]["name"] |= {"enum": list(DATASETS)}
    data["additionalProperties"] = False
    group = {"name": {"type": "string"}, "output_stride": {"type": ["integer", "null"]}}
    schema["$defs"]["ModelConfig"]["properties"]["encoder"] = {
        "anyOf": [{"type": ["string", "null"]}, {"type": "object", "properties": group}],
        "description": ENCODER_KEYS[0].meaning,
    }
    default = DataConfig.model_fields["name"].default
    data["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": [] if name == default else ["name"]},
            "then": {"propertyNames": {"enum": sorted({*common, *keys})}},
        }
        for name, keys in own.items()
    ]
    return schema


class Config(config.Config):
    """A whole recipe, checked to the last key of its network and losses. See `segatlas.config.Config` for the keys."""

    losses: tuple[AnyLoss, ...] = Field(
        default_factory=lambda: (LOSSES["cross_entropy"](),),
        description=config.Config.model_fields["losses"].description,
    )

    further_rules: ClassVar[tuple[Rule, ...]] = (
        _task_of_network,
        _frozen_host,
        _truth_of_data,
        _sources_of_data,
        _metric_of_task,
        _network_of_classes,
        _student_of_classes,
        _images_without_labels,
        _losses_of_pixels,
        _losses_of_network,
        _parts_of_output,
        _asked_for,
    )

    def settled(self) -> Self:
        """Return the recipe with what it leaves open: its network decides task and losses, the task `train.metric`."""
        entry = _entry(self)
        found: dict[str, Any] = {}
        if entry is not None and "task" not in self.model_fields_set:
            found["task"] = entry.tasks[0]
        if entry is not None and "losses" not in self.model_fields_set:
            names = entry.needs.losses or _losses_for(entry)[:1]
            found["losses"] = tuple(losses_for(entry.output)[name]() for name in names)
        scores = scores_of(self.model_copy(update=found))
        if "metric" not in self.train.model_fields_set and scores:
            found["train"] = self.train.model_copy(update={"metric": next(iter(scores))})
        return self.model_copy(update=found)

    def check_network(self) -> None:
        """Make the network of shapes and ask what it gives, which reading a recipe does not.

        Raises:
            ConfigError: no layers can be made of its keys, or a loss is on auxiliary logits that it does not give.
        """
        if _entry(self) is None:
            return
        own = self.model.architecture_fields()
        try:
            net = _network_of_shapes(self.model.name, own)
        except UsageError as error:
            raise ConfigError("recipe", [_unmakeable(self.model.name, own, error)]) from None
        if net is not None and (problems := aux_problems(self, net)):
            raise ConfigError("recipe", problems)

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Any],
        *overrides: str,
        check_model: ModelCheck | None = check_model,
        check_data: DataCheck | None = check_data,
    ) -> Self:
        """Read and check a recipe.

        Args:
            source: a shipped recipe's name, a YAML file's path, or a dict.
            overrides: "a.b=value" words, laid over the recipe in order; the value is YAML.
            check_model: checks the keys of `model:` that belong to the architecture.
            check_data: checks the name of the dataset and the keys of `data:` that belong to it.

        Raises:
            ConfigError: with all problems at once, each with file, line, key, value found and value expected.
        """
        return super().load(source, *overrides, check_model=check_model, check_data=check_data)
