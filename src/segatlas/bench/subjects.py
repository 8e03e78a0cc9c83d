"""What is measured: a network with its card, made from a name or read from a folder, and the calls to time."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segatlas.bench.settings import BenchSettings
from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.checkpoint.card import Card
from segatlas.errors import UsageError
from segatlas.hub.loading import load_pretrained
from segatlas.inference import Predictor
from segatlas.inference.images import GivenImage, ImageBatch, WithSources, prepare
from segatlas.inference.runner import Precision
from segatlas.models import lookup
from segatlas.structures import Inputs, Output

FLOPS_UNIT = (
    "FLOPs and MACs of one image: multiplications and additions of convolutions, matrix products and attention; "
    "1 MAC = 1 multiplication and 1 addition = 2 FLOPs; norms, activations and resizing are not counted"
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with its card. origin: the folder it was read from, or how it was made."""

    net: nn.Module
    card: Card
    origin: str


def load_subject(model: str, settings: BenchSettings) -> Subject:
    """Make or read the network that a word of the command line names.

    Args:
        model: NAME or NAME:FIELD=VALUE,... with an architecture's or variant's name (seeded random weights), else a run
            folder, a model folder, a checkpoint or a hub id. A folder called like an architecture is written ./NAME.
        settings: its `num_classes` and `seed` are used for models made from a name.

    Raises:
        UsageError: unknown name, or fields that the architecture does not take.
        WeightsError: a folder or file that cannot be loaded.
    """
    name, _, text = model.partition(":")
    if not is_architecture(name) and (os.sep in model or "/" in model or Path(model).exists()):
        net, card = load_pretrained(model)
        return Subject(net=net, card=card, origin=str(model))
    torch.manual_seed(settings.seed)
    net = create_model(name, **{"num_classes": settings.num_classes, **parse_fields(text, model)})
    config: Any = net.config
    card = make_card(net, classes=[f"class {index}" for index in range(config.num_classes)])
    return Subject(net=net.eval(), card=card, origin=f"random weights, seed {settings.seed}")


def parse_fields(text: str, model: str) -> dict[str, Any]:
    """Return "encoder=resnet34,decoder_channels=[256,128]" as a dictionary; values are read as YAML.

    Raises:
        UsageError: a part without "=", or a value that is no YAML; `model` is named.
    """
    fields: dict[str, Any] = {}
    for part in _parts(text):
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"{model}: expected FIELD=VALUE, got {part!r}")
        try:
            fields[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{model}: the value of {key.strip()!r} cannot be read: {value!r}") from None
    return fields


def seeded_image(card: Card, settings: BenchSettings) -> GivenImage:
    """Return an (H, W, C) uint8 image of noise: C is the model's, the rest from the settings; its sources likewise.

    Codes are those that the source has.
    """
    generator = np.random.default_rng(settings.seed)
    image, *further = (
        generator.integers(0, spec.codes or 256, (*settings.size, spec.channels), dtype=np.uint8)
        for spec in card.inputs
    )
    if not further:
        return image
    flat = {
        spec.name: array[..., 0] if spec.kind == "label" else array
        for spec, array in zip(card.inputs[1:], further, strict=True)
    }
    return WithSources(image=image, sources=flat)


def network_input(card: Card, settings: BenchSettings) -> Tensor | Inputs:
    """Return the batch (N, C, h, w), and sources, that `Predictor.predict` gives the network for the seeded image."""
    prepared = prepare(seeded_image(card, settings), card)
    return ImageBatch([prepared] * settings.batch, torch.device("cpu")).whole()


def make_calls(subject: Subject, precision: Precision, settings: BenchSettings) -> dict[str, Callable[[], object]]:
    """Return the call of each piece (`settings.PIECES`), ready to be timed."""
    predictor = Predictor(subject.net, subject.card, device="cpu", precision=precision)
    image = seeded_image(subject.card, settings)
    images = network_input(subject.card, settings)

    def predict() -> object:
        if settings.batch == 1:
            return predictor.predict(image)
        return list(predictor.predict_iter([image] * settings.batch, batch=settings.batch))

    return {"forward": lambda: forward(predictor, images), "predict": predict}


def forward(predictor: Predictor, images: Tensor | Inputs) -> Output:
    """Return the network's output at its own stride, in the predictor's precision."""
    return predictor.output(images)


def bf16_agreement(subject: Subject, settings: BenchSettings) -> float:
    """Return the fraction of pixels of the seeded image that have the same label in bf16 as in fp32."""
    image = seeded_image(subject.card, settings)
    exact, rounded = (
        Predictor(subject.net, subject.card, device="cpu", precision=precision).predict(image).semantic
        for precision in ("fp32", "bf16")
    )
    return float((exact == rounded).mean())


def count_flops(net: nn.Module, inputs: Tensor | Inputs) -> int:
    """Return the FLOPs of one pass over a batch; see FLOPS_UNIT. Only shapes are followed."""
    shell = copy.deepcopy(net).to("meta").requires_grad_(False)  # its hooks would want a graph of parameters passed on
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shell(inputs.to("meta"))
    return int(counter.get_total_flops())


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters; buffers, such as the running means of batch norm, are none."""
    return sum(parameter.numel() for parameter in net.parameters())


def is_architecture(name: str) -> bool:
    """Tell whether there is an architecture, or a variant of one, of that name."""
    try:
        lookup(name)
    except KeyError:
        return False
    return True


def _parts(text: str) -> Iterator[str]:
    """Split at the commas that stand outside brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:].strip():
        yield text[start:]
