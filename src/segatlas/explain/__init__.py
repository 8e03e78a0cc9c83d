"""Images and numbers that explain a model. Every function is for notebooks, too; `segatlas explain` calls the same.

The names below are imported at first use, so that `import segatlas.explain` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.explain.attended_patches import AttentionMap, attention_figure, attention_map
    from segatlas.explain.boundary_files import write_boundary_labels
    from segatlas.explain.choosing import Region
    from segatlas.explain.error_figures import kind_sheet
    from segatlas.explain.error_report import errors_of
    from segatlas.explain.errors_of_objects import object_errors
    from segatlas.explain.errors_of_pixels import pixel_errors
    from segatlas.explain.field_calculator import chain_fields
    from segatlas.explain.heatmaps import HeatMap, heat_map, heat_map_figure, heat_maps
    from segatlas.explain.layers import find_layer, layer_names
    from segatlas.explain.maps import Labels, drawn_map, map_figure
    from segatlas.explain.measured_field import effective_field
    from segatlas.explain.palettes import find_palette, palette_names
    from segatlas.explain.probabilities import (
        ProbabilityMaps,
        entropy_figure,
        entropy_map,
        probability_figure,
        probability_maps,
    )
    from segatlas.explain.second_source import (
        LaidSource,
        co_attention_figure,
        co_attention_map,
        laid_source,
        lattice_figure,
        prior_figure,
    )
    from segatlas.explain.theoretical_field import receptive_field

_PUBLIC = {
    "AttentionMap": "segatlas.explain.attended_patches",
    "attention_figure": "segatlas.explain.attended_patches",
    "attention_map": "segatlas.explain.attended_patches",
    "chain_fields": "segatlas.explain.field_calculator",
    "effective_field": "segatlas.explain.measured_field",
    "errors_of": "segatlas.explain.error_report",
    "kind_sheet": "segatlas.explain.error_figures",
    "object_errors": "segatlas.explain.errors_of_objects",
    "pixel_errors": "segatlas.explain.errors_of_pixels",
    "receptive_field": "segatlas.explain.theoretical_field",
    "write_boundary_labels": "segatlas.explain.boundary_files",
    **dict.fromkeys(
        ("LaidSource", "co_attention_figure", "co_attention_map", "laid_source", "lattice_figure", "prior_figure"),
        "segatlas.explain.second_source",
    ),
    "HeatMap": "segatlas.explain.heatmaps",
    "Labels": "segatlas.explain.maps",
    "ProbabilityMaps": "segatlas.explain.probabilities",
    "Region": "segatlas.explain.choosing",
    "drawn_map": "segatlas.explain.maps",
    "entropy_figure": "segatlas.explain.probabilities",
    "entropy_map": "segatlas.explain.probabilities",
    "find_layer": "segatlas.explain.layers",
    "find_palette": "segatlas.explain.palettes",
    "heat_map": "segatlas.explain.heatmaps",
    "heat_map_figure": "segatlas.explain.heatmaps",
    "heat_maps": "segatlas.explain.heatmaps",
    "layer_names": "segatlas.explain.layers",
    "map_figure": "segatlas.explain.maps",
    "palette_names": "segatlas.explain.palettes",
    "probability_figure": "segatlas.explain.probabilities",
    "probability_maps": "segatlas.explain.probabilities",
}
"""Public name -> the file that it is in."""

__all__ = [
    "AttentionMap",
    "HeatMap",
    "Labels",
    "LaidSource",
    "ProbabilityMaps",
    "Region",
    "attention_figure",
    "attention_map",
    "chain_fields",
    "co_attention_figure",
    "co_attention_map",
    "drawn_map",
    "effective_field",
    "entropy_figure",
    "entropy_map",
    "errors_of",
    "find_layer",
    "find_palette",
    "heat_map",
    "heat_map_figure",
    "heat_maps",
    "kind_sheet",
    "laid_source",
    "lattice_figure",
    "layer_names",
    "map_figure",
    "object_errors",
    "palette_names",
    "pixel_errors",
    "prior_figure",
    "probability_figure",
    "probability_maps",
    "receptive_field",
    "write_boundary_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segatlas.explain' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
