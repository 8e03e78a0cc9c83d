"""Backbones below heads of Hugging Face: which encoder of ours a file has, and what its tensors are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders.spec import EncoderSpec


@dataclass(frozen=True, kw_only=True)
class BackboneNames:
    """One family of backbones, under the names of one version.

    encoders: our names of those that it is for.
    recognise: returns config fields with `encoder` and `encoder_options` among them, None where the file has another.
    renames, stacks, constants: as of `Importer`, given the encoder, of a network whose encoder is called so.
    """

    encoders: tuple[str, ...]
    recognise: Callable[[ForeignWeights], Mapping[str, Any] | None]
    renames: Callable[[EncoderSpec], Renames]
    stacks: Callable[[EncoderSpec], Sequence[Stack]] = lambda encoder: ()
    constants: Callable[[EncoderSpec], Mapping[str, Tensor]] = lambda encoder: {}
