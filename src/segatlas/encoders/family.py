"""What each file of encoders ends with: a record `FAMILY` that names its options and makes its networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segatlas.errors import UsageError

if TYPE_CHECKING:
    from segatlas.encoders.contract import EncoderBase

MOST_LEVELS = 5
"""How often the published encoders halve the image."""


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A family without options."""


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """Options that most families of feature maps have.

    levels: how often the image is halved, 2 to 5; what makes coarser maps is left out. None = all of its maps.
    """

    levels: int | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and not 2 <= self.levels <= MOST_LEVELS:
            raise UsageError(f"levels = {self.levels}: expected 2 to {MOST_LEVELS}, or null for all maps")


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What a family makes an encoder of; `segatlas.encoders.spec.EncoderSpec` is the same, checked.

    name: one of `segatlas.encoders.ENCODERS`; otherwise a timm backbone, as `timm/NAME` or plainly NAME.
    output_stride: stride of the last map, for encoders that can dilate in place of striding; None = its own.
    options: settings of its family, an instance of `EncoderFamily.options`; None = the defaults.
    """

    name: str
    output_stride: int | None = None
    options: Any = None


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """What a file of encoders offers.

    options: frozen dataclass of settings with a line each in its docstring; all have defaults, the published ones.
    output_strides: strides of the last map that can be asked for; none where it has its own only, None where that
        depends on the network and building it tells.
    build: makes the encoder that the settings name, with random weights, for images of so many channels.
    """

    options: type = NoOptions
    output_strides: tuple[int, ...] | None = ()
    build: Callable[[EncoderSettings, int], EncoderBase]

    def stride_problem(self, name: str, stride: Any) -> str:
        """Say what is wrong with an output stride of the encoder `name`; "" where nothing is."""
        if stride is None:
            return ""
        if self.output_strides == ():
            return f"{name} has its own only, expected null"
        if isinstance(stride, bool) or not isinstance(stride, int):
            return "expected a whole number, or null for the encoder's own"
        if self.output_strides is not None and stride not in self.output_strides:
            return f"{name} can have {', '.join(map(str, self.output_strides))}, or null for its own"
        return ""
