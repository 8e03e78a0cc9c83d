"""One reader per file format, shared by all datasets: images, masks, run-length codes."""

from __future__ import annotations

from segatlas.data.formats.images import IMAGE_ENDINGS, as_image, decode_image, image_size, read_header, read_image
from segatlas.data.formats.masks import label_counts, read_mask, translate, write_color_mask, write_mask

__all__ = [
    "IMAGE_ENDINGS",
    "as_image",
    "decode_image",
    "image_size",
    "label_counts",
    "read_header",
    "read_image",
    "read_mask",
    "translate",
    "write_color_mask",
    "write_mask",
]
