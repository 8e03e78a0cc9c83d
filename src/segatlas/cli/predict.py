"""`segatlas predict`: images in; masks, overlays, boundaries, confidence maps and areas out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli import completion
from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    aux_paths,
    human,
    named_aux,
    print_json_line,
)
from segatlas.cli.predict_options import (
    FORMATS,
    AgnosticOption,
    Asked,
    AuxOption,
    OutOption,
    OverlapOption,
    PixelOption,
    ScaleOption,
    ScoreOption,
    SourceArgument,
    TopOption,
    ZipOption,
    default_kinds,
    parse_window,
    required,
    usual_kinds,
)
from segatlas.cli.predict_video import (
    CameraOption,
    CodecOption,
    FpsOption,
    FramesOption,
    SmoothOption,
    VideoOptions,
    predict_videos,
)
from segatlas.cli.predict_volumes import AxisOption, VolumeOptions, VolumeWindowOption, predict_volumes
from segatlas.errors import UsageError
from segatlas.files import require_writable, sweep_leftovers
from segatlas.output import all_kinds, ending_of, kinds_of, write
from segatlas.output.kinds import table_rows, write_table
from segatlas.output.submission import CITYSCAPES_TEST, names_in_zip, write_zip
from segatlas.printable import printable
from segatlas.safe_console import ProgressBar, progress_bar
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.inference import Predictor, Segmentation
    from segatlas.inference.images import GivenImage

__all__ = ["Job", "PredictionSummary", "add_aux", "parse_window", "plan_jobs", "predict"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image: its file, and the name of its results below the output folder, without ending.

    aux: names and files of the model's further inputs.
    """

    source: Path
    name: str
    aux: tuple[tuple[str, Path], ...] = ()

    def given(self) -> GivenImage:
        """Return what a Predictor takes."""
        from segatlas.inference.images import WithSources

        return WithSources(image=self.source, sources=dict(self.aux)) if self.aux else str(self.source)


@dataclass
class PredictionSummary:
    """What became of the images."""

    done: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder, checkpoint, published name or hub id.", autocompletion=completion.models
        ),
    ],
    source: SourceArgument = None,
    out: OutOption = None,
    save: Annotated[
        str | None, typer.Option(help=f"What to write, of: {','.join(all_kinds())}; default: {default_kinds()}.")
    ] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="One image, in place of SOURCE.")] = None,
    output_file: Annotated[Path | None, typer.Option("--output", help="Mask file (.png) for --input.")] = None,
    tta: Annotated[
        str,
        typer.Option(help="Test-time augmentation: flips, vertical, turns, scales:0.75,1,1.25, exp, joined by commas."),
    ] = "",
    window: Annotated[str, typer.Option(help="Predict by windows of N or HxW pixels.")] = "",
    overlap: OverlapOption = None,
    score: ScoreOption = None,
    top: TopOption = None,
    class_agnostic: AgnosticOption = False,
    batch: Annotated[int, typer.Option(min=1, help="Images of one size per pass.")] = 1,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    max_value: ScaleOption = None,
    pixel_size: PixelOption = "",
    mask_format: Annotated[str, typer.Option("--format", help=f"Codes in masks: {' or '.join(FORMATS)}.")] = "index",
    zip_file: ZipOption = None,
    aux: AuxOption = None,
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    camera: CameraOption = None,
    fps: FpsOption = None,
    frames: FramesOption = None,
    smooth: SmoothOption = None,
    codec: CodecOption = None,
    volume_window: VolumeWindowOption = None,
    axis: AxisOption = None,
    debug: DebugOption = False,
) -> None:
    """Segment images, videos or volumes with a trained model; results have each image's own size.

    A file that cannot be read is reported and the rest goes on; the exit code is 1 then. A video, an address, a pipe or
    a camera gives a video with overlay, and files for each frame where --save asks for them. A NIfTI volume gives a
    label volume with its affine.
    """
    asked = Asked(
        model=model,
        out=out,
        save=save,
        tta=tta,
        window=window,
        overlap=overlap,
        objects={"score": score, "top": top, "class_agnostic": class_agnostic or None},
        batch=batch,
        device=device,
        precision=precision,
        max_value=max_value,
        pixel_size=pixel_size,
        mask_format=mask_format,
        offline=offline,
        commercial_ok=commercial_ok,
        json_line=json_line,
        quiet=quiet,
    )
    videos = VideoOptions(camera=camera, fps=fps, most=frames, smooth=smooth, codec=codec)
    volumes = VolumeOptions(window=volume_window, axis=axis)
    others = (("--input", input_file), ("--output", output_file), ("--zip", zip_file), ("--aux", aux))
    if videos.are_meant(source or []):
        _refuse(others, "videos and cameras")
        predict_videos(asked, source or [], videos)
    elif volumes.are_meant(source or []):
        _refuse(others, "volumes")
        predict_volumes(asked, source or [], volumes)
    else:
        _predict_images(asked, source, (input_file, output_file), zip_file, aux)


def _refuse(given: Sequence[tuple[str, object]], what: str) -> None:
    """Raise UsageError for options that are for images alone."""
    for name, value in given:
        if value:
            raise UsageError(f"{name} is for images; {what} are predicted without")


def _predict_images(
    asked: Asked,
    source: list[str] | None,
    pair: tuple[Path | None, Path | None],
    zip_file: Path | None,
    aux: list[str] | None,
) -> None:
    """Predict images: SOURCE into a folder, or the pair of --input and --output."""
    out, output_file = asked.out, pair[1]
    if not source and pair == (None, None):
        what, too = ("which images?", "") if out else ("which images, and where to?", " and --out DIR")
        example = f"segatlas predict {printable(asked.model)} photos --out {printable(out or 'results')}"
        raise UsageError(f"{what} give files, folders or globs{too}, or --input FILE --output FILE: {example}")
    single = _single(source, out, *pair)
    asked.check_words()
    if single and asked.save is not None:
        raise UsageError(f"--save {asked.save}: --input and --output write the mask alone; give SOURCE and --out")
    not_read: list[Path] = []
    jobs = [single] if single else plan_jobs(source or [], required(out), not_read)
    jobs = add_aux(jobs, aux or [])
    _check_zip(zip_file, jobs, asked.mask_format)
    wanted = asked.check()
    _check_targets(jobs, _all_targets(jobs, wanted or usual_kinds(), out, output_file))  # before weights are loaded
    predictor = asked.load()
    jobs = [replace(job, aux=tuple((named_aux(dict(job.aux), predictor.card.inputs) or {}).items())) for job in jobs]
    task = predictor.card.task
    kinds = kinds_of(task, wanted)[:1] if single else kinds_of(task, wanted)
    tables = (
        {}
        if single
        else {kind: required(out) / TASKS[task].tables[kind] for kind in TASKS[task].tables if kind in kinds}
    )
    targets = _all_targets(jobs, kinds, out, output_file, tables)
    _check_targets(jobs, targets)
    written = asked.writing(predictor.card, kinds)
    _check_aux(jobs, predictor, asked.model)

    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in tables}
    console, summary, start = human(json_line=asked.json_line), PredictionSummary(), time.perf_counter()
    _tell_not_read(not_read, console, quiet=asked.quiet)
    with progress_bar(total=len(jobs), shown=not asked.quiet, text_last=True, console=console) as bar:
        for job, result in _results(predictor, jobs, asked.batch, "confidence" in kinds, summary, console, bar):
            for kind, path in targets[job].items():
                if kind in tables:
                    rows[kind] += table_rows(task, result, written, f"{job.name}{job.source.suffix}")
                else:
                    write(task, kind, result, path, written)
            summary.done += 1
            bar.step(job.name)
    for kind, path in tables.items():
        write_table(task, rows[kind], path, written)
    _write_zip(zip_file, {targets[job].get("mask", job.source): job.source for job in jobs}, summary, console)
    seconds, place = time.perf_counter() - start, output_file if single else out
    is_rounded = asked.precision == "bf16" and summary.done and not asked.quiet
    agreement = _bf16_agreement(predictor, jobs) if is_rounded else None
    if not asked.quiet:
        _tell_done(console, summary, agreement, f"in {seconds:.1f} s -> {printable(place)}")
    if asked.json_line:
        print_json_line(_facts(asked.model, place, summary, not_read, seconds, agreement))
    if summary.failed:
        raise typer.Exit(1)


def _facts(
    model: str, place: Path | None, summary: PredictionSummary, not_read: list[Path], seconds: float, agreement: Any
) -> dict[str, Any]:
    """Return what --json prints."""
    return {
        "model": model,
        "out": str(place),
        "predicted": summary.done,
        "failed": summary.failed,
        "not_read": [str(path) for path in not_read],
        "seconds": round(seconds, 3),
        "bf16_agreement": agreement,
    }


def _check_zip(file: Path | None, jobs: Sequence[Job], mask_format: str) -> None:
    """Refuse a zip that the server would not take, before anything is predicted."""
    if file is None:
        return
    if mask_format != "cityscapes-ids":
        raise UsageError("--zip: the server takes label ids; add --format cityscapes-ids")
    if file.is_dir():
        raise UsageError(f"--zip: {file} is a folder, expected a file")
    require_writable(file.parent, error=UsageError)
    names_in_zip({Path(job.name): job.source for job in jobs})


def _write_zip(file: Path | None, masks: dict[Path, Path], summary: PredictionSummary, console: Console) -> None:
    """Write the zip and say how much of the test set it holds; none where an image failed."""
    if file is None:
        return
    if summary.failed:
        console.print(f"{printable(file)} is not written: {len(summary.failed)} of {len(masks)} images failed")
        return
    write_zip(names_in_zip(masks), file)
    whole = "" if len(masks) == CITYSCAPES_TEST else f"; the test set has {CITYSCAPES_TEST}"
    console.print(f"{len(masks)} masks in {printable(file)}{whole}", markup=False)


def _tell_done(console: Console, summary: PredictionSummary, agreement: float | None, where: str) -> None:
    if agreement is not None:
        console.print(f"bf16: {agreement:.2%} of the first image's pixels have the label of fp32", markup=False)
    images = "image" if summary.done == 1 else "images"
    failed = f", {len(summary.failed)} failed" if summary.failed else ""
    console.print(f"{summary.done} {images} predicted{failed} {where}")


def _tell_not_read(files: Sequence[Path], console: Console, *, quiet: bool) -> None:
    if not files or quiet:
        return
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    endings = ", ".join(sorted({path.suffix or "none" for path in files}))
    console.print(f"not read: {count} with other endings ({endings}), the first is {printable(files[0])}")


def plan_jobs(sources: Sequence[str], out: Path, not_read: list[Path] | None = None) -> list[Job]:
    """Return the images that files, folders and globs name, each with the name of its results.

    A file's results are called by its stem; below a folder (or the fixed part of a glob) sub-folders are kept. Files
    that lie in `out` are left out, so that a second call does not take results for images; hidden ones too. Files
    with an ending that is not read are added to `not_read`.

    Raises:
        UsageError: nothing there, no image among it, or two images whose results would have one name.
    """
    if not sources:
        raise UsageError("which images? give files, folders or globs, or --input FILE --output FILE")
    found: dict[str, Path] = {}
    for source in sources:
        for path, name in _expand(source, out, [] if not_read is None else not_read):
            other = found.setdefault(name, path)
            if os.path.realpath(other) != os.path.realpath(path):
                raise UsageError(
                    f"{other} and {path} would both be written to {out / name}_*; predict them into different folders"
                )
    return [Job(source=path, name=name) for name, path in found.items()]


def add_aux(jobs: Sequence[Job], words: Sequence[str]) -> list[Job]:
    """Return the jobs with the further inputs that --aux names: NAME=FILE for one image, NAME=FOLDER for any number.

    A path alone has no name yet, see `named_aux`. In a folder, a file belongs to the image whose results have its name
    without ending.

    Raises:
        UsageError: not NAME=PATH, a name twice, nothing there, or an image without its file.
    """
    from segatlas.data.formats.listing import list_images

    found: dict[str, dict[str, Path]] = {}
    for name, path in aux_paths(words).items():
        word = f"{name}={path}" if name else str(path)
        if path.is_dir():
            found[name] = {key: files[0] for key, files in list_images(path).items()}
            lost = [job for job in jobs if job.name not in found[name]]
            if lost:
                count = f" ({len(lost)} of {len(jobs)} images have none)" if len(jobs) > 1 else ""
                raise UsageError(f"--aux {word}: no file {lost[0].name}.* for {lost[0].source}{count}")
        elif not path.is_file():
            raise UsageError(f"--aux {word}: no such file or folder")
        elif len(jobs) != 1:
            raise UsageError(f"--aux {word}: one file for {len(jobs)} images; give a folder with a file for each")
        else:
            found[name] = {jobs[0].name: path}
    return [replace(job, aux=tuple((name, files[job.name]) for name, files in found.items())) for job in jobs]


def _check_aux(jobs: Sequence[Job], predictor: Predictor, model: str) -> None:
    """Raise UsageError where --aux gives the model less or other than it takes."""
    from segatlas.inference.images import check_names

    try:
        check_names([name for name, _ in jobs[0].aux], predictor.card.inputs[1:], model)
    except UsageError as error:
        raise UsageError(f"--aux: {error}") from None


def _single(
    source: list[str] | None, out: Path | None, input_file: Path | None, output_file: Path | None
) -> Job | None:
    """Return the one job of --input and --output, None where SOURCE and --out are used."""
    if input_file is None and output_file is None:
        return None
    if input_file is None or output_file is None:
        raise UsageError("--input and --output belong together")
    if source or out:
        raise UsageError("give either SOURCE and --out, or --input and --output")
    if output_file.suffix.lower() != ".png":
        raise UsageError(f"--output: {output_file} does not end in .png; masks are written without loss, as PNG")
    if not input_file.is_file():
        raise UsageError(f"--input: no such file: {input_file}")
    return Job(source=input_file, name=input_file.stem)


def _expand(source: str, out: Path, not_read: list[Path]) -> list[tuple[Path, str]]:
    """Return (file, name) of the images that one SOURCE stands for; adds other files of a folder to `not_read`."""
    from segatlas.data.formats.listing import images_of

    path = Path(source)
    if path.is_dir() and path.resolve() == out.resolve():
        raise UsageError(f"--out {out} is the folder of the images; choose another")
    found = images_of(source, without=out)
    not_read += found.not_read
    return found.images


def _all_targets(
    jobs: Sequence[Job],
    kinds: Sequence[str],
    out: Path | None,
    output_file: Path | None,
    tables: Mapping[str, Path] | None = None,
) -> dict[Job, dict[str, Path]]:
    """Return kind -> file of each image's results; `tables` are files that all images share."""
    if output_file is not None:
        return {job: dict.fromkeys(kinds, output_file) for job in jobs}
    shared = tables or {}
    return {
        job: {kind: shared.get(kind, required(out) / f"{job.name}{ending_of(kind)}") for kind in kinds} for job in jobs
    }


def _check_targets(jobs: Sequence[Job], targets: dict[Job, dict[str, Path]]) -> None:
    """Try the places of all results, before any work. UsageError where one cannot be written."""
    sources = {Path(os.path.realpath(job.source)) for job in jobs}
    further = {Path(os.path.realpath(file)): name for job in jobs for name, file in job.aux}
    paths = [path for files in targets.values() for path in files.values()]
    for path in paths:
        place = Path(os.path.realpath(path))
        if place in sources:
            raise UsageError(f"{path} is one of the images and would be overwritten; choose another --out")
        if place in further:
            word = f"--aux {further[place]}".rstrip()
            raise UsageError(f"{path} is a file of {word} and would be overwritten; choose another place")
        if path.is_dir():
            raise UsageError(f"{path} is a folder, where a file is to be written; choose another --out")
    for folder in dict.fromkeys(path.parent for path in paths):
        require_writable(folder, error=UsageError)
        sweep_leftovers(folder)


def _bf16_agreement(predictor: Predictor, jobs: Sequence[Job]) -> float | None:
    """Return the fraction of pixels of the first good image that have fp32's label; None where bf16 was not used."""
    if predictor.precision != "bf16":
        return None
    exact = predictor.with_precision("fp32")
    for job, rounded in predictor.predict_stream((job, job.given()) for job in jobs):
        if isinstance(rounded, Exception):
            continue
        if rounded.class_map is None:
            return None
        return float((rounded.semantic == exact.predict(job.given()).semantic).mean())
    return None


def _results(
    predictor: Predictor,
    jobs: Sequence[Job],
    batch: int,
    confidence: bool,
    summary: PredictionSummary,
    console: Console,
    bar: ProgressBar,
) -> Iterator[tuple[Job, Segmentation]]:
    """Yield each good image's result; note and print the others."""
    items = ((job, job.given()) for job in jobs)
    for job, result in predictor.predict_stream(items, batch=batch, confidence=confidence):
        if not isinstance(result, Exception):
            yield job, result
            continue
        summary.failed.append({"source": str(job.source), "error": str(result)})
        console.print(f"failed: {printable(_told(job, result))}", style="red", markup=False)
        bar.step(job.name)


def _told(job: Job, error: Exception) -> str:
    """Return the message of an error with the one file at fault in front."""
    names_file = getattr(error, "path", None) is not None or str(job.source) in str(error)
    return str(error) if names_file else f"{job.source}: {error}"
