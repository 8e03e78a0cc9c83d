"""RefineNet: torchvision's names of the ResNet beside names of the layers of the authors' Caffe-like graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.models.refinenet import AFTER, BEFORE, POOLINGS, STAGES, RefineNetConfig

_RESNETS = {6: "resnet50", 23: "resnet101", 36: "resnet152"}
"""Blocks of the third layer -> name."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("p_ims1d2_outl1_dimred.weight", "clf_conv.weight", "layer1.0.conv3.weight"):
        return None
    name = _RESNETS.get(file.count("layer3.{i}"))
    if name is None:
        return None
    return {
        "encoder": name,
        "in_channels": file.shape("conv1.weight")[1],
        "num_classes": file.shape("clf_conv.weight")[0],
        "channels": file.shape("clf_conv.weight")[1],
        "deep_channels": file.shape("p_ims1d2_outl1_dimred.weight")[0],
    }


def renames(config: RefineNetConfig) -> Renames:
    """See `Importer`."""
    return [
        ("conv1", "encoder.conv1"),
        ("bn1", "encoder.bn1"),
        ("layer{i}", "encoder.layer{i}"),
        *(pair for stage in range(STAGES) for pair in _stage(stage)),
        ("clf_conv", "classifier"),
    ]


def _stage(index: int) -> Renames:
    """Return the table of a stage; theirs are counted from 1, the deepest."""
    theirs, ours = index + 1, f"stages.{index}"
    return [
        (f"p_ims1d2_outl{theirs}_dimred", f"{ours}.reduce"),
        *_units(f"adapt_stage{theirs}_b.0", f"{ours}.adapt", BEFORE),
        (f"adapt_stage{theirs}_b2_joint_varout_dimred", f"{ours}.fuse"),
        *((f"mflow_conv_g{theirs}_pool.0.{i + 1}_outvar_dimred", f"{ours}.pool.convs.{i}") for i in range(POOLINGS)),
        *_units(f"mflow_conv_g{theirs}_b.0", f"{ours}.refine", AFTER),
        (f"mflow_conv_g{theirs}_b3_joint_varout_dimred", f"{ours}.lead"),
    ]


def _units(theirs: str, ours: str, count: int) -> Renames:
    """Return the table of residual convolution units."""
    return [
        pair
        for i in range(count)
        for pair in (
            (f"{theirs}.{i + 1}_conv", f"{ours}.{i}.conv1"),
            (f"{theirs}.{i + 1}_conv_relu_varout_dimred", f"{ours}.{i}.conv2"),
        )
    ]


IMPORTER = Importer(source="refinenet", architecture="refinenet", recognise=recognise, renames=renames)
