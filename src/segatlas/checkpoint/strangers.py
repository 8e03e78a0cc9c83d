"""Files of programs whose networks are not read at all: that is said, in place of advice that leads nowhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from segatlas.printable import shortened

_ULTRALYTICS = (
    "Ultralytics' networks (YOLO and others) are not read; networks that find objects here: "
    "segatlas models list --task instance"
)
_NNUNET = "nnU-Net's networks are not read; U-Nets that are trained here: segatlas models list '*unet*'"
_SAM = "networks that are asked by points and boxes (Segment Anything) are not read"

_MODULES = {"ultralytics": _ULTRALYTICS, "models.yolo": _ULTRALYTICS, "nnunet": _NNUNET, "nnunetv2": _NNUNET}
"""Beginning of the name of a pickled class -> what is said of its program."""

_PARTS = {
    ".cv1.conv.weight": _ULTRALYTICS,
    ".all_modules.0.weight": _NNUNET,
    "conv_blocks_context.": _NNUNET,
    "prompt_encoder.": _SAM,
}
"""Part of the name of a tensor that no network here has -> what is said of its program."""


def stranger_by_class(origin: str) -> str:
    """Return what is said of the program of a pickled class, "" where it is none of these."""
    return next((told for name, told in _MODULES.items() if f"{origin}.".startswith(f"{name}.")), "")


def stranger_by_keys(content: Mapping[Any, Any]) -> str:
    """Return what is said of the program that writes a file of these keys, "" where it is none of these."""
    if "network_weights" in content and ("trainer_name" in content or "init_args" in content):
        trainer = content.get("trainer_name")
        named = f" ({shortened(trainer)})" if isinstance(trainer, str) else ""
        return f"a checkpoint of nnU-Net{named}; {_NNUNET}"
    return ""


def stranger_by_tensors(names: Collection[str]) -> str:
    """Return what is said of the program whose networks have tensors of these names, "" where it is none of these."""
    return next((told for part, told in _PARTS.items() if any(part in name for name in names)), "")
