"""ESPNet and ESPNet-C as their authors published them: the same encoder, with a decoder and alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.ignored_output import Trained, class_fields, trained_facts
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.source import Facts
from segatlas.models.espnet import DILATIONS, ESPNetConfig

TRAINED = {
    20: Trained(
        data_set="cityscapes",
        ignored=True,
        preprocessing=Preprocessing(
            mean=(73.15840149 / 255, 82.90893555 / 255, 72.3923111 / 255),
            std=(44.91483307, 46.15289307, 45.3192215),
            resize="512x1024",
        ),
    ),
    12: Trained(
        data_set="camvid",
        ignored=True,
        preprocessing=Preprocessing(
            mean=(104.99073696 / 255, 108.36229848 / 255, 110.25682941 / 255),
            std=(69.85317193, 72.65216472, 72.06398503),
            resize="360x480",
        ),
    ),
}
"""Outputs of a published file -> what it was trained on.

The authors take away a mean of values 0..255, divide by a deviation of these, and by 255 again. Those of Cityscapes are
stated in their program, in the order blue, green, red. Those of CamVid are nowhere: here they are what their rule (the
mean over images of an image's mean and deviation) gives for its 367 training images.
"""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    decoder = file.has("encoder.level1", "level3_C.conv", "combine_l2_l3.1.d16", "up_l2.1", "classifier.weight")
    before = "encoder." if decoder else ""
    if not file.has(*(f"{before}{name}" for name in ("level2_0.d16", "level3_0.d16", "b3.bn", "classifier.conv"))):
        return None
    name = "classifier.weight" if decoder else "classifier.conv.weight"
    outputs = file.shape(name)[1 if decoder else 0]
    first, image = file.shape(f"{before}level1.conv.weight")[:2]
    fields: dict[str, Any] = {
        **class_fields(file, outputs, TRAINED),
        "in_channels": image,
        "widths": (first, *(file.shape(f"{before}level{level}_0.bn.weight")[0] for level in (2, 3))),
        "blocks": tuple(file.count(f"{before}level{level}.{{i}}") for level in (2, 3)),
        "decoder": decoder,
        "bgr": image == 3 and bool(file.setting("bgr", True)),
    }
    if not decoder:
        return {**fields, "align_corners": bool(file.setting("align_corners", True))}
    width, joined = file.shape("conv.conv.weight")[:2]
    usual = width == max(outputs, len(DILATIONS))
    return {**fields, "channels": None if usual else width, "image_in_skip": joined == width + first + image}


def renames(config: ESPNetConfig) -> Renames:
    """See `Importer`."""
    before = "encoder." if config.decoder else ""
    table = [*_unit(f"{before}level1", "encoder.stem")]
    for index in range(3):
        table += _norm(f"{before}b{index + 1}", f"encoder.norms.{index}")
    for level, ours in ((2, "encoder.levels.0"), (3, "encoder.levels.1")):
        table += _norm(f"{before}level{level}_0", f"{ours}.down.norm")
        table += _block(f"{before}level{level}_0", f"{ours}.down")
        table += _norm(f"{before}level{level}.{{i}}.bn", f"{ours}.blocks.{{i}}.norm")
        table += _block(f"{before}level{level}.{{i}}", f"{ours}.blocks.{{i}}")
    if not config.decoder:
        return [*table, ("classifier.conv", "classifier")]
    return [
        *table,
        ("encoder.classifier.conv", "deep.0"),
        ("br", "deep.1"),
        ("up_l3.0", "deep.2"),
        ("level3_C.conv", "middle"),
        *_norm("combine_l2_l3.0", "join.0"),
        *_norm("combine_l2_l3.1.bn", "join.1.norm"),
        *_block("combine_l2_l3.1", "join.1"),
        ("up_l2.0", "up.0"),
        *_norm("up_l2.1", "up.1"),
        *_unit("conv", "conv"),
        ("classifier", "classifier"),
    ]


def _norm(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}.bn", f"{ours}.0"), (f"{theirs}.act", f"{ours}.1")]


def _unit(theirs: str, ours: str) -> list[tuple[str, str]]:
    return [(f"{theirs}.conv", f"{ours}.0"), *_norm(theirs, f"{ours}.1")]


def _block(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Return the table of the convolutions of a pyramid."""
    dilated = [(f"{theirs}.d{dilation}.conv", f"{ours}.dilated.{index}") for index, dilation in enumerate(DILATIONS)]
    return [(f"{theirs}.c1.conv", f"{ours}.reduce"), *dilated]


def facts(config: ESPNetConfig, settings: Mapping[str, Any]) -> Facts:
    """See `Importer`; of outputs that no published file has, images are those of Cityscapes, as in their program."""
    return trained_facts(config.num_classes, config.outputs, settings, TRAINED, TRAINED[20].preprocessing)


IMPORTER = Importer(source="espnet", architecture="espnet", recognise=recognise, renames=renames, facts=facts)
