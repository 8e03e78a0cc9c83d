"""Pictures that people look at: colour masks, overlays, boundaries, heat maps, sheets, plots and the HTML report.

Everything takes and gives plain arrays: pictures are (H, W, 3) uint8 RGB, class maps are (H, W) integers where a value
that is no class (255) means "not labelled". No torch, no files read; matplotlib is imported inside `plots` only.
"""

from segatlas.drawing.files import encode_png, save_picture
from segatlas.drawing.legend import overlay
from segatlas.drawing.maps import boundary_picture, color_mask, confidence_picture, error_picture
from segatlas.drawing.report import ClassRow, ReportContent, write_report
from segatlas.drawing.sheets import sample_row, sheet, side_by_side

__all__ = [
    "ClassRow",
    "ReportContent",
    "boundary_picture",
    "color_mask",
    "confidence_picture",
    "encode_png",
    "error_picture",
    "overlay",
    "sample_row",
    "save_picture",
    "sheet",
    "side_by_side",
    "write_report",
]
