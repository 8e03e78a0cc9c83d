"""Random and fixed transforms of samples: own frozen records, `draw(generator, size) -> params`, then `apply`.

Geometry composes to one affine and one warp, colour and normalisation to one matrix.
"""

from __future__ import annotations

from segatlas.data.transforms.boundary_labels import BoundaryLabels
from segatlas.data.transforms.color import ColorChange, GaussianBlur, Photometric, normalise
from segatlas.data.transforms.geometry import Geometry, Placement, resized_size
from segatlas.data.transforms.pipeline import Pipeline, PreparedSample
from segatlas.data.transforms.thin_plate import ThinPlateWarp
from segatlas.data.transforms.warp import fill_outside, resize_image, warp_image, warp_label
from segatlas.renamed import old_names

__all__ = [
    "BoundaryLabels",
    "ColorChange",
    "GaussianBlur",
    "Geometry",
    "Photometric",
    "Pipeline",
    "Placement",
    "PreparedSample",
    "ThinPlateWarp",
    "fill_outside",
    "normalise",
    "resize_image",
    "resized_size",
    "warp_image",
    "warp_label",
]

__getattr__ = old_names("segatlas.data.transforms")
