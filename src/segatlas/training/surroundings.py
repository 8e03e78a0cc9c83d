"""What losses of weak labels read of a batch besides output and truth."""

from __future__ import annotations

from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.structures import Batch, Surroundings


def surroundings_of(batch: Batch, preprocessing: Preprocessing, progress: float) -> Surroundings:
    """Return the image with what it was normalised with, and what is known of the classes.

    Args:
        batch: as the network was given it.
        preprocessing: the card's.
        progress: how much of the training is done, 0..1.
    """
    return Surroundings(
        image=batch.inputs.image,
        valid=batch.valid,
        mean=preprocessing.mean,
        std=preprocessing.std,
        annotated=batch.annotated,
        present=batch.present,
        progress=progress,
    )
