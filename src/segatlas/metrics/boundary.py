"""Boundary IoU and boundary F-score: how well the borders of classes are met.

Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
Boundary F-score: contour matching as in Csurka et al., "What is a good evaluation measure for semantic segmentation?",
BMVC 2013, here with counts summed over the set and chessboard distance, as in the boundary region.

All classes are done in one shot: a pixel has another class within reach exactly when the largest or the smallest label
within reach differs from its own, and cv2's dilate and erode give both. Letters: H W image, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segatlas.labels import IGNORE
from segatlas.metrics.label_maps import histogram, label_maps
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, mean, ratio
from segatlas.metrics.sums import Sums
from segatlas.structures.class_boundaries import near_another_class

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget

Map = np.ndarray
"""(H, W) uint8: 0..K-1, or `ignore`."""

BITS = 64
"""Classes whose contours are matched at once, one bit each."""


def boundary_reach(size: tuple[int, int], fraction: float) -> int:
    """Return the width d in pixels of the boundary region of a (H, W) image: a fraction of its diagonal, at least 1."""
    return max(1, round(fraction * math.hypot(*size)))


def boundary_region(labels: Map, width: int, ignore: int = IGNORE) -> np.ndarray:
    """Return (H, W) bool: the boundary regions of all classes, and all labelled pixels within `width` of the frame."""
    found = near_another_class(labels, width, ignore)
    for strip in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        found[strip] = labels[strip] != ignore
    return found


def boundary_counts(prediction: Map, label: Map, num_classes: int, width: int, ignore: int = IGNORE) -> np.ndarray:
    """Count the pixels of boundary regions.

    Args:
        prediction: (H, W) uint8, 0..K-1, and `ignore` where the label is ignored.
        label: (H, W) uint8, 0..K-1 or `ignore`.
        num_classes: K.
        width: of the boundary region, in pixels.
        ignore: the label value that is not judged.

    Returns:
        (K, 3) int64: pixels in both boundary regions of the class, in the truth's boundary region, in the prediction's
        boundary region.
    """
    true_boundary, predicted_boundary = (
        boundary_region(label, width, ignore),
        boundary_region(prediction, width, ignore),
    )
    both = true_boundary & predicted_boundary & (label == prediction)
    if num_classes <= 64:  # the label's two counts at once, by two bits above the class
        bits = both.view(np.uint8) << 7
        bits |= true_boundary.view(np.uint8) << 6
        bits |= label & 63
        found = histogram(bits).reshape(2, 2, 64)[:, 1, :num_classes]
        counted = [found[1], found.sum(0)]
    else:
        counted = [histogram(label, chosen)[:num_classes] for chosen in (both, true_boundary)]
    return np.stack([*counted, histogram(prediction, predicted_boundary)[:num_classes]], axis=1)


def contour_counts(prediction: Map, label: Map, num_classes: int, reach: int, ignore: int = IGNORE) -> np.ndarray:
    """Count contour pixels and those with a partner of the same class within reach. Arguments as in `boundary_counts`.

    Returns:
        (K, 4) int64: true contour pixels, those of them with a predicted one near, predicted contour pixels, those of
        them with a true one near.
    """
    counts = np.zeros((num_classes, 4), np.int64)
    places = [np.flatnonzero(near_another_class(labels, 1, ignore)) for labels in (label, prediction)]
    classes = [labels.ravel()[place] for labels, place in zip((label, prediction), places, strict=True)]
    for column, of_class in zip((0, 2), classes, strict=True):
        counts[:, column] = np.bincount(of_class, minlength=num_classes)[:num_classes]
    on_both = np.flatnonzero((counts[:, 0] > 0) & (counts[:, 2] > 0))
    for start in range(0, len(on_both), BITS):
        bit = np.zeros(256, _bits_for(len(on_both)))
        chosen = on_both[start : start + BITS]
        bit[chosen] = np.left_shift(1, np.arange(len(chosen), dtype=bit.dtype), dtype=bit.dtype)
        for column, own, other in ((1, 0, 1), (3, 1, 0)):
            contour = np.zeros(label.shape, bit.dtype)
            contour.ravel()[places[other]] = bit[classes[other]]
            matched = within_reach(contour, reach).ravel()[places[own]] & bit[classes[own]] != 0
            counts[:, column] += np.bincount(classes[own][matched], minlength=num_classes)[:num_classes]
    return counts


def _bits_for(count: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest integer with a bit for each of so many classes, at most BITS."""
    return np.uint8 if count <= 8 else np.uint16 if count <= 16 else np.uint32 if count <= 32 else np.uint64


def within_reach(bits: np.ndarray, reach: int) -> np.ndarray:
    """Return (H, W): the bits set anywhere at most `reach` away (chessboard distance), one axis after the other."""
    width = 2 * reach + 1
    found, span = np.pad(bits, reach), 1  # found: the bits of the next `span` rows
    while span < width:
        step = min(span, width - span)
        found, span = found[:-step] | found[step:], span + step
    span = 1
    while span < width:  # and columns
        step = min(span, width - span)
        found, span = found[:, :-step] | found[:, step:], span + step
    return found


class BoundaryQuality(Sums):
    """Counts pixels of boundary regions and of contours. boundary_width: a fraction of the image's diagonal."""

    def __init__(self, classes: Sequence[str], boundary_width: float = 0.02):
        super().__init__(regions=(len(classes), 3), contours=(len(classes), 4))
        self.boundary_width = boundary_width

    def update(self, result: Prediction, target: SemanticTarget) -> float:
        """Count one image; it has no score of its own."""
        count = len(self.counts["regions"])
        prediction, label = label_maps(result, target, count)
        width = boundary_reach(label.shape, self.boundary_width)
        self.counts["regions"] += boundary_counts(prediction, label, count, width)
        self.counts["contours"] += contour_counts(prediction, label, count, width)
        return math.nan

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`."""
        both, truth, predicted = self.counts["regions"].T
        boundary_iou = floats(ratio(both, truth + predicted - both))
        true, true_matched, predicted, predicted_matched = self.counts["contours"].T
        # nan_to_num: with contours on one side only, nothing matches and the score is 0.
        precision, recall = np.nan_to_num(ratio(predicted_matched, predicted)), np.nan_to_num(ratio(true_matched, true))
        score = np.nan_to_num(ratio(2 * precision * recall, precision + recall))
        boundary_f = floats(np.where(true + predicted > 0, score, math.nan))
        return Rows(
            per_class={"boundary_iou": boundary_iou, "boundary_f": boundary_f},
            whole={"mean_boundary_iou": mean(boundary_iou), "mean_boundary_f": mean(boundary_f)},
            setting=f"boundary width {100 * self.boundary_width:.1f} % of the diagonal",
        )


METRIC = Metric(
    name="boundary",
    title="boundaries between classes",
    accumulator=BoundaryQuality,
    switch="boundary",
    options=("boundary_width",),
    numbers=(
        Number(
            name="boundary_iou",
            heading="B-IoU",
            last_line="mean_boundary_iou",
            definition="Per class the IoU of the two boundary regions, both summed over the set (Cheng, CVPR 2021): "
            "the region of a mask is its pixels that have a labelled pixel of another class, or the outside of the "
            "image, at most d pixels away (chessboard distance), d = boundary_width x image diagonal, rounded, at "
            "least 1.",
        ),
        Number(
            name="boundary_f",
            heading="B-F",
            last_line="mean_boundary_f",
            definition="Per class 2 P R / (P + R) of contour pixels (those with a labelled 8-neighbour of another "
            "class; the image's frame is no contour): P = fraction of predicted contour pixels with a true contour "
            "pixel of the class at most d pixels away (d as in boundary_iou), R the other way round, both summed over "
            "the set; 0 where only one side has contours, undefined where none has.",
        ),
        Number(
            name="mean_boundary_iou",
            title="mean boundary IoU",
            definition="Mean of boundary_iou over the classes where it is defined.",
        ),
        Number(
            name="mean_boundary_f",
            title="mean boundary F-score",
            definition="Mean of boundary_f over the classes where it is defined.",
        ),
    ),
)
