"""What `segatlas predict` is asked for, whatever it is to predict: options, and a model loaded by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.errors import UsageError
from segatlas.output import all_kinds, kinds_of, tasks_with_writers
from segatlas.output.kinds import MEASURED
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    from segatlas.checkpoint.card import Card
    from segatlas.inference import Predictor

FORMATS = ("index", "cityscapes-ids")

SourceArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders (with all below), globs; or volumes, videos, addresses, - for standard input."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder for the results, or a video file.")]
OverlapOption = Annotated[
    float | None,
    typer.Option(
        help="Fraction that neighbouring windows overlap, default 1/3; without --window: of two objects of a class "
        "whose boxes have a higher IoU the worse one goes."
    ),
]
PixelOption = Annotated[
    str, typer.Option(help="How long a pixel's side is, such as 0.5um: areas and lengths in it too.")
]
ScaleOption = Annotated[
    float | None,
    typer.Option(help="Value that is full scale in the images (1, 255, 4095, 65535); default: as the model's."),
]
ScoreOption = Annotated[float | None, typer.Option(help="Objects of a lower score are left out.")]
TopOption = Annotated[int | None, typer.Option(min=1, help="Objects of an image at most, those of highest score.")]
ZipOption = Annotated[
    Path | None, typer.Option("--zip", metavar="FILE.zip", help="Also all masks in one zip for Cityscapes' server.")
]
AuxOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]PATH",
        help="A further input of the model: a file, or a folder of files by stem; by name where it takes several.",
    ),
]
AgnosticOption = Annotated[
    bool, typer.Option("--class-agnostic", help="Of overlapping objects of any two classes the worse one goes.")
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words of a call, as given. objects: what is asked of objects, None = nothing."""

    model: str
    out: Path | None
    save: str | None
    tta: str
    window: str
    overlap: float | None
    objects: Mapping[str, Any]
    batch: int
    device: str
    precision: str
    max_value: float | None
    pixel_size: str
    mask_format: str
    offline: bool
    commercial_ok: bool
    json_line: bool
    quiet: bool

    def __post_init__(self) -> None:
        if "=" in self.model and not Path(self.model).exists():
            raise UsageError(f"{self.model} names no model; write segatlas predict MODEL IMAGES --out DIR")

    def check_words(self) -> None:
        """Refuse words that mean nothing."""
        if self.mask_format not in FORMATS:
            raise UsageError(f"--format: got {self.mask_format!r}, expected one of {', '.join(FORMATS)}")

    def check(self) -> tuple[str, ...] | None:
        """Check what needs no model, and return the kinds of --save, None where it is not given."""
        wanted = None if self.save is None else parse_kinds(self.save)
        self.writing(None, ())
        self.loading()
        if wanted and "mask" not in wanted and self.mask_format != "index":
            raise UsageError(f"--format {self.mask_format} is about masks; --save {self.save} writes none")
        return wanted

    def loading(self) -> dict[str, Any]:
        """Return the options of `load`, checked."""
        options = {"tta": self.tta, **_window_options(self.window, self.overlap), "offline": self.offline}
        objects = _asked_of_objects(self.objects, self.window, self.overlap)
        return {**options, "commercial_ok": self.commercial_ok, "max_value": self.max_value, "objects": objects}

    def load(self) -> Predictor:
        """Load the model."""
        from segatlas.inference import load, parse_views

        options = self.loading()
        parse_views(options["tta"])  # a mistyped word should not wait for the weights
        return load(self.model, device=self.device, precision=self.precision, **options)

    def writing(self, card: Card | None, kinds: Sequence[str]) -> WriterOptions:
        """Return what writers of these kinds need; without a card, to check the rest."""
        size = PixelSize.read(self.pixel_size) if self.pixel_size else None
        if size is not None and card is not None:
            _require_measures(self.pixel_size, card.task, kinds)
        codes = None if card is None else _mask_codes(self.mask_format, card, kinds)
        return WriterOptions(model=self.model, codes=codes, pixel_size=size)


def default_kinds() -> str:
    """Return what is written where --save is not given, for the help."""
    return "; ".join(f"{','.join(kinds_of(name, None))} ({name})" for name in tasks_with_writers())


def usual_kinds() -> list[str]:
    """Return the kinds that are written for some task where --save is not given."""
    return sorted({kind for name in tasks_with_writers() for kind in kinds_of(name, None)})


def required(out: Path | None) -> Path:
    """Return what --out says. UsageError where it is not given."""
    if out is None:
        raise UsageError("where to? give --out DIR")
    return out


def parse_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of --save. UsageError for an unknown one, or none."""
    kinds = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for kind in kinds:
        if kind not in all_kinds():
            raise UsageError(f"--save: got {kind!r}, expected some of {','.join(all_kinds())}")
    if not kinds:
        raise UsageError(f"--save: nothing to write; expected some of {','.join(all_kinds())}")
    return kinds


def parse_window(text: str) -> int | tuple[int, int]:
    """Return "512" as 512 and "512x1024" as (512, 1024), height first. UsageError for anything else."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UsageError(f"--window: got {text!r}, expected pixels as N or HxW, such as 512 or 512x1024")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _window_options(window: str, overlap: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {"window": parse_window(window)} if window else {}
    return options if overlap is None or not window else {**options, "overlap": overlap}


def _asked_of_objects(asked: Mapping[str, Any], window: str, overlap: float | None) -> dict[str, Any]:
    """Return what is asked of objects, checked."""
    from segatlas.config.objects import ObjectRule, asked_rule

    asked = {**asked, "overlap": None if window else overlap}
    asked_rule(ObjectRule(), asked)  # a number out of range should not wait for the weights
    return asked


def _require_measures(pixel_size: str, task: str, kinds: Sequence[str]) -> None:
    """Raise UsageError where nothing that is written says an area."""
    if not set(kinds) & set(MEASURED):
        able = ",".join(kind for kind in TASKS[task].writers if kind in MEASURED)
        written = f"{','.join(kinds)} {'does' if len(kinds) == 1 else 'do'} not"
        raise UsageError(
            f"--pixel-size {pixel_size}: {able} say areas, {written}; add --save {able.rpartition(',')[2]}"
        )


def _mask_codes(mask_format: str, card: Card, kinds: Sequence[str]) -> Callable[[Any], Any] | None:
    """Return what turns class indices into the codes of --format, None for the indices themselves."""
    if mask_format == "index":
        return None
    from segatlas.data.datasets import cityscapes

    if "mask" not in kinds:
        raise UsageError(
            f"--format {mask_format} is about masks of classes; the model's task is {card.task}, which is written as "
            f"{','.join(kinds)}"
        )
    if tuple(card.classes) != tuple(cityscapes.CLASSES):
        raise UsageError(
            f"--format {mask_format} needs a model of the {len(cityscapes.CLASSES)} Cityscapes classes; this one has "
            f"{len(card.classes)}: {', '.join(card.classes[:8])}"
        )
    return cityscapes.to_label_ids
