"""The part of `segatlas predict` that takes NIfTI volumes: predicted slice by slice, written as label volumes."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from segatlas.cli.common import human, print_json_line
from segatlas.cli.predict_options import Asked, required
from segatlas.data.formats.guards import VOLUME_ENDINGS, is_volume_name
from segatlas.errors import DataError, UsageError
from segatlas.files import require_writable, sweep_leftovers
from segatlas.printable import printable
from segatlas.safe_console import progress_bar

VolumeWindowOption = Annotated[
    str | None,
    typer.Option(metavar="LOW,HIGH", help="Of a volume: the values that become 0 and 1; default: as the model's card."),
]
AxisOption = Annotated[
    int | None,
    typer.Option(min=0, max=2, help="Of a volume: the axis that is cut; default: as the model's card."),
]
KIND = "mask"


@dataclass(frozen=True, kw_only=True)
class VolumeOptions:
    """The words of a call that are about volumes, as given."""

    window: str | None
    axis: int | None

    def are_meant(self, sources: Sequence[str]) -> bool:
        """Whether a call with these words and sources is about volumes.

        Raises:
            UsageError: some sources are volumes and others are not, or words about volumes stand with images.
        """
        found = [source for source in sources if _files(source)]
        if found and len(found) < len(sources):
            other = next(source for source in sources if source not in found)
            raise UsageError(f"{found[0]} is a volume and {other} is not: predict them in two calls")
        given = {"--volume-window": self.window, "--axis": self.axis}
        if not found and (words := ", ".join(word for word, value in given.items() if value is not None)):
            raise UsageError(f"{words}: for volumes ({' '.join(VOLUME_ENDINGS)}); SOURCE is none")
        return bool(found)

    def parsed_window(self) -> tuple[float, float] | None:
        """Return the two numbers of --volume-window. UsageError for anything else."""
        if self.window is None:
            return None
        try:
            low, high = (float(word) for word in self.window.split(","))
        except ValueError:
            raise UsageError(f"--volume-window: got {self.window!r}, expected LOW,HIGH such as -250,250") from None
        return low, high


def predict_volumes(asked: Asked, sources: Sequence[str], options: VolumeOptions) -> None:
    """Predict each volume; one that cannot be used is told, and the rest goes on."""
    from segatlas.data.formats.nifti import read_header, write_labels

    asked.check_words()
    wanted = asked.check() or (KIND,)
    if wanted != (KIND,):
        raise UsageError(f"--save {','.join(wanted)}: of a volume the label volume is written, --save {KIND}")
    if asked.pixel_size or asked.mask_format != "index":
        raise UsageError("--pixel-size and --format are for images; a volume has its own spacing, and class indices")
    window, out = options.parsed_window(), required(asked.out)
    jobs = plan_volumes(sources, out)
    _check(jobs, out)
    if len(jobs) == 1:
        read_header(next(iter(jobs)))  # a volume that cannot be used should not wait for the weights
    predictor = asked.load()
    from segatlas.inference.volumes import predict_volume, slices_of

    slices = slices_of(predictor, window, options.axis)
    console, facts, failed = human(json_line=asked.json_line), list[dict[str, Any]](), list[dict[str, str]]()
    for source, target in jobs.items():
        start = time.perf_counter()
        try:
            header = read_header(source)
            with progress_bar(total=header.slices(slices.axis), shown=not asked.quiet, console=console) as bar:
                labels = predict_volume(
                    predictor,
                    source,
                    slices,
                    batch=asked.batch,
                    tell=lambda *_, bar=bar: bar.step(),
                )
            write_labels(target, labels, source)
        except DataError as error:
            failed.append({"source": str(source), "error": str(error)})
            console.print(f"failed: {printable(error)}", style="red", markup=False)
            continue
        counts = np.bincount(labels.ravel(), minlength=len(predictor.card.classes)).tolist()
        seconds = round(time.perf_counter() - start, 3)
        facts.append({
            "source": str(source), "file": str(target), "shape": list(header.shape), "spacing": list(header.spacing),
            "axis": slices.axis, "window": list(slices.window), "seconds": seconds,
            "voxels": dict(zip(predictor.card.classes, counts, strict=True)),
        })  # fmt: skip
        if not asked.quiet:
            shape = " x ".join(map(str, header.shape))
            console.print(
                f"{printable(source)}: {shape} voxels in {seconds:.1f} s -> {printable(target)}", markup=False
            )
    if asked.json_line:
        print_json_line({"model": asked.model, "out": str(out), "volumes": facts, "failed": failed})
    if failed:
        raise typer.Exit(1)


def plan_volumes(sources: Sequence[str], out: Path) -> dict[Path, Path]:
    """Return each volume with the file of its labels, OUT/NAME_mask and its own ending.

    Raises:
        UsageError: nothing there, or two volumes whose results would have one name.
    """
    jobs: dict[Path, Path] = {}
    for source in sources:
        for path in _files(source):
            begin = path.name[: path.name.lower().rindex(".nii")]
            target = out / f"{begin}_{KIND}{path.name[len(begin) :].lower()}"
            other = next((one for one, file in jobs.items() if file == target), path)
            if os.path.realpath(other) != os.path.realpath(path):
                raise UsageError(f"{other} and {path} would both be written to {target}; use two folders")
            jobs[path] = target
    return jobs


def _files(source: str) -> list[Path]:
    """Return the volumes that a word means: a file, a pattern, a folder of volumes and no images; none = no volumes."""
    path = Path(source)
    if path.is_dir():
        from segatlas.data.formats.listing import is_image_name, walk_files

        files = [*walk_files(path)] if source else []
        return [] if any(map(is_image_name, files)) else [file for file in files if is_volume_name(file)]
    if path.exists() or not glob.has_magic(source):
        return [path] if is_volume_name(path) else []
    found = sorted(Path(name) for name in glob.glob(source, recursive=True))
    return found if found and all(map(is_volume_name, found)) else []


def _check(jobs: dict[Path, Path], out: Path) -> None:
    """Try the places of all results, before any work."""
    sources = {os.path.realpath(source) for source in jobs}
    for target in jobs.values():
        if os.path.realpath(target) in sources:
            raise UsageError(f"{target} is one of the volumes and would be overwritten; choose another --out")
        if target.is_dir():
            raise UsageError(f"{target} is a folder, where a file is to be written; choose another --out")
    require_writable(out, error=UsageError)
    sweep_leftovers(out)
