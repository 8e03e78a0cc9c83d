"""The card: everything besides the numbers that a set of weights needs to be used again (`card.json`)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
CARD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From stored picture values to network input: (value / max_value - mean) / std per channel.

    resize: None = the picture's own size; (h, w) fixed; "short:N" = short side N, ratio kept; "long:N" likewise.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    max_value: float = 255.0
    resize: str | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceMode:
    """How a whole picture is predicted: "whole" in one pass, "slide" by windows of `crop` every `stride` pixels (h, w)."""

    mode: str = "whole"
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of the network: the picture itself, or a further source."""

    name: str = "image"
    kind: str = "image"
    channels: int = 3
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts that travel with weights. `config` holds the fields of the architecture's config dataclass."""

    architecture: str
    config: dict[str, Any]
    task: str = "semantic"
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    inputs: tuple[InputSpec, ...] = (InputSpec(),)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    inference: InferenceMode = field(default_factory=InferenceMode)
    resample: tuple[str, bool] = ("bilinear", False)
    postprocess: dict[str, Any] = field(default_factory=dict)
    surgery: tuple[dict[str, Any], ...] = ()
    source: str = ""
    sha256: str = ""
    licence: str = ""
    metric: dict[str, Any] = field(default_factory=dict)
    version: int = CARD_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        return json.loads(json.dumps(asdict(self)))
