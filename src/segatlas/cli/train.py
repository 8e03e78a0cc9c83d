"""`segatlas train`: a recipe in, a run folder out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segatlas.cli import completion
from segatlas.cli.common import (
    INTERRUPTED,
    ConfigFileOption,
    DebugOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    Words,
    human,
    load_recipe,
    print_json_line,
    telling_lines,
    telling_moved_data,
)
from segatlas.cli.data_words import with_recipe
from segatlas.cli.foreign_words import meant_by_words
from segatlas.errors import UsageError
from segatlas.printable import printable

if TYPE_CHECKING:
    from segatlas.recipe import Config

DRY_RUN = "Build all, run one batch, print shapes and memory; nothing is written."
PARTIAL = "Begin with what fits of model.start_from; short for model.start_partial=true."
RESUME = "Continue a run: 'last', a run folder or a checkpoint. It needs no recipe."
ResumeOption = Annotated[str | None, typer.Option(metavar="last|PATH", help=RESUME)]
DevicesOption = Annotated[int | None, typer.Option(help="Processes or GPUs; short for train.devices.")]
DeviceChoice = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda or mps; short for train.device.", autocompletion=completion.devices),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="fp32, bf16 or fp16; short for train.precision.", autocompletion=completion.precisions),
]
PartialOption = Annotated[bool, typer.Option("--partial", help=PARTIAL)]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help=DRY_RUN)]


def train(
    words: Words = None,
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
    """Train a recipe: a shipped name (`segatlas config schema --recipes` lists them), a YAML file, or a data folder.

    For a folder the recipe is unet_folder, or mask_rcnn_folder where there are objects and no masks.
    """
    start(
        words, config, resume=resume, device=device, devices=devices, precision=precision, partial=partial,
        dry_run=dry_run, json_line=json_line, quiet=quiet,
    )  # fmt: skip


def start(
    words: list[str] | None,
    config: Path | None,
    *,
    resume: str | None,
    device: str | None,
    devices: int | None,
    precision: str | None,
    partial: bool,
    dry_run: bool,
    json_line: bool,
    quiet: bool,
    check: Callable[[Config], None] = lambda _: None,
) -> None:
    """Do what `train` does; `check` looks at the recipe as it was read."""
    words, told = with_recipe(words or ()) if config is None and not resume else ([*(words or ())], "")
    short: dict[str, object] = {"train.device": device, "train.devices": devices, "train.precision": precision}
    short["model.start_partial"] = partial or None
    words += [f"{key}={value}" for key, value in short.items() if value is not None]
    if resume:
        resume = _resumed(resume, words)
        if config is None and all("=" in word for word in words[:1]):
            from segatlas.training.run import find_run

            config = find_run(resume).config
    elif config is None and (not words or "=" in words[0]):
        which = "which recipe? For example: segatlas train unet_folder data.root=DIR, or segatlas train DIR"
        raise UsageError("\n".join(filter(None, (which, meant_by_words(words)))))
    cfg = load_recipe(words, config)
    check(cfg)
    console = human(json_line=json_line)
    if told and not quiet:
        console.print(printable(told), markup=False)
    if told:
        from segatlas.data import require_layout

        with telling_lines(words, config):
            require_layout(cfg.data)  # before torch is imported, which takes seconds
    if dry_run:
        from dataclasses import asdict

        from segatlas.training import dry_run as run_one_batch

        with telling_lines(words, config):
            facts = run_one_batch(cfg)
        console.print("\n".join(facts.lines()))
        if json_line:
            print_json_line(asdict(facts))
        return
    from segatlas.training import Interrupted
    from segatlas.training import train as run_training
    from segatlas.training.fit import is_first_process

    try:
        with telling_lines(words, config), telling_moved_data() if resume else nullcontext():
            run = run_training(cfg, resume=resume, quiet=quiet)
    except Interrupted as stop:
        how = "a checkpoint was written" if stop.saved else "stopped at once"
        kept = f"continue with: segatlas train --resume {shlex.quote(str(stop.run))}"
        if not stop.run.exists():
            how, kept = "stopped before the first step", "nothing is kept"
        typer.echo(f"interrupted: {how}; {kept}", err=True)
        raise typer.Exit(INTERRUPTED) from stop
    if not is_first_process():
        return
    if not quiet:
        console.print(f"run: {run.dir}\nmodel: {run.best}\nreport: {run.dir / 'report.html'}")
    elif not json_line:
        console.print(f"{printable(run.best)}: {run.headline}", markup=False)
    if json_line:
        print_json_line({"run": str(run.dir), "model": str(run.best), **run.metrics})


def _resumed(resume: str, words: list[str]) -> str:
    """Return the run folder or checkpoint that `--resume` means; `run.root=` says where `last` is looked for."""
    from segatlas.training.run import find_run

    if resume.endswith(".ckpt"):
        if not Path(resume).is_file():
            raise UsageError(f"nothing to resume: {resume} does not exist")
        return resume
    roots = [word.partition("=")[2] for word in words if word.startswith("run.root=")]
    return str(find_run(resume, root=roots[-1] if roots else "runs").root)
