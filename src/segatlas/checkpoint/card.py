"""The card: everything besides the numbers that a set of weights needs to be used again (`card.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segatlas.checkpoint.card_checks import MOST_CLASSES, faults
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.json_text import read_object
from segatlas.checkpoint.validation import validated
from segatlas.errors import UsageError, WeightsError
from segatlas.files import whole_file
from segatlas.printable import printable, shortened
from segatlas.structures import InputSpec

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
CARD_VERSION = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From stored image values to network input: (value / max_value - mean) / std per channel.

    resize: None = the image's own size; "HxW" fixed; "short:N" = short side N, ratio kept; "long:N" likewise.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    max_value: float = 255.0
    resize: str | None = None


def default_preprocessing(
    channels: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Preprocessing:
    """Return the normalisation of images of any number of channels where only that of RGB images is known.

    Three channels, and the first three of more, are R, G and B. Any other channel, one or two alone or those beyond the
    third, is none of these: it gets the mean over the three, as its weights do, see `load_encoder_weights`.

    Args:
        channels: of the image.
        mean: of R, G and B, of values / max_value; ImageNet's by default.
        std: likewise.
    """
    colors = 3 if channels >= 3 else 0

    def stretched(values: tuple[float, ...]) -> tuple[float, ...]:
        return (*values[:colors], *[round(sum(values) / 3, 3)] * (channels - colors))

    return Preprocessing(mean=stretched(mean), std=stretched(std))


@dataclass(frozen=True, kw_only=True)
class InferenceMode:
    """How an image is predicted: "whole" in one pass, "slide" by windows of `crop` every `stride` pixels (h, w)."""

    mode: str = "whole"
    crop: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None


def _is_long(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) and len(value) > MOST_CLASSES


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
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "card") -> Card:
        """Build a card from plain data; `where` names the origin in errors.

        Raises:
            WeightsError: written by a newer version, unknown or missing keys, wrong types, or facts that contradict
                each other; all faults at once.
        """
        version = data.get("version", CARD_VERSION)
        if version != CARD_VERSION or isinstance(version, bool):
            raise WeightsError(
                f"{where}: card version {shortened(version)}; this SegAtlas reads version {CARD_VERSION} - a newer one "
                "is needed"
            )
        if long := [f"{shortened(key)}: {len(value):,} items" for key, value in data.items() if _is_long(value)]:
            raise WeightsError(f"{where}: not a valid card\n  {', '.join(long)}, at most {MOST_CLASSES:,}")
        try:
            with told_as_weights_error(f"{where}: not a valid card"):
                card = validated(cls, data)
            card.check()
        except UsageError as error:
            raise WeightsError(f"{where}: not a valid card\n{error}") from None
        return card

    def check(self) -> None:
        """Raise UsageError, naming every fault, where facts contradict each other."""
        found = faults(self)
        if found:
            raise UsageError("\n".join(f"  {fault}" for fault in found))

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read `card.json`, named itself or by its folder.

        Raises:
            WeightsError: missing, unreadable or invalid.
        """
        path = Path(path)
        path = path / CARD_FILE if path.is_dir() else path
        return cls.from_dict(read_object(path), where=printable(path))

    def to_text(self) -> str:
        """Return what `card.json` holds."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: str | Path) -> Path:
        """Write to a file, or as `card.json` into a folder; an existing file is replaced in one step.

        Raises:
            WeightsError: it cannot be written.
        """
        path = Path(path)
        path = path / CARD_FILE if path.is_dir() else path
        with whole_file(path, error=WeightsError) as temporary:
            temporary.write_text(self.to_text(), encoding="utf-8")
        return path
