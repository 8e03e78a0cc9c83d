"""SegFormer of segmentation-models-pytorch: the authors' decoder, on encoders whose finest map has stride 4.

It takes all maps of its encoder and brings each to a quarter of the image. Where the finest map is that quarter, as a
Mix Transformer's is, this is our network; one at stride 2, as a ResNet's, ours does not take.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mit import require_upsampling
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, require_default
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import WeightsError
from segatlas.models.segformer import LEVELS, SegFormerConfig

_STRIDE = 4
"""Of the map that all others are brought to."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    maps = file.count("decoder.mlp_stage.{i}")
    if not maps or not file.has("decoder.fuse_stage.0", "decoder.fuse_stage.1", "segmentation_head.0"):
        return None
    require_default(file, upsampling=_STRIDE)
    widths = [file.shape(f"decoder.mlp_stage.{index}.linear.weight")[1] for index in range(maps)]
    encoder = encoder_fields(file, maps=widths)
    _count(EncoderSpec.of(**encoder["encoder"]))
    return {
        **head_fields(file),
        **encoder,
        "decoder_channels": file.shape("decoder.fuse_stage.0.weight")[0],
        "dropout": 0.0,
        "logits_align_corners": True,
    }


def _count(encoder: EncoderSpec) -> int:
    """Return how many maps the decoder takes of an encoder. WeightsError where they are not those of the library."""
    with shapes_only():
        strides = create_encoder(encoder).strides
    if strides[0] != _STRIDE or len(strides) > LEVELS:
        raise WeightsError(
            f"the SegFormer of segmentation-models-pytorch takes all maps of '{encoder.name}', whose strides are "
            f"{', '.join(map(str, strides))}: only encoders that begin at stride {_STRIDE} are supported"
        )
    return len(strides)


def renames(config: SegFormerConfig) -> Renames:
    """See `Importer`."""
    if config.projection_norm:
        raise WeightsError("segmentation-models-pytorch has no SegFormer with batch norm in its projections")
    require_upsampling(config, "segmentation-models-pytorch", align_corners=True)
    lines = encoder_renames(config.encoder)
    count = _count(config.encoder)
    return [
        *lines,
        *((f"decoder.mlp_stage.{count - 1 - level}.linear", f"decoder.projections.{level}") for level in range(count)),
        ("decoder.fuse_stage.0", "decoder.fuse.conv"),
        ("decoder.fuse_stage.1", "decoder.fuse.bn"),
        *HEAD,
    ]


IMPORTER = Importer(
    source="smp",
    architecture="segformer",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
