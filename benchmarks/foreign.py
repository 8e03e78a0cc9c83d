"""Where the peers come from. Each function imports one of them, or says why that cannot be."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.rows import NotHereError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "mmsegmentation",
    "mmengine",
    "mmcv-lite",
    "numpy",
    "opencv-python",
)
"""Distributions whose versions are written beside the figures."""


def shared_folder() -> Path | None:
    """Return the folder of shared material (SEGATLAS_SHARED, else ../shared), None where there is none."""
    folder = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
    return folder.resolve() if folder.is_dir() else None


def peer_module(name: str) -> ModuleType:
    """Import a peer's module; NotHereError where it is not installed or does not start."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise NotHereError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def transformers() -> ModuleType:
    """Import transformers, without its advice on the screen."""
    module = peer_module("transformers")
    module.logging.set_verbosity_error()
    return module


def mmseg(name: str = "mmseg") -> ModuleType:
    """Import a module of MMSegmentation, through the loader in shared/parity where there is one."""
    use_loader()
    return peer_module(name)


def use_loader() -> None:
    """Let the loader make MMSegmentation importable; without the loader it must be so by itself."""
    parity = loader_folder()
    if parity is None or "ref_shims" in sys.modules:
        return
    sys.path.insert(0, str(parity))
    try:
        peer_module("ref_shims").install()
    except NotHereError:
        raise
    except Exception as error:
        raise NotHereError(f"mmseg cannot be imported: {type(error).__name__}: {error}") from error


def loader_folder() -> Path | None:
    """Return the folder that holds MMSegmentation's loader, None where there is none."""
    shared = shared_folder()
    return shared / "parity" if shared and (shared / "parity" / "ref_shims.py").is_file() else None
