"""Conversion in both directions, as `segatlas.convert` offers it: a model of ours may be a name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segatlas.conversion.converting import convert_file, export_file
from segatlas.hub.loading import find_model

LOGGER = logging.getLogger("segatlas")


def convert(
    source: str | Path,
    out: str | Path,
    arch: str | None = None,
    *,
    config: str | Path | None = None,
    stated: Mapping[str, Any] | None = None,
    to: str = "",
) -> Path:
    """Convert weights of another library to a model folder that `segatlas.load` takes, or a model of ours to theirs.

    Args:
        source: a weights file (torch, either format, or safetensors), or a folder with one; with `to`: a model of ours,
            as for `load`. Nothing that stands in it is executed.
        out: the folder to write; with `to`: the file.
        arch: our name of the architecture, where several fit the file; None = recognise it.
        config: the library's own configuration, for what weights cannot tell (a config.py of MMSegmentation, a
            config.json of Hugging Face); None = what the file itself holds, else a sidecar file that agrees with the
            weights, else the published defaults. Each default taken is logged.
        stated: dotted path in that configuration -> value, for what neither weights nor files tell.
        to: a library ("mmseg", ...): convert in the other direction.

    Returns:
        `out`.

    Raises:
        WeightsError: not readable, not recognised, several architectures fit, or tensors that do not fit.
        UsageError: unknown architecture or library.
    """
    if to:
        written = export_file(find_model(source), out, to=to)
        for note in written.notes:
            LOGGER.warning("%s: %s", written.file, note)
        return written.file
    done = convert_file(source, out, arch=arch, config=config, stated=stated)
    LOGGER.info("%s: %s of %s", done.file, done.card.architecture, done.title)
    for note in (*done.notes, *(f"left out: {name}" for name in done.left_out)):
        LOGGER.warning("%s: %s", done.file, note)
    return done.folder
