"""Importers: weights that other libraries wrote, read as ours and written back.

One folder is one library, one file in it one architecture (or one backbone). The table holds no torch; `importers`
imports the files of a library when they are needed. Each of them ends with its record `IMPORTER`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segatlas.conversion.importers.importer import Importer
    from segatlas.conversion.importers.source import Library

SOURCES: dict[str, tuple[str, ...]] = {
    "mmseg": (
        "bisenetv1",
        "bisenetv2",
        "cgnet",
        "ddrnet",
        "deeplabv3",
        "deeplabv3plus",
        "dnlnet",
        "dpt",
        "erfnet",
        "fast_scnn",
        "fastfcn",
        "fcn",
        "gcnet",
        "icnet",
        "isanet",
        "knet",
        "mask2former",
        "maskformer",
        "nonlocal_net",
        "ocrnet",
        "pidnet",
        "pointrend",
        "psanet",
        "pspnet",
        "segformer",
        "segmenter",
        "segnext",
        "semantic_fpn",
        "setr",
        "stdc",
        "upernet",
    ),
    "torchvision": ("deeplabv3", "fcn", "lraspp", "mask_rcnn"),
    "smp": (
        "deeplabv3",
        "deeplabv3plus",
        "dpt",
        "fpn",
        "linknet",
        "manet",
        "pan",
        "pspnet",
        "segformer",
        "unet",
        "unetplusplus",
        "upernet",
    ),
    "hf": (
        "dpt",
        "eomt",
        "eomt_dinov3",
        "mask2former",
        "maskformer",
        "oneformer",
        "segformer",
        "segformer_before_5",
        "upernet",
        "upernet_before_5",
        "upernet_beit",
        "upernet_beit_before_5",
    ),
    "nvlabs": ("segformer",),
    "vit_adapter": ("upernet",),
    "refinenet": ("refinenet",),
    "semask": ("semask_fpn",),
    "sanet": ("sanet",),
    "kfvton": ("kfvton_seg",),
    "espnet": ("espnet",),
    "edgenets": ("espnetv2",),
    "eomt": ("eomt",),
    "afma": ("afma",),
    "mmdet": ("condinst", "mask2former", "mask_rcnn", "maskformer", "panoptic_fpn", "pointrend_instance"),
    "detectron2": (
        "mask2former",
        "mask_rcnn",
        "maskformer",
        "panoptic_fpn",
        "panoptic_deeplab",
        "pointrend_instance",
    ),
}
"""Library -> the files in its folder that end with a record `IMPORTER`, mostly called like the architecture."""


def importers(source: str | None = None, architecture: str | None = None) -> list[Importer]:
    """Return the importers, of one library or of all, and for one architecture or all."""
    records: list[Importer] = [
        import_module(f"{__name__}.{library}.{name}").IMPORTER
        for library, names in SOURCES.items()
        for name in names
        if source in (None, library)
    ]
    return [record for record in records if architecture in (None, record.architecture)]


def load_source(library: str) -> Library:
    """Return what is known of a library as a whole: the record `SOURCE` in the `source.py` of its folder.

    A folder without that file is a library whose files hold tensors and nothing else.
    """
    if find_spec(f"{__name__}.{library}.source") is None:
        from segatlas.conversion.importers.source import Library

        return Library(name=library, title=library)
    record: Library = import_module(f"{__name__}.{library}.source").SOURCE
    return record
