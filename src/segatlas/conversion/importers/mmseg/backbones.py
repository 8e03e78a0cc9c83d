"""Backbones of MMSegmentation: which encoder of ours a checkpoint has, and what its tensors are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders import ENCODERS, OTHERS
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import WeightsError

_FAMILIES = ("resnest", "resnet", "mobilenet_v2", "hrnet", "vit", "swin", "twins", "convnext", "mscan", "poolformer")
"""Files beside this one that end with a record `BACKBONE`; names of fingerprints that do not overlap."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One family of backbones.

    module: our encoder file, as in `segatlas.encoders.ENCODERS`, or `OTHERS` for networks of timm.
    recognise: returns the config fields `encoder`, `output_stride` and `encoder_options` that all architectures on a
        named encoder have (also `norm_maps` where maps are normed, a field that some architectures have), or None where
        the file has another backbone. Its second argument is the output stride to assume where settings do not tell.
    renames: the table for an encoder name.
    changes, stacks, constants: as of `Importer`, given the encoder, of a network whose encoder is called so.
    """

    module: str
    recognise: Callable[[ForeignWeights, int], Mapping[str, Any] | None]
    renames: Callable[[str], Renames]
    changes: Callable[[EncoderSpec], Mapping[str, tuple[Change, Change]]] = lambda encoder: {}
    stacks: Callable[[EncoderSpec], Sequence[Stack]] = lambda encoder: ()
    constants: Callable[[EncoderSpec], Mapping[str, Tensor]] = lambda encoder: {}


def _backbones() -> list[Backbone]:
    return [import_module(f"segatlas.conversion.importers.mmseg.{family}").BACKBONE for family in _FAMILIES]


def encoder_fields(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, or None where no family knows the backbone."""
    found = (backbone.recognise(file, output_stride) for backbone in _backbones())
    return next((fields for fields in found if fields is not None), None)


def levels_used(fields: Mapping[str, Any], width: int) -> int:
    """Return how many of the encoder's last maps have `width` channels together: the input of a head on several maps.

    Raises:
        WeightsError: no number of them has.
    """
    with shapes_only():
        encoder = create_encoder(fields["encoder"], output_stride=fields["output_stride"], **fields["encoder_options"])
    channels = encoder.channels
    for levels in range(1, len(channels) + 1):
        if sum(channels[-levels:]) == width:
            return levels
    raise WeightsError(f"a head takes {width} channels, but {fields['encoder']} gives maps of {channels}")


def encoder_renames(encoder: str) -> Renames:
    """Return the table of an encoder of ours. WeightsError where MMSegmentation has no such backbone."""
    return _backbone(encoder).renames(encoder)


def encoder_changes(config: Any) -> Mapping[str, tuple[Change, Change]]:
    """Return what is laid out differently in the encoder of a config, see `Importer`."""
    return _backbone(config.encoder.name).changes(config.encoder)


def encoder_stacks(config: Any) -> Sequence[Stack]:
    """Return what is cut differently in the encoder of a config, see `Importer`."""
    return _backbone(config.encoder.name).stacks(config.encoder)


def encoder_constants(config: Any) -> Mapping[str, Tensor]:
    """Return what files hold besides of the encoder of a config, see `Importer`."""
    return _backbone(config.encoder.name).constants(config.encoder)


def _backbone(encoder: str) -> Backbone:
    module = ENCODERS.get(encoder, OTHERS)
    found = next((backbone for backbone in _backbones() if backbone.module == module), None)
    if found is None:
        raise WeightsError(f"MMSegmentation has no backbone '{encoder}'")
    return found
