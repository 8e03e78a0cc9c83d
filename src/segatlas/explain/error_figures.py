"""The sheet of one kind of error: the largest of them, each with image, truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segatlas.data.dataset import SegmentationData
from segatlas.drawing.error_sheets import OBJECT_TITLES, PIXEL_TITLES, error_sheet, pixel_error_row
from segatlas.drawing.object_crops import object_row, part_around
from segatlas.errors import UsageError
from segatlas.explain.error_report import ErrorReport
from segatlas.explain.errors_of_pixels import KINDS, TITLES

Color = tuple[int, int, int]


def kind_sheet(
    report: ErrorReport, kind: str, dataset: SegmentationData, palette: Sequence[Color], cell_width: int = 260
) -> np.ndarray:
    """Return the sheet, (H, W, 3) uint8.

    Args:
        report: with cases.
        kind: of KINDS.
        dataset: the split that was looked at, whose images are read again.
        palette: K RGB colours.
        cell_width: width of an image on it.

    Raises:
        UsageError: no such kind, or it did not occur.
    """
    if kind not in KINDS:
        raise UsageError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    cases = report.cases[kind]
    if not cases:
        raise UsageError(f"kind: no error of kind {kind!r} occurred")
    rows: list[Sequence[np.ndarray]] = []
    shown: list[np.ndarray] = []
    for case in cases:
        image = dataset.load(case.index).image
        if case.kinds is None:
            rows.append(object_row(image, case.truth, case.prediction))
            continue
        assert case.truth is not None
        assert case.prediction is not None
        of_kind = case.kinds == KINDS.index(kind)
        rows.append(pixel_error_row(image, case.truth, case.prediction, case.mask, of_kind, palette))
        top, left, bottom, right = part_around(case.mask)
        shown += [labels[top:bottom, left:right] for labels in (case.truth, case.prediction)]
    total, unit = report.total(kind), report.unit if report.total(kind) != 1 else report.unit.rstrip("s")
    return error_sheet(
        rows,
        [case.caption for case in cases],
        title=f"{TITLES[kind]}: {total} {unit}, the largest",
        titles=PIXEL_TITLES if report.unit == "pixels" else OBJECT_TITLES,
        shown=shown,
        palette=palette,
        classes=report.classes,
        cell_width=cell_width,
    )
