"""How an image becomes the input of a network, and how it is predicted: the part of a card that inference reads."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From stored image values to network input: (value / max_value - mean) / std per channel.

    resize: None = the image's own size; "HxW" fixed; "short:N" = short side N, ratio kept; "long:N" likewise;
        "fit:SHORTxLONG" = as large as sides of at most these two allow, ratio kept.
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
