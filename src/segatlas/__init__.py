"""SegAtlas: image segmentation, every well-known architecture in one readable file, one recipe, one command.

The names below are the stable public surface. They are imported at first use, so that `import segatlas` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segatlas.renamed import OldModules
from segatlas.version import __version__

if TYPE_CHECKING:
    from segatlas import errors, explain, ops
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained
    from segatlas.evaluation import evaluate
    from segatlas.hub.converting import convert
    from segatlas.inference import Predictor, Segmentation, load
    from segatlas.models import list_models
    from segatlas.recipe import Config
    from segatlas.structures import SemanticLogits
    from segatlas.training import train

_PUBLIC = {
    "Config": "segatlas.recipe:Config",
    "Predictor": "segatlas.inference:Predictor",
    "Segmentation": "segatlas.inference:Segmentation",
    "SemanticLogits": "segatlas.structures:SemanticLogits",
    "convert": "segatlas.hub.converting:convert",
    "create_model": "segatlas.build.network:create_model",
    "errors": "segatlas.errors",
    "evaluate": "segatlas.evaluation:evaluate",
    "explain": "segatlas.explain",
    "list_models": "segatlas.models:list_models",
    "load": "segatlas.inference:load",
    "ops": "segatlas.ops",
    "save_pretrained": "segatlas.build.saving:save_pretrained",
    "train": "segatlas.training:train",
}
"""Public name -> "module:attribute", or the module itself."""

__all__ = [
    "Config",
    "Predictor",
    "Segmentation",
    "SemanticLogits",
    "__version__",
    "convert",
    "create_model",
    "errors",
    "evaluate",
    "explain",
    "list_models",
    "load",
    "ops",
    "save_pretrained",
    "train",
]


OldModules.install()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segatlas' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
