"""SANet as its authors published it, without the layers that their files hold and never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.sanet.source import CLASS_COUNTS
from segatlas.errors import WeightsError
from segatlas.models.sanet import STRIPS, SANetConfig

RATES = {(3, 2): ((1, 2, 5), (7, 13)), (5, 5): ((1, 2, 5, 7, 13),) * 2}
"""Convolutions of the spatial path before and after its first exchange -> their published dilations."""
_CLASSIFIERS = ("classifier", "aux_heads.stride16.1")


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`.

    Raises:
        WeightsError: another number of dilated convolutions than published, or fewer outputs than the dataset stated.
    """
    if not file.has("stom.0.weight", "spp.scale11", "dp1.conv", "decoder.conv_H.weight", "final_layer.conv2.weight"):
        return None
    counts = (file.count("dp1.conv.{i}"), file.count("dp2.conv.{i}"))
    if counts not in RATES:
        raise WeightsError(f"dilated convolutions: {counts}, expected one of {', '.join(map(str, RATES))}")
    rates, further = RATES[counts]
    layers = [file.count(f"layer{level}.{{i}}") for level in (1, 2, 3, 4, 5)]
    if layers[1] != layers[2]:
        raise WeightsError(f"layer2 has {layers[1]} blocks, layer3 {layers[2]}: expected as many")
    return {
        "num_classes": _classes(file),
        "in_channels": file.shape("stom.0.weight")[1],
        "width": file.shape("stom.0.weight")[0],
        "depths": (layers[0], *layers[2:]),
        "rates": rates,
        "further_rates": further,
        "channels": file.shape("final_layer.conv2.weight")[1],
        "aux": file.has("seghead_extra", "seghead_d"),
    }


def _classes(file: ForeignWeights) -> int:
    """Return the outputs to take: all, or the first of them where a dataset is stated that has fewer classes.

    The authors' programs make 19 outputs whatever the dataset, and train those that it has.
    """
    outputs = file.shape("final_layer.conv2.weight")[0]
    name = file.stated("dataset")
    if name is None:
        file.note(f"all {outputs} outputs are classes (the authors' files have 19 for other datasets too; "
                  "--set dataset=camvid takes the first 11)")  # fmt: skip
        return outputs
    if name not in CLASS_COUNTS:
        raise WeightsError(f"dataset: got {name!r}, expected one of {', '.join(CLASS_COUNTS)}")
    if outputs < CLASS_COUNTS[name]:
        raise WeightsError(f"the network has {outputs} outputs, but {name} has {CLASS_COUNTS[name]} classes")
    return CLASS_COUNTS[name]


def renames(config: SANetConfig) -> Renames:
    """See `Importer`."""
    return [
        *_pairs("stom", "encoder.stem", {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1"}),
        *_pairs("layer6.0", "encoder.layer6", {"downsample": "downsample"}),
        *_pairs("layer6.0", "encoder.layer6", {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv3": "expand.0"}),
        *_pairs("layer6.0", "encoder.layer6", {"conv2": "conv.conv", "bn2": "conv.bn", "bn3": "expand.1"}),
        *((f"layer{level}", f"encoder.layer{level}") for level in (1, 2, 3, 4, 5)),
        *_path("dp1", "encoder.spatial"),
        *_path("dp2", "encoder.further_spatial"),
        *((name, f"encoder.{name}") for name in ("down4", "down5", "compression")),
        *(pair for i in range(len(STRIPS)) for pair in _unit(f"spp.scale{i + 1}", f"context.rows.{i}", 1)),
        *(pair for i in range(len(STRIPS)) for pair in _unit(f"spp.scale{11 * (i + 1)}", f"context.columns.{i}", 1)),
        *_unit("spp.scale4", "context.whole", 1),
        *_unit("spp.scale0", "context.local", 0),
        *_unit("spp.compression", "context.fuse", 0),
        *_unit("spp.shortcut", "context.shortcut", 0),
        ("spp.atten.conv3", "context.gate"),
        *_pairs("decoder", "decoder", {"conv_H": "across", "conv_W": "down", "conv_out": "out"}),
        *_head("final_layer", "head", "classifier"),
        *_head("seghead_extra", "aux_heads.stride16.0", "aux_heads.stride16.1"),
        *_head("seghead_d", "aux_heads.boundary.0", "aux_heads.boundary.1"),
    ]


def _path(theirs: str, ours: str) -> Renames:
    convs = [
        (f"{theirs}.conv.{{i}}.{index}", f"{ours}.convs.{{i}}.{part}") for index, part in enumerate(("conv", "bn"))
    ]
    return [(f"{theirs}.hconv", f"{ours}.widen"), *convs]


def _pairs(theirs: str, ours: str, names: Mapping[str, str]) -> Renames:
    return [(f"{theirs}.{name}", f"{ours}.{own}") for name, own in names.items()]


def _unit(theirs: str, ours: str, norm: int) -> Renames:
    """Return the table of batch norm, ReLU, convolution; a pooling may stand before them."""
    return [(f"{theirs}.{norm}", f"{ours}.bn"), (f"{theirs}.{norm + 2}", f"{ours}.conv")]


def _head(theirs: str, ours: str, classifier: str) -> Renames:
    return [
        (f"{theirs}.bn1", f"{ours}.reduce.bn"),
        (f"{theirs}.conv1", f"{ours}.reduce.conv"),
        (f"{theirs}.bn2", f"{ours}.bn"),
        (f"{theirs}.conv2", classifier),
    ]


def changes(config: SANetConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: of the classifiers' outputs the first K are taken."""
    names = [f"{ours}.{kind}" for ours in _CLASSIFIERS for kind in ("weight", "bias")]
    return dict.fromkeys(names, (lambda tensor: tensor[: config.num_classes], lambda tensor: tensor))


IMPORTER = Importer(
    source="sanet",
    architecture="sanet",
    recognise=recognise,
    renames=renames,
    changes=changes,
    dropped=(*(f"spp.process{i}" for i in (1, 2, 3, 4)), "seghead_d2", "classifier", "fc"),
)
