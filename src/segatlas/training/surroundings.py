"""What losses of weak labels read of a batch besides output and truth."""

from __future__ import annotations

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.structures import Batch, Surroundings


def surroundings_of(batch: Batch, preprocessing: Preprocessing, progress: float) -> Surroundings:
    """Return the image with what it was normalised with, and what is known of the classes.

    Padding is where an image is exactly 0 in all channels: stored values become that only where they are the mean
    itself, which ImageNet's is for no whole number.

    Args:
        batch: as the network was given it.
        preprocessing: the card's.
        progress: how much of the training is done, 0..1.
    """
    image = batch.inputs.image
    return Surroundings(
        image=image,
        valid=(image != 0).any(dim=1),
        mean=preprocessing.mean,
        std=preprocessing.std,
        annotated=batch.annotated,
        present=batch.present,
        progress=progress,
    )
