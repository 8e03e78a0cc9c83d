"""What ends training and a dry run alike, in words: a loss or gradient that is not finite, memory that is too small."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from segatlas.errors import CostError, TrainingError

ADVICE = "try a lower train.lr, train.clip=1 or train.precision=fp32"
LOOK_AT = (
    "Look at model.input (mean, std, max_value), the weights in losses, model.start_from and the images themselves "
    "(segatlas data check)"
)
SMALLER = "A smaller train.batch or transforms.crop helps"


def require_finite(what: str, value: float, where: str, advice: str) -> None:
    """Raise TrainingError where the loss or the gradient (`what`) is infinite or NaN.

    `where` tells the step and the images, `advice` what is kept and what to look at.
    """
    if not math.isfinite(value):
        raise TrainingError(f"the {what} became {value} {where}. {advice}")


@contextmanager
def told_of(keys: Sequence[str], where: str, advice: str) -> Iterator[None]:
    """Turn a `CostError` into a TrainingError that names the images, the step (`where`) and what is kept (`advice`)."""
    try:
        yield
    except CostError as error:
        raise TrainingError(
            f"{error} {where} on: {', '.join(keys[image] for image in error.images)}. {advice}"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether the processor's memory, or the device's, did not suffice. Torch says so in several ways."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def gradient_size(net: nn.Module) -> float:
    """Return a size of the gradient that is finite if every number in it is: its norm, of huge ones the largest number.

    The norm comes first, for on a processor the largest number costs twenty times as much.
    """
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    if not gradients:
        return 0.0
    norm = float(nn.utils.get_total_norm(gradients))
    return norm if math.isfinite(norm) else float(nn.utils.get_total_norm(gradients, norm_type=math.inf))
