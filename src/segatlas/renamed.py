"""Public Python names of earlier versions: they still work, with a warning that says the name of today."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

_LOSSES = (
    *("Boundary", "CentersOffsets", "ClassPresence", "CrossEntropy", "CrossEntropyDice", "Detail", "Dice", "Focal"),
    *("Lovasz", "Ohem", "PointCrossEntropy", "Tversky"),
)

RENAMED: dict[str, dict[str, str]] = {
    "segatlas.bench": {
        "Machine": "MachineState",
        "ModelFacts": "MeasuredModel",
        "Report": "BenchReport",
        "Row": "BenchRow",
        "Settings": "BenchSettings",
    },
    "segatlas.config.losses": {
        "Term": "LossConfig",
        **{f"{name}{kind}": f"segatlas.losses.{name}" for name in _LOSSES for kind in ("Term", "Config")},
    },
    "segatlas.data.checks": {"Diagnosis": "CheckReport"},
    "segatlas.data.transforms": {"Prepared": "PreparedSample"},
    "segatlas.drawing": {
        "bars_picture": "bars_image",
        "boundary_picture": "boundary_image",
        "confidence_picture": "confidence_image",
        "confusion_picture": "confusion_image",
        "curves_picture": "curves_image",
        "error_picture": "error_image",
        "save_picture": "save_image",
    },
    "segatlas.ops": {"raise_logits": "upsample_logits"},
}
"""Package -> its old public names, each with the name of today: in the package, or with dots and in another."""


def old_names(package: str, names: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose public names changed; the warning points at the line of the user."""
    table = RENAMED[package] if names is None else names

    def find(name: str) -> Any:
        if name not in table:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, _, new = table[name].rpartition(".")
        home = home or package
        warnings.warn(f"{package}.{name} is called {home}.{new} now", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules.get(home) or import_module(home), new)

    return find


def old_attribute(old: str, new: str) -> property:
    """Return a property of a class that gives the attribute `new` under its name of earlier versions."""

    def read(self: object) -> Any:
        message = f"{type(self).__name__}.{old} is called {new} now"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read, doc=f"The name of `{new}` in earlier versions.")


def moved_names(old: str, homes: Sequence[str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module `old` of earlier versions, whose names are in the modules `homes` today."""

    def find(name: str) -> Any:
        for home in () if name.startswith("__") else homes:
            try:
                found = getattr(import_module(home), name)
            except AttributeError:
                continue
            warnings.warn(f"{old}.{name} is {home}.{name} now", DeprecationWarning, stacklevel=2)
            return found
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


def moved_module(old: str, homes: Sequence[str]) -> ModuleType:
    """Return a module in the place of `old` of earlier versions, see `moved_names`."""
    module = ModuleType(old, f"The name of {', '.join(homes)} in earlier versions.")
    module.__dict__["__getattr__"] = moved_names(old, homes)
    return module
