"""Volumes: predicted slice by slice, as the model's card says that slices are cut; labels on the volume's voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.nifti import VolumeHeader, decode_volume, read_header, read_slice, windowed
from segatlas.errors import DataError, TaskError, UsageError
from segatlas.inference.predictor import Predictor
from segatlas.labels import MAX_CLASSES
from segatlas.structures import VolumeSlices
from segatlas.tasks import TASKS

Tell = Callable[[int, int], None]
"""Called with (slices predicted, slices in all)."""


def slices_of(predictor: Predictor, window: tuple[float, float] | None = None, axis: int | None = None) -> VolumeSlices:
    """Return how volumes are cut for a model: as its card says, but for what is asked for.

    Args:
        predictor: the model.
        window: the stored values that become 0 and 1.
        axis: 0, 1 or 2.

    Raises:
        UsageError: a window that does not rise, no such axis, or no window is known.
        TaskError: the model gives no classes of pixels.
    """
    card = predictor.card
    if TASKS[card.task].target != "SemanticTarget":
        raise TaskError(f"volumes are predicted by models of classes of pixels; the task of this one is {card.task}")
    if window is None and card.slices is None:
        raise UsageError(
            "volume_window: the model did not learn from volumes, so its card does not say which values are 0 and 1; "
            "of CT of the abdomen they are -250 and 250 Hounsfield units"
        )
    known = card.slices or VolumeSlices()
    low, high = known.window if window is None else window
    if not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"volume_window: got {low:g}, {high:g}; expected two rising numbers")
    if axis not in (None, 0, 1, 2):
        raise UsageError(f"axis: got {axis}, expected 0, 1 or 2")
    return VolumeSlices(window=(low, high), axis=known.axis if axis is None else axis)


def predict_volume(
    predictor: Predictor, path: str | Path, slices: VolumeSlices, *, batch: int = 1, tell: Tell | None = None
) -> np.ndarray:
    """Predict a NIfTI volume slice by slice.

    An uncompressed file is read slice by slice; of a compressed one the whole volume is in memory, once.

    Args:
        predictor: the model.
        path: a .nii or .nii.gz file.
        slices: see `slices_of`.
        batch: slices per pass of the network.
        tell: called after each slice.

    Returns:
        (I, J, K) uint8 classes of the voxels, in the order in which the file stores them.

    Raises:
        DataError: a file that cannot be read or is no volume, see `read_header`.
        UsageError: as of `Predictor.predict_stream`.
        MissingExtraError: nibabel is not installed.
    """
    path = Path(path)
    header = read_header(path)
    if len(predictor.card.classes) > MAX_CLASSES:
        raise UsageError(f"volumes: {len(predictor.card.classes)} classes; label volumes hold {MAX_CLASSES} at most")
    labels = np.zeros(header.shape, np.uint8)
    count = header.slices(slices.axis)
    images = ((index, image) for index, image in enumerate(_images(predictor, path, header, slices)))
    with closing(predictor.predict_stream(images, batch=batch)) as results:
        for index, result in results:
            if isinstance(result, Exception):
                raise DataError(f"slice {index}: {result}", path) from result
            place = tuple(index if axis == slices.axis else slice(None) for axis in range(3))
            labels[place] = result.semantic.T
            if tell is not None:
                tell(index + 1, count)
    return labels


def _images(predictor: Predictor, path: Path, header: VolumeHeader, slices: VolumeSlices) -> Iterator[np.ndarray]:
    """Yield the slices as images (rows, columns, 1) float32 on the model's scale."""
    whole = decode_volume(read_bytes(path), slices, path) if path.suffix.lower() == ".gz" else None
    scale = np.float32(predictor.card.preprocessing.max_value)
    for index in range(header.slices(slices.axis)):
        values = read_slice(path, header, slices, index) if whole is None else whole[index]
        yield windowed(values, slices, path) * scale
