"""Detectron2's Panoptic-DeepLab on a ResNet, with a stem of one convolution (R50) or of three (R52)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.checkpoint.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from segatlas.conversion.importers.detectron2.stages import DROPPED, layer_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stages import resnet_name
from segatlas.models.panoptic_deeplab import PanopticDeepLabConfig

SEMANTIC, INSTANCE, BODY = "sem_seg_head", "ins_embed_head", "backbone"
COCO = 133
"""Classes of COCO, 80 of things and 53 of stuff: other windows and bounds are published for it than for Cityscapes."""
STUFF = {19: tuple(range(11)), COCO: tuple(range(80, COCO))}
"""Number of classes -> which are stuff, in the order that Detectron2 numbers them."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    last = f"{SEMANTIC}.decoder.res5.project_conv"
    if not file.has(f"{BODY}.stem.conv1", f"{last}.convs.4.1", f"{INSTANCE}.center_predictor"):
        return None
    name = resnet_name(file, f"{BODY}.res{{layer}}", first=2)
    if name is None:
        return None
    deep = file.has(f"{BODY}.stem.conv3")
    stem = file.shape(f"{BODY}.stem.conv{3 if deep else 1}.weight")[0]
    grid = file.setting("MODEL.RESNETS.RES5_MULTI_GRID", [1, 2, 4])
    stride = {1: 32, 2: 16}[file.setting("MODEL.RESNETS.RES5_DILATION", 2)]
    classes = file.shape(f"{SEMANTIC}.predictor.weight")[0]
    separable = file.has(f"{SEMANTIC}.head.depthwise")
    finer = [level for level in (4, 3, 2) if file.has(f"{SEMANTIC}.decoder.res{level}.fuse_conv")]
    size = file.setting("INPUT.CROP.SIZE", (640, 640) if classes == COCO else (512, 1024))
    joined = f"decoder.res{finer[0]}.fuse_conv.{'pointwise' if separable else '0'}.weight"
    return {
        "encoder": f"{name}c" if deep else name,
        "output_stride": stride,
        "encoder_options": {
            "stem_width": stem,
            "multi_grid": tuple(32 // stride * step for step in grid),
            "stride_first": file.setting("MODEL.RESNETS.STRIDE_IN_1X1", False),
        },
        "bgr": file.stated("INPUT.FORMAT") == "BGR",
        "num_classes": classes,
        "in_channels": file.shape(f"{BODY}.stem.conv1.weight")[1],
        "rates": tuple(file.setting("MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", (6, 12, 18))),
        "aspp_channels": file.shape(f"{last}.project.weight")[0],
        "channels": file.shape(f"{SEMANTIC}.{joined}")[0],
        "instance_channels": file.shape(f"{INSTANCE}.{joined}")[0],
        "low_channels": lows(file, SEMANTIC, finer),
        "instance_low_channels": lows(file, INSTANCE, finer),
        "head_channels": file.shape(f"{SEMANTIC}.predictor.weight")[1],
        "instance_head_channels": file.shape(f"{INSTANCE}.center_predictor.weight")[1],
        "separable": separable,
        "separable_aspp": file.has(f"{last}.convs.1.depthwise"),
        "separable_centers": False,
        "early_first": True,
        "pool_bias": True,
        "pool_window": tuple(size),
        "dropout": 0.1,
        "align_corners": False,
        "padding": max(file.setting("MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY", 640 if classes == COCO else -1), 1),
        "stuff_classes": STUFF.get(classes),
        "center_score": file.setting("MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD", 0.1),
        "center_window": file.setting("MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL", 41 if classes == COCO else 7),
        "center_top": file.setting("MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE", 200),
        "stuff_area": file.setting("MODEL.PANOPTIC_DEEPLAB.STUFF_AREA", 4096 if classes == COCO else 2048),
    }


def lows(file: ForeignWeights, head: str, levels: list[int]) -> tuple[int, ...]:
    """Return the channels of the finer maps behind their 1x1 convolutions, the coarsest first."""
    return tuple(file.shape(f"{head}.decoder.res{level}.project_conv.weight")[0] for level in levels)


def renames(config: PanopticDeepLabConfig) -> Renames:
    """See `Importer`."""
    count = len(config.low_channels)
    found = [*stem_renames(config), *layer_renames(BODY)]
    for theirs, ours in ((SEMANTIC, "semantic_decoder"), (INSTANCE, "instance_decoder")):
        last = f"{theirs}.decoder.res5.project_conv"
        found += convolution(f"{last}.convs.0", f"{ours}.aspp.branches.0")
        for index in range(len(config.rates)):
            found += one_or_two(
                f"{last}.convs.{index + 1}", f"{ours}.aspp.branches.{index + 1}", separable=config.separable_aspp
            )
        found += [(f"{last}.convs.{len(config.rates) + 1}.1", f"{ours}.aspp.pool.0")]
        found += convolution(f"{last}.project", f"{ours}.aspp.fuse")
        for index in range(count):
            level = f"{theirs}.decoder.res{count + 1 - index}"
            found += convolution(f"{level}.project_conv", f"{ours}.low.{index}")
            found += wide(f"{level}.fuse_conv", f"{ours}.join.{index}", separable=config.separable)
    found += wide(f"{SEMANTIC}.head", "semantic_head", separable=config.separable)
    found += wide(f"{INSTANCE}.center_head", "centers.first", separable=config.separable and config.separable_centers)
    found += wide(f"{INSTANCE}.offset_head", "offsets.first", separable=config.separable)
    return [
        *found,
        (f"{SEMANTIC}.predictor", "classifier"),
        (f"{INSTANCE}.center_predictor", "centers.last"),
        (f"{INSTANCE}.offset_predictor", "offsets.last"),
    ]


def stem_renames(config: PanopticDeepLabConfig) -> list[tuple[str, str]]:
    """Return the names of the stem's convolutions."""
    stem = f"{BODY}.stem"
    if not config.encoder.name.endswith("c"):
        return [(f"{stem}.conv1.norm", "encoder.bn1"), (f"{stem}.conv1", "encoder.conv1")]
    return [
        (f"{stem}.conv1.norm", "encoder.conv1.1"),
        (f"{stem}.conv1", "encoder.conv1.0"),
        (f"{stem}.conv2.norm", "encoder.conv1.4"),
        (f"{stem}.conv2", "encoder.conv1.3"),
        (f"{stem}.conv3.norm", "encoder.bn1"),
        (f"{stem}.conv3", "encoder.conv1.6"),
    ]


def convolution(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Return the names of a convolution with its norm below it."""
    return [(f"{theirs}.norm", f"{ours}.bn"), (theirs, f"{ours}.conv")]


def one_or_two(theirs: str, ours: str, *, separable: bool) -> list[tuple[str, str]]:
    """Return the names of a convolution, or of the two halves of a separable one."""
    if not separable:
        return convolution(theirs, ours)
    return [
        (f"{theirs}.depthwise.norm", f"{ours}.depthwise_bn"),
        (f"{theirs}.depthwise", f"{ours}.depthwise"),
        (f"{theirs}.pointwise.norm", f"{ours}.bn"),
        (f"{theirs}.pointwise", f"{ours}.pointwise"),
    ]


def wide(theirs: str, ours: str, *, separable: bool) -> list[tuple[str, str]]:
    """Return the names of what sees 5x5 cells: a separable convolution, or two plain ones."""
    if separable:
        return one_or_two(theirs, ours, separable=True)
    return [pair for index in (0, 1) for pair in convolution(f"{theirs}.{index}", f"{ours}.{index}")]


def preprocessing(config: PanopticDeepLabConfig) -> Preprocessing:
    """Return how images are prepared for files without settings: as the published configurations do."""
    size = "fit:640x640" if config.num_classes == COCO else "fit:1024x2048"
    return Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD, resize=size)


IMPORTER = Importer(
    source="detectron2",
    architecture="panoptic_deeplab",
    recognise=recognise,
    renames=renames,
    dropped=DROPPED,
    preprocessing=preprocessing,
)
