"""Files that hold the backbone of a network alone, as pre-training on ImageNet leaves it: what a training begins with.

MMSegmentation publishes such files for DDRNet and PIDNet, EdgeNets for ESPNetV2. Their names are those of the backbone
in a whole checkpoint without its prefix; parts that the pre-training has not may be missing, and its own classifier is
beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segatlas.build.network import build_empty, make_config
from segatlas.build.saving import make_card
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.reading import read_state_dict
from segatlas.conversion.class_lists import class_list
from segatlas.conversion.importers import importers, load_source
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.renaming import rename_to_ours
from segatlas.errors import WeightsError
from segatlas.models.reading import load_architecture
from segatlas.printable import printable

PREFIX = "backbone."
CLASSIFIERS = ("fc", "linear", "head", "classifier", "cls_head", "last_layer", "final_layer")
"""Beginnings of what a pre-training calls its own classifier, which is left out."""
IMAGENET = 1000
"""Classes of the images that these files were trained on."""


@dataclass(frozen=True, kw_only=True)
class BackboneFile:
    """What a file holds: the network that it is of, its tensors under our names, and what was left out.

    card: of that network, its classes those of images; library: a key of `SOURCES`; variant: its name.
    """

    path: Path
    library: str
    title: str
    variant: str
    card: Card
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]


def find_backbone(path: Path) -> BackboneFile | None:
    """Return the backbone that a file holds alone; None where it holds none that is known, or a head for pixels too.

    Raises:
        WeightsError: not readable, no variant has these widths, or tensors that its network has not.
    """
    read = read_state_dict(path).tensors
    if any(name.startswith("decode_head.") for name in read):
        return None
    named = {name if name.startswith(PREFIX) else PREFIX + name: tensor for name, tensor in read.items()}
    file = ForeignWeights(tensors=named)
    for importer in importers():
        facts = importer.backbone(file) if importer.backbone is not None else None
        if facts is not None:
            return _backbone(path, importer, facts, named)
    return None


def _backbone(path: Path, importer: Importer, facts: Mapping[str, Any], named: Mapping[str, Tensor]) -> BackboneFile:
    record = load_architecture(importer.architecture)
    fitting = [
        name
        for name in record.variants
        if (made := make_config(name, {"num_classes": IMAGENET})[1])
        and all(getattr(made, key) == value for key, value in facts.items())
    ]
    if len(fitting) != 1:
        told = ", ".join(f"{key} = {value}" for key, value in facts.items())
        raise WeightsError(
            f"{printable(path)}: a backbone of {record.name} with {told}; variants: {', '.join(record.variants)}"
        )
    _, config = make_config(fitting[0], {"num_classes": IMAGENET})
    net = build_empty(record, config)
    ours, expected = rename_to_ours(importer, config, named), net.state_dict()
    left_out = [name for name in ours if name.removeprefix(PREFIX).split(".")[0] in CLASSIFIERS]
    tensors = {name: tensor for name, tensor in ours.items() if name not in left_out}
    unlike = [name for name, tensor in tensors.items() if name not in expected or expected[name].shape != tensor.shape]
    if unlike:
        more = f" and {len(unlike) - 1} more" if len(unlike) > 1 else ""
        raise WeightsError(
            f"{printable(path)}: a backbone of {fitting[0]}, which has no such tensor: {printable(unlike[0])}{more}"
        )
    listed = class_list(IMAGENET, (), (), "")
    return BackboneFile(
        path=path,
        library=importer.source,
        title=load_source(importer.source).title,
        variant=fitting[0],
        card=make_card(net, classes=listed.classes, palette=listed.palette),
        tensors=tensors,
        left_out=tuple(name.removeprefix(PREFIX) for name in left_out),
    )
