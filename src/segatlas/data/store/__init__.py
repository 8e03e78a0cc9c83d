"""Decoded images and labels, kept on disk so that each file is decoded once."""

from __future__ import annotations

from segatlas.data.store.store import Store, Usage, default_folder

__all__ = ["Store", "Usage", "default_folder"]
