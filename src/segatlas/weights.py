"""The names that the rooms `checkpoint`, `build`, `conversion`, `hub` and `downloads` had in earlier versions."""

from __future__ import annotations

import sys

from segatlas.renamed import moved_module, moved_names

_MOVED: dict[str, tuple[str, ...]] = {
    "building": ("build.network",),
    "card": ("checkpoint.card",),
    "card_checks": ("checkpoint.card_checks",),
    "catalogue": ("hub.catalogue",),
    "class_lists": ("conversion.class_lists",),
    "converting": ("conversion.converting", "hub.converting"),
    "describing": ("build.describing",),
    "downloading": ("downloads.http",),
    "encoder_weights": ("build.encoder_weights",),
    "fetching": ("hub.fetching",),
    "fitting": ("checkpoint.fitting",),
    "hostile": ("checkpoint.hostile",),
    "hub": ("downloads.hugging_face",),
    "importers": ("conversion.importers",),
    "importers.foreign": ("conversion.importers.foreign",),
    "importers.importer": ("conversion.importers.importer",),
    "importers.renames": ("conversion.importers.renames",),
    "importers.sidecar": ("conversion.importers.sidecar",),
    "importers.source": ("conversion.importers.source",),
    "importers.stacks": ("conversion.importers.stacks",),
    "json_text": ("checkpoint.json_text",),
    "listing": ("models.listing",),
    "pickle_bounds": ("checkpoint.pickle_bounds",),
    "prefixes": ("checkpoint.prefixes",),
    "reading": ("checkpoint.reading",),
    "safetensors_header": ("checkpoint.safetensors_header",),
    "saving": ("checkpoint.model_folder", "build.assembling", "hub.loading"),
    "starting": ("build.starting",),
    "torch_zip": ("checkpoint.torch_zip",),
    "unpickling": ("checkpoint.unpickling",),
    "validation": ("checkpoint.validation",),
}
"""File in the old folder -> the files that hold its names today."""

_PUBLIC = (
    *("models.listing", "checkpoint.card"),  # first: they load no torch
    *("build.network", "build.starting", "checkpoint.model_folder", "checkpoint.reading"),
    *("hub.converting", "hub.loading"),
)
"""Where the names of the folder itself are."""

__path__: list[str] = []  # a package, so that `import segatlas.weights.card` comes here first

for _old, _homes in _MOVED.items():
    _module = moved_module(f"{__name__}.{_old}", [f"segatlas.{home}" for home in _homes])
    sys.modules[_module.__name__] = _module
    _parent, _, _name = _module.__name__.rpartition(".")
    setattr(sys.modules[_parent], _name, _module)

__getattr__ = moved_names(__name__, [f"segatlas.{home}" for home in _PUBLIC])
