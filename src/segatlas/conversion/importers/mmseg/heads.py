"""Parts that the heads of several architectures share in MMSegmentation's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames

CLASSIFIER: Renames = (("decode_head.conv_seg", "classifier"),)

FCN_AUX: Renames = (("auxiliary_head.convs.0", "aux_head.conv"), ("auxiliary_head.conv_seg", "aux_head.classifier"))
"""The auxiliary FCN head of one 3x3 convolution, `segatlas.layers.fcn_head`."""


_FIRST = (
    "stem.0",
    "conv1",
    "conv1.conv",
    "layers.0.0.projection",
    "patch_embeds.0.projection",
    "patch_embed1.proj.0",
    "patch_embed.proj",
)
"""What the first convolution of a backbone is called; of others the first one in the file is taken."""


def head_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the config fields that all architectures with one head, and an FCN head beside it or none, have."""
    aux = file.has("auxiliary_head.conv_seg")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": aux,
        "aux_channels": file.shape("auxiliary_head.convs.0.conv.weight")[0] if aux else None,
    }


def image_channels(file: ForeignWeights) -> int:
    """Return the channels of the image: the input of the backbone's first convolution."""
    named = (f"backbone.{name}.weight" for name in _FIRST)
    kernels = (name for name, tensor in file.tensors.items() if name.startswith("backbone.") and tensor.ndim == 4)
    return file.shape(next(name for name in chain(named, kernels) if name in file.tensors))[1]
