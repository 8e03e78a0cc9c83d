"""Temporal smoothing: class probabilities averaged over the frames of a video, those further back ever less.

With p[t] the softmax of frame t's logits, at the network's stride, and w the weight of a new frame,

    m[t] = w * p[t] + (1 - w) * m[t - 1],    m[t] = p[t] in the first frame, after a cut and after a change of size,

and log m[t] takes the place of the logits: labels and confidence are made of it as ever. With w = 1 it is the same
labels as without smoothing: log p differs from the logits by one number a place. By windows, each window has its own
mean. A cut is where two frames, shrunk to 32 x 32 grey pixels, differ by more than a tenth of full scale on average.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.inference.images import PreparedImage
from segatlas.inference.runner import Runner
from segatlas.structures import Inputs, SemanticLogits

CUT = 25.5
"""Mean difference of two frames' thumbnails, of 0..255, above which they belong to different scenes."""
THUMBNAIL = (32, 32)
LEAST = 1e-12
"""A probability is taken for this at least, where its logarithm is."""


class SmoothedRunner(Runner):
    """A runner of class maps for the frames of one video, one after the other.

    cuts: where the mean began anew within the video.
    """

    def __init__(self, runner: Runner, weight: float):
        """Begin a video.

        Args:
            runner: runs the network.
            weight: of a new frame, above 0 and up to 1.

        Raises:
            UsageError: a weight out of range.
        """
        if not isinstance(weight, int | float) or not 0 < weight <= 1:
            raise UsageError(f"smooth: got {weight!r}, expected the weight of a new frame, above 0 and up to 1")
        vars(self).update(vars(runner))
        self.cuts = 0
        self._weight = weight
        self._means: list[Tensor] = []
        self._passes = 0
        self._size: tuple[int, int] | None = None
        self._thumbnail = np.zeros(THUMBNAIL, np.float32)

    def begin(self, image: PreparedImage) -> None:
        """Take the next frame: what is run from now on is of it."""
        grey = cv2.cvtColor(image.view, cv2.COLOR_RGB2GRAY)
        thumbnail = cv2.resize(grey, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        is_first = self._size is None
        if is_first or self._size != image.size or float(np.abs(thumbnail - self._thumbnail).mean()) > CUT:
            self._means = []
            self.cuts += not is_first
        self._size, self._thumbnail, self._passes = image.size, thumbnail, 0

    def output(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Run the form of the network; the logits are those of the mean."""
        output = super().output(inputs)
        assert isinstance(output, SemanticLogits), "a Segmenter smooths nothing else"
        probabilities = output.logits.softmax(dim=1)
        if self._passes == len(self._means):
            self._means.append(probabilities)
        else:
            self._means[self._passes] = torch.lerp(self._means[self._passes], probabilities, self._weight)
        mean = self._means[self._passes]
        self._passes += 1
        return output._replace(logits=mean.clamp_min(LEAST).log())
