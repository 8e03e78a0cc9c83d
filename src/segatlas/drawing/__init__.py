"""Pictures that people look at: colour masks, overlays, boundaries, heat maps, sheets, plots and the HTML report.

Everything takes and gives plain arrays: pictures are (H, W, 3) uint8 RGB, class maps are (H, W) integers where a value
that is no class (255) means "not labelled". No torch, no files read; matplotlib is imported inside `plots` only.
"""

from segatlas.drawing.files import png_bytes, save_picture, write_bytes
from segatlas.drawing.legend import overlay
from segatlas.drawing.maps import boundary_picture, color_mask, confidence_picture, error_picture, viewable
from segatlas.drawing.plots import bars_picture, confusion_picture, curves_picture, read_metrics
from segatlas.drawing.report import ClassRow, ReportContent, write_report
from segatlas.drawing.sheets import SAMPLE_TITLES, sample_row, sheet, side_by_side

__all__ = [
    "SAMPLE_TITLES",
    "ClassRow",
    "ReportContent",
    "bars_picture",
    "boundary_picture",
    "color_mask",
    "confidence_picture",
    "confusion_picture",
    "curves_picture",
    "error_picture",
    "overlay",
    "png_bytes",
    "read_metrics",
    "sample_row",
    "save_picture",
    "sheet",
    "side_by_side",
    "viewable",
    "write_bytes",
    "write_report",
]
