"""From a model on the disk to a pruned one beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segatlas.bench.subjects import count_flops
from segatlas.build.saving import save_pretrained
from segatlas.errors import UsageError
from segatlas.evaluation.sources import CONFIG_FILE, find_run
from segatlas.hub.loading import find_model, load_pretrained
from segatlas.models.reading import load_architecture
from segatlas.printable import printable
from segatlas.pruning.control import Control, narrower
from segatlas.pruning.groups import torch_pruning
from segatlas.pruning.removal import Gradients, PruneReport, prune_network
from segatlas.pruning.settings import PruneSettings
from segatlas.recipe import Config
from segatlas.structures import noise_inputs


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A pruned model: its folder, and what was done."""

    folder: Path
    report: PruneReport


def prune_model(
    model: str | Path, out: str | Path, settings: PruneSettings, *, data: Config | None = None, batches: int = 8
) -> PrunedModel:
    """Prune a model and write what is left as a model folder, which `load` takes like any other.

    Its score is no longer the one that the card told, so that is left out; a training that begins with it
    (`model.start_from`) gives it one of its own.

    Args:
        model: as for `load`.
        out: the folder.
        settings: how far, and by what.
        data: the recipe whose training images and losses tell what matters, for the importance "taylor"; None = that of
            the run that the model lies in.
        batches: how many batches of them.

    Raises:
        UsageError: the network cannot be pruned, or not so far; images are asked for and nothing says which; or the
            folder is that of the model, or of a run.
        WeightsError: no model there, or the folder cannot be written.
        MissingExtraError: torch-pruning is not installed.
    """
    torch_pruning()
    _require_apart(find_model(model), Path(out))
    net, card = load_pretrained(model)
    gradients: Gradients | None = None
    if settings.importance == "taylor":
        from segatlas.pruning.gradients import gradient_source

        gradients = gradient_source(data or recipe_of(model), card, batches)
    smaller, report = prune_network(net, settings, gradients)
    before, after = report.macs
    told = f"{card.source}; pruned to {after / before:.3f} of its MACs" if card.source else "pruned"
    folder = save_pretrained(
        smaller, out, classes=card.classes, palette=card.palette, card=replace(card, source=told, metric={})
    )
    return PrunedModel(folder=folder, report=report)


def _require_apart(place: Path, out: Path) -> None:
    """Raise UsageError where what is written would take the place of the model, or of that of a run."""
    if place.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"out: {printable(out)} holds the model that is pruned, which stays as it is; another folder")
    if find_run(out) is not None:
        raise UsageError(f"out: {printable(out)} belongs to a run, whose model stays as it is; another folder")


def recipe_of(model: str | Path) -> Config:
    """Return the recipe of the run that a model lies in. UsageError where it lies in none."""
    run = find_run(model)
    if run is None:
        raise UsageError(f"{printable(model)} lies in no run folder, so say which images: --data RECIPE")
    return Config.load(run / CONFIG_FILE)


def control_of(model: str | Path, settings: PruneSettings, *, multiple: int = 1) -> tuple[Control, int]:
    """Return the narrower network that costs what a model would cost once pruned, and what the model costs now.

    Args:
        model: as for `load`. Of a pruned one it is the network that it has been.
        settings: `macs`, `size` and `tolerance` of them.
        multiple: of which each width is one.

    Raises:
        UsageError: there is no such network, none of about that cost, or `settings` say no `macs`.
    """
    if settings.macs is None:
        raise UsageError("control: say --macs, the fraction of multiply-accumulates that the narrower network has")
    net, _ = load_pretrained(model)
    config: Any = net.config
    inputs = noise_inputs(load_architecture(str(net.architecture)).inputs(config), settings.size, device="meta").given()
    whole = count_flops(net, inputs) // 2
    wanted = round(whole * settings.macs)
    found = narrower(str(net.architecture), config, wanted, settings.size, multiple=multiple)
    if abs(found.macs - wanted) > settings.tolerance * whole:
        raise UsageError(
            f"control: macs: {settings.macs:.3g} cannot be met within {settings.tolerance:.3g} by one factor on all "
            f"widths: the nearest to be had is {found.macs / whole:.3g}"
        )
    return found, whole
