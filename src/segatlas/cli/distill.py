"""`segatlas distill`: a recipe and a teacher in, a run folder out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from segatlas.cli.common import ConfigFileOption, DebugOption, JsonOption, OfflineOption, QuietOption, Words
from segatlas.cli.train import (
    DeviceChoice,
    DevicesOption,
    DryRunOption,
    PartialOption,
    PrecisionOption,
    ResumeOption,
    start,
)
from segatlas.errors import UsageError

if TYPE_CHECKING:
    from segatlas.recipe import Config

TEACHER = "The trained network to learn from, as distill.teacher: a run or model folder, .ckpt, catalogue name, hub id."


def distill(
    words: Words = None,
    teacher: Annotated[str | None, typer.Option(metavar="PATH", help=TEACHER)] = None,
    config: ConfigFileOption = None,
    resume: ResumeOption = None,
    device: DeviceChoice = None,
    devices: DevicesOption = None,
    precision: PrecisionOption = None,
    partial: PartialOption = False,
    dry_run: DryRunOption = False,
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a recipe that learns from a trained network besides the labels; `train` does it where a recipe says so."""
    words = [*(words or [])]
    if teacher is not None:
        words.append(f"distill.teacher={json.dumps(teacher, ensure_ascii=False)}")
    start(
        words, config, resume=resume, device=device, devices=devices, precision=precision, partial=partial,
        dry_run=dry_run, json_line=json_line, quiet=quiet, check=_has_teacher,
    )  # fmt: skip


def _has_teacher(cfg: Config) -> None:
    if cfg.distill is None:
        raise UsageError("which teacher? --teacher PATH, or distill.teacher in the recipe")
