"""ESPNetV2 for segmentation as its authors published it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.ignored_output import Trained, class_fields, trained_facts
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.source import Facts
from segatlas.errors import WeightsError
from segatlas.models.espnetv2 import ESPNetV2Config

TRAINED = {
    20: Trained(data_set="cityscapes", ignored=True, preprocessing=Preprocessing(resize="512x1024")),
    21: Trained(data_set="voc", ignored=False, preprocessing=Preprocessing(resize="384x384")),
}
"""Outputs of a published file -> what it was trained on, with the larger of its two sizes."""
_STEPS = 3
"""On the way up."""
_UNUSED = 0.25
"""The slope with which an activation begins that their steps down hold and never run."""


_OF_IMAGES = ("backbone.level5", "backbone.level5_0")
"""What their network for ImageNet has below stride 16, before its classifier; their network for pixels lacks it."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    before = "base_net.level{}.conv.weight"
    if not file.has(before.format(1), "base_net.level4_0.inp_reinf", "bu_dec_l4.merge_layer.3", "merge_enc_dec_l2"):
        return None
    outputs, pooled = file.shape("bu_dec_l4.merge_layer.3.weight")[:2]
    channels = file.shape("bu_br_l4.0.weight")[0] // 2
    usual = pooled == max(1, min(outputs // 2, channels))
    return {
        **class_fields(file, outputs, TRAINED),
        "in_channels": file.shape(before.format(1))[1],
        "widths": _widths(file, "base_net"),
        "blocks": tuple(file.count(f"base_net.level{level}.{{i}}") for level in (3, 4)),
        "channels": channels,
        "pool_channels": None if usual else pooled,
    }


def _widths(file: ForeignWeights, place: str) -> tuple[int, ...]:
    first = file.shape(f"{place}.level1.conv.weight")[0]
    return first, *(file.shape(f"{place}.level{level}_0.act.weight")[0] for level in (2, 3, 4))


def backbone(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`: `espnetv2_s_*_imagenet_224x224.pth`."""
    if not file.has("backbone.level1.conv", "backbone.level4_0.inp_reinf", "backbone.level5_0"):
        return None
    return {"widths": _widths(file, "backbone")}


def renames(config: ESPNetV2Config) -> Renames:
    """See `Importer`; the encoder's names stand twice, as in whole networks and as in backbones alone.

    Raises:
        WeightsError: images that their network cannot take.
    """
    if config.in_channels != 3:
        raise WeightsError(f"the authors' ESPNetV2 takes images of 3 channels, this one {config.in_channels}")
    table = [*_encoder("base_net"), *_encoder("backbone")]
    for index in range(_STEPS):
        theirs, ours = f"bu_dec_l{index + 1}", f"steps.{index}"
        table += [*_pool(theirs, f"{ours}.pool"), (f"{theirs}.merge_layer.3", f"{ours}.widen.0")]
        table += _norm(f"{theirs}.br.br", f"{ours}.widen.1")
        skip = f"merge_enc_dec_l{index + 2}"
        table += [
            (f"{skip}.wt_layer.1", f"{ours}.skip.gate"),
            *_row(f"{skip}.expansion_layer.cbr", f"{ours}.skip.conv"),
        ]
        table += _norm(f"bu_br_l{index + 2}", f"{ours}.norm")
    return [*table, *_pool("bu_dec_l4", "pool"), ("bu_dec_l4.merge_layer.3", "classifier")]


def _encoder(place: str) -> list[tuple[str, str]]:
    table = [*_unit(f"{place}.level1", "encoder.stem")]
    for index in range(_STEPS):
        theirs, ours = f"{place}.level{index + 2}_0", f"encoder.downs.{index}"
        table += _pyramid(f"{theirs}.eesp", f"{ours}.pyramid")
        table += _unit(f"{theirs}.inp_reinf.0", f"{ours}.image.0")
        table += [
            (f"{theirs}.inp_reinf.1.conv", f"{ours}.image.1"),
            (f"{theirs}.inp_reinf.1.bn", f"{ours}.image.2"),
            (f"{theirs}.act", f"{ours}.activation"),
        ]
    for level in (3, 4):
        theirs, ours = f"{place}.level{level}.{{i}}", f"encoder.levels.{level - 2}.{{i}}"
        table += [*_pyramid(theirs, f"{ours}.pyramid"), (f"{theirs}.module_act", f"{ours}.activation")]
    return table


def _norm(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}.{index}", f"{ours}.{index}") for index in (0, 1)]


def _row(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Return the table of convolution, batch norm, PReLU in a row."""
    return [(f"{theirs}.0", f"{ours}.0"), (f"{theirs}.1", f"{ours}.1.0"), (f"{theirs}.2", f"{ours}.1.1")]


def _unit(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Return the table of the same with names."""
    return [(f"{theirs}.conv", f"{ours}.0"), (f"{theirs}.bn", f"{ours}.1.0"), (f"{theirs}.act", f"{ours}.1.1")]


def _pyramid(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [
        *_unit(f"{theirs}.proj_1x1", f"{ours}.reduce"),
        (f"{theirs}.spp_dw.{{j}}.conv", f"{ours}.dilated.{{j}}"),
        (f"{theirs}.br_after_cat.bn", f"{ours}.norm.0"),
        (f"{theirs}.br_after_cat.act", f"{ours}.norm.1"),
        (f"{theirs}.conv_1x1_exp.conv", f"{ours}.join"),
        (f"{theirs}.conv_1x1_exp.bn", f"{ours}.bn"),
    ]


def _pool(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [
        *_row(f"{theirs}.projection_layer.cbr", f"{ours}.reduce"),
        (f"{theirs}.stages.{{i}}", f"{ours}.filters.{{i}}"),
        *_norm(f"{theirs}.merge_layer.0.br", f"{ours}.norm"),
        *_row(f"{theirs}.merge_layer.2.cbr", f"{ours}.mix"),
    ]


def constants(config: ESPNetV2Config) -> Mapping[str, Tensor]:
    """See `Importer`: the activations that a step down holds and does not run."""
    added = [above - below for below, above in pairwise(config.widths)]
    return {
        f"base_net.level{index + 2}_0.eesp.module_act.weight": torch.full((width,), _UNUSED)
        for index, width in enumerate(added)
    }


def facts(config: ESPNetV2Config, settings: Mapping[str, Any]) -> Facts:
    """See `Importer`; of outputs that no published file has, images are ImageNet's in their own size."""
    return trained_facts(config.num_classes, config.outputs, settings, TRAINED, Preprocessing())


IMPORTER = Importer(
    source="edgenets",
    architecture="espnetv2",
    recognise=recognise,
    renames=renames,
    constants=constants,
    facts=facts,
    backbone=backbone,
    dropped=(*_OF_IMAGES, *(f"backbone.level{index + 2}_0.eesp.module_act" for index in range(_STEPS))),
)
