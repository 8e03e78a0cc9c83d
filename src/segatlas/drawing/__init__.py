"""Images that people look at: colour masks, overlays, boundaries, heat maps, sheets, plots and the HTML report.

Everything takes and gives plain arrays: images are (H, W, 3) uint8 RGB, class maps are (H, W) integers where a value
that is no class (255) means "ignore". No torch, no files read; matplotlib is imported where a plot is drawn.
"""

from segatlas.drawing.files import png_bytes, save_image, write_bytes
from segatlas.drawing.gallery import Cell, gallery
from segatlas.drawing.heat import heat_overlay, with_color_bar
from segatlas.drawing.legend import legend_image, overlay, percent, with_legend
from segatlas.drawing.maps import (
    boundary_image,
    color_mask,
    confidence_image,
    error_image,
    heat_image,
    object_boundaries,
    source_view,
    viewable,
)
from segatlas.drawing.object_crops import CROP_TITLES, object_row
from segatlas.drawing.plots import bars_image, confusion_image, curves_image, pairs_image, read_metrics
from segatlas.drawing.report import ReportContent, write_report
from segatlas.drawing.results import name_of, result_colors, result_overlay, result_plot, results_sheet
from segatlas.drawing.sheets import (
    SAMPLE_TITLES,
    object_maps,
    object_overlay,
    sample_row,
    sheet,
    side_by_side,
    truth_maps,
    truth_overlay,
)
from segatlas.drawing.showing import facts_html, result_html, results_html, show, small_png
from segatlas.drawing.warps import warped_lattice
from segatlas.renamed import old_names

__all__ = [
    "CROP_TITLES",
    "SAMPLE_TITLES",
    "Cell",
    "ReportContent",
    "bars_image",
    "boundary_image",
    "color_mask",
    "confidence_image",
    "confusion_image",
    "curves_image",
    "error_image",
    "facts_html",
    "gallery",
    "heat_image",
    "heat_overlay",
    "legend_image",
    "name_of",
    "object_boundaries",
    "object_maps",
    "object_overlay",
    "object_row",
    "overlay",
    "pairs_image",
    "percent",
    "png_bytes",
    "read_metrics",
    "result_colors",
    "result_html",
    "result_overlay",
    "result_plot",
    "results_html",
    "results_sheet",
    "sample_row",
    "save_image",
    "sheet",
    "show",
    "side_by_side",
    "small_png",
    "source_view",
    "truth_maps",
    "truth_overlay",
    "viewable",
    "warped_lattice",
    "with_color_bar",
    "with_legend",
    "write_bytes",
    "write_report",
]

__getattr__ = old_names("segatlas.drawing")
