"""An image as a model sees it: read, prepared, and what the network gives of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segatlas.errors import DataError
from segatlas.inference import Predictor, Segmentation
from segatlas.inference.images import GivenImage, ImageBatch, ImageLike, PreparedImage, WithSources

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from segatlas.structures import Inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenImage:
    """An image ready for a network.

    given: as `Predictor.predict` takes it. prepared: resized and ready to be normalised.
    """

    predictor: Predictor
    given: GivenImage
    prepared: PreparedImage

    @classmethod
    def of(cls, predictor: Predictor, image: GivenImage, sources: Mapping[str, ImageLike] | None = None) -> SeenImage:
        """Read an image, with its further sources where the model takes some.

        Raises:
            DataError: as `Predictor.predict`.
        """
        if sources is not None:
            image = WithSources(image=image.image if isinstance(image, WithSources) else image, sources=sources)
        return cls(predictor=predictor, given=image, prepared=predictor.prepare(image))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.prepared.size

    @property
    def crop(self) -> tuple[int, int]:
        """(H', W') of the network's input."""
        return self.prepared.input_size

    @property
    def view(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, the image to look at."""
        return self.prepared.view

    def inputs(self) -> Tensor | Inputs:
        """Return a batch of this image, normalised, on the predictor's device."""
        return ImageBatch([self.prepared], self.predictor.device).whole()

    def predicted(self) -> Segmentation:
        """Return what the predictor makes of it."""
        return self.predictor.predict(self.given)

    def not_finite(self, what: str) -> DataError:
        """Return the error of a network whose outputs are no numbers."""
        text = f"the network gives {what} that are no finite numbers; its weights or the image are at fault"
        return DataError(text, self.prepared.source or None)
