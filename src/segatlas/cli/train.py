"""`segatlas train`: a recipe in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segatlas.cli.common import DebugOption, JsonOption, QuietOption, guard, print_json_line, split_words


@guard
def train(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [key=value]...")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="a recipe file (YAML)")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="last|PATH", help="continue a run; it needs no recipe")
    ] = None,
    devices: Annotated[int | None, typer.Option(help="processes or GPUs (short for train.devices)")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16 (short for train.precision)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="build all, run one batch, print shapes and memory")] = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a recipe: RECIPE is a shipped name (`segatlas config show --recipes`) or a YAML file."""
    from segatlas.errors import UsageError
    from segatlas.recipe import load_recipe

    recipe, overrides = split_words(words or [])
    if recipe and config:
        raise UsageError(f"both a recipe ({recipe}) and --config ({config}) were given; give one")
    for key, value in (("train.devices", devices), ("train.precision", precision)):
        if value is not None:
            overrides.append(f"{key}={value}")
    source = str(config) if config else recipe
    if resume and not source:
        from segatlas.training.run import find_run

        source = str(find_run(resume, root=_root(overrides)).config)
    if not source:
        raise UsageError("which recipe? e.g. segatlas train unet_folder data.root=DIR, or --resume last")
    cfg = load_recipe(source, *overrides)
    if dry_run:
        from dataclasses import asdict

        from segatlas.training import dry_run as run_one_batch

        facts = run_one_batch(cfg)
        typer.echo("\n".join(facts.lines()), err=json_line)
        if json_line:
            print_json_line(asdict(facts))
        return
    from segatlas.training import train as run_training

    resume = str(find_last(resume, overrides)) if resume else None
    run = run_training(cfg, resume=resume, name=source, quiet=quiet)
    if json_line:
        print_json_line({"run": str(run.dir), "model": str(run.best), **run.metrics})
    else:
        typer.echo(f"run: {run.dir}\nmodel: {run.best}\nreport: {run.dir / 'report.html'}")


def find_last(resume: str, overrides: list[str]) -> Path:
    """Return the run folder or checkpoint that `--resume` means."""
    from segatlas.training.run import find_run

    return Path(resume) if resume.endswith(".ckpt") else find_run(resume, root=_root(overrides)).root


def _root(overrides: list[str]) -> str:
    given = [word.partition("=")[2] for word in overrides if word.startswith("run.root=")]
    return given[-1] if given else "runs"
