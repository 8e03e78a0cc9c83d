"""SegNeXt of MMSegmentation: `LightHamHead`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    levels_used,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.segnext import EVAL_STEPS, GROUPS, TRAIN_STEPS, SegNeXtConfig

_PARTS = {"squeeze", "hamburger", "align", "conv_seg"}

_PUBLISHED = {"MD_S": 1, "train_steps": TRAIN_STEPS, "eval_steps": EVAL_STEPS, "rand_init": True}
"""Settings of the decomposition that ours has no others of."""

_PATTERNS = 64
"""How many the library takes where settings do not tell."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`. No tensor tells how many patterns there are: of files without settings, as many as published."""
    if {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")} != _PARTS:
        return None
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    width, joined = file.shape("decode_head.squeeze.conv.weight")[:2]
    final = file.shape("decode_head.align.conv.weight")[0]
    if final != width:
        raise WeightsError(f"decode_head.align: {final} channels from {width}; only as many as before are supported")
    groups = (file.stated("model.decode_head.norm_cfg") or {}).get("num_groups", GROUPS)
    if groups != GROUPS:
        raise WeightsError(f"model.decode_head.norm_cfg.num_groups = {groups}: only {GROUPS} is supported")
    settings = file.stated("model.decode_head.ham_kwargs")
    for key, ours in _PUBLISHED.items():
        if settings is not None and settings.get(key, ours) != ours:
            raise WeightsError(f"model.decode_head.ham_kwargs.{key} = {settings[key]}: only {ours} is supported")
    return {
        **encoder,
        **head_fields(file),
        "channels": width,
        "levels": levels_used(encoder, joined),
        "patterns": SegNeXtConfig.patterns if settings is None else settings.get("MD_R", _PATTERNS),
    }


def renames(config: SegNeXtConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.squeeze.conv", "squeeze.conv"),
        ("decode_head.squeeze.gn", "squeeze.norm"),
        ("decode_head.hamburger.ham_in.conv", "hamburger.before"),
        ("decode_head.hamburger.ham_out.conv", "hamburger.after.conv"),
        ("decode_head.hamburger.ham_out.gn", "hamburger.after.norm"),
        ("decode_head.align.conv", "align.conv"),
        ("decode_head.align.gn", "align.norm"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="segnext",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    constants=encoder_constants,
)
