"""DeepLabV3 of segmentation-models-pytorch; in files of early releases its decoder has numbers for names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.aspp import aspp_fields, aspp_renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, levels_of, require_default
from segatlas.models.deeplabv3 import SMP, DeepLabV3Config

_NAMES = (("decoder.aspp", "decoder.conv", "decoder.bn"), ("decoder.0", "decoder.1", "decoder.2"))
"""ASPP, convolution and norm behind it: today's names, and those of early releases."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    found = next((names for names in _NAMES if file.has(f"{names[0]}.convs.0.0.weight", *names[1:])), None)
    if found is None or not file.has("segmentation_head.0"):
        return None
    aspp = found[0]
    encoder = encoder_fields(file, maps=(file.shape(f"{aspp}.convs.0.0.weight")[1],), output_stride=8)
    require_default(file, upsampling=min(2 ** levels_of(encoder), encoder["encoder"]["output_stride"]))
    return {
        **{key: value for key, value in SMP.items() if key not in ("output_stride", "encoder_options")},
        **head_fields(file),
        **encoder,
        **aspp_fields(file, aspp),
        "channels": file.shape(f"{aspp}.project.0.weight")[0],
    }


def renames(config: DeepLabV3Config) -> Renames:
    """See `Importer`."""
    lines: list[tuple[str, str]] = []
    for aspp, conv, norm in _NAMES:
        lines += [*aspp_renames(aspp, separable=config.separable), (conv, "convs.0.conv"), (norm, "convs.0.bn")]
    return [*encoder_renames(config.encoder), *lines, *HEAD]


IMPORTER = Importer(
    source="smp",
    architecture="deeplabv3",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
