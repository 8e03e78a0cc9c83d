"""Before a run exists: what `data check` says of the data, and whether the network can train on so few images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from segatlas.config.schema import TrainConfig
from segatlas.data.checks import Finding, look_before_training
from segatlas.data.checks.quick import SAMPLES
from segatlas.data.checks.samples import spread
from segatlas.data.collate import collate
from segatlas.data.dataset import SegmentationData
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline
from segatlas.errors import ConfigError, DataError, Problem
from segatlas.layers.norm import BatchNorm2d
from segatlas.recipe import Config
from segatlas.structures import IGNORE, Inputs, SemanticTarget
from segatlas.tasks import TASKS
from segatlas.training.freezing import BATCH_NORMS, training_mode
from segatlas.training.logbook import LOGGER


def check_data(config: Config, datasets: Sequence[SegmentationData]) -> None:
    """Refuse now what `data check` calls an error: found here it costs a second, found by the loss an evening.

    Raises:
        DataError: the first error, with its file; how many more kinds there are.
    """
    look = look_before_training(
        config.data, datasets, target=TASKS[config.task].target, max_value=config.model.input.stated_max_value
    )
    for finding in look.findings:
        if finding.severity == "warning":
            LOGGER.warning("data: %s", _in_a_line(finding))
    if look.errors:
        first, *others = look.errors
        more = sorted({finding.title for finding in others} - {first.title})
        also = f"\nBesides: {', '.join(more)}." if more else ""
        raise DataError(
            f"{_with_detail(first.fault, first.details)}\n  {first.repair}{also}\n"
            f"Everything that is wrong: segatlas data check {config.data.root}",
            first.files[0] if first.files else None,
        )
    LOGGER.info(
        "data: headers of %d files (images and truths of all splits) and %d decoded samples show no error; "
        "segatlas data check reads all of them",
        look.files,
        look.samples,
    )


def _in_a_line(finding: Finding) -> str:
    """Return a warning with its first file; of images that are only converted their number: `data check` lists them."""
    if finding.kind == "mixed_channels":
        count = len(finding.files)
        return f"{count} image{' has' if count == 1 else 's have'} other channels: {finding.fault}"
    file = f"{finding.files[0]}: " if finding.files else ""
    return f"{file}{finding.fault} - {finding.repair}"


def check_heeded(config: Config, train: SegmentationData) -> None:
    """Tell where labels say of classes what no loss learns from: some were not annotated, or only that they are there.

    Raises:
        ConfigError: labels say nothing else, so nothing would be learned.
    """
    heeds = {term.heeds for term in config.losses}
    said = dict.fromkeys(("annotated", "present"), 0)
    looked, has_label = spread(len(train), SAMPLES), False
    for index in looked:
        if train.truth_file(index) == train.files(index)[1]:
            has_label = True  # a plain mask says a class for each pixel
            continue
        target = train.truth(index)
        if isinstance(target, SemanticTarget):
            said["present"] += target.present is not None
            said["annotated"] += target.annotated is not None and not np.all(target.annotated)
            has_label |= bool((np.asarray(target.labels) != IGNORE).any())
    if said["present"] and "present" not in heeds and not has_label:
        if config.distill is not None:
            return
        got = ", ".join(term.name for term in config.losses)
        message = "train says which classes its images show and not where, which only image_labels learns from"
        raise ConfigError("recipe", [Problem(key="losses", got=got, message=message)])
    if said["annotated"] and "annotated" not in heeds:
        LOGGER.warning(
            "data: in %d of %d images looked at some classes were not annotated, and these losses take what is not "
            "annotated for the class that stands there; marginal_cross_entropy does not",
            said["annotated"], len(looked),
        )  # fmt: skip


def _with_detail(fault: str, details: tuple[str, ...]) -> str:
    return f"{fault} ({details[0]})" if details and details[0] else fault


class _OneValueError(Exception):
    """Stops a pass through a network at a batch norm that would see one value a channel."""


def refuse_single_values(config: Config, net: nn.Module, train: SegmentationData, pipeline: Pipeline) -> None:
    """Where a batch is one image, send one through the network and refuse batch norms that get one value a channel.

    Such a norm has no variance to train with; torch raises at the first step. `layers.BatchNorm2d` copes with it.

    Raises:
        ConfigError: naming the layer, and what helps.
    """
    world = int(os.environ.get("WORLD_SIZE", config.train.devices or 1))
    if min(config.train.batch_size, len(train) // world) != 1:  # 0: fewer images than processes, told elsewhere
        return
    inputs = collate([SampleStream(train, pipeline, config.seed)[(0, 0)]]).inputs
    layer = _norm_of_one_value(net, inputs, config.train)
    if layer:
        size = f"{inputs.image.shape[2]} x {inputs.image.shape[3]}"
        message = (
            f"one image a step ({len(train)} in train), of which the batch norm {layer} gets one value a channel at a "
            f"size of {size}: it has no variance. Two images a step, or a larger transforms.crop, are needed"
        )
        raise ConfigError("recipe", [Problem(key="train.batch", got=str(config.train.batch_size), message=message)])


def _norm_of_one_value(net: nn.Module, given: Inputs, settings: TrainConfig) -> str:
    """Return the first batch norm that fails in training on what it is given, or "". The network is restored."""
    names: dict[nn.Module, str] = {
        module: name for name, module in net.named_modules() if isinstance(module, BATCH_NORMS)
    }

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        if module.training and x.numel() == x.shape[1] and not isinstance(module, BatchNorm2d):
            raise _OneValueError(names[module])

    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    handles = [module.register_forward_pre_hook(look) for module in names]
    was_training = net.training
    training_mode(net, settings)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            net(given)
    except _OneValueError as found:
        return str(found)
    finally:
        for handle in handles:
            handle.remove()
        net.train(was_training)
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])
    return ""
