"""The Lightning module: one training step, one validation step, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from segatlas.checkpoint.card import Card
from segatlas.data.sample import Sample
from segatlas.inference import Predictor
from segatlas.inference.images import with_sources
from segatlas.metrics import MetricSet, create_for_training
from segatlas.models import find_entry
from segatlas.recipe import Config
from segatlas.structures import Batch, Inputs, Output
from segatlas.tasks import TASKS
from segatlas.training.distillation import Distillation, trained_too, watched
from segatlas.training.faults import ADVICE, LOOK_AT, gradient_size, require_finite, told_of
from segatlas.training.freezing import training_mode
from segatlas.training.optim import build_optimizer, fuse_steps
from segatlas.training.plan import Plan
from segatlas.training.run import RunFolder
from segatlas.training.saving import save_model
from segatlas.training.schedule import Plateau, encoder_lr_factor, lr_factor
from segatlas.training.surroundings import surroundings_of

Sizes: TypeAlias = Sequence[tuple[int, int]]


class SegmentationModule(pl.LightningModule):
    """Wraps a plain network with its criterion for the trainer.

    Validation goes through the same Predictor that `eval` and `predict` use, so that the three cannot disagree.
    """

    def __init__(self, net: nn.Module, criterion: nn.Module, card: Card, config: Config, *, plan: Plan, step: int = 0):
        super().__init__()
        self.net = net
        self.criterion = criterion
        self.card = card
        self.recipe = config
        self.plan = plan
        self.next_batch = step * plan.accumulate
        self.plateau = Plateau(config.train.schedule.patience)
        self.has_checkpoint = step > 0
        self.last_terms: dict[str, Tensor] = {}
        self.validation_scores: dict[str, float] = {}
        self._predictor: Predictor | None = None
        self._metrics: MetricSet | None = None
        self._is_fused = False

    # ---- training
    @property
    def epoch(self) -> int:
        """The epoch (0-based) of the last optimiser step."""
        return self.plan.epoch_of(self.global_step)

    @property
    def advice(self) -> str:
        """What is said of a loss or gradient that is not finite: what is kept, and what to look at.

        At the first step no rate has been used yet, so none is to blame.
        """
        if self.global_step == 0:
            return f"{LOOK_AT}; segatlas train --dry-run tells the terms of the loss"
        return (
            f"The last good checkpoint is kept; {ADVICE}" if self.has_checkpoint else f"{ADVICE[0].upper()}{ADVICE[1:]}"
        )

    def on_train_start(self) -> None:
        """Put the network in training mode, frozen parts keep their statistics; the recipe's rates and decays hold.

        A checkpoint's optimiser brings its own, and a resume may change them.
        """
        training_mode(self.net, self.recipe.train)
        groups = self.trainer.optimizers[0].param_groups
        for group, wanted in zip(groups, self.configure_optimizers().param_groups, strict=True):
            group.update({name: value for name, value in wanted.items() if name != "params"})

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one batch. Raises TrainingError naming the images when it is not finite."""
        epoch, index = self.plan.batch_in_epoch(self.next_batch)
        self.next_batch += 1
        torch.manual_seed(step_seed(self.recipe.seed, epoch, index, self.global_rank))
        if (advance := getattr(self.net, "advance", None)) is not None:
            advance(self.plan.fraction(self.global_step))
        inputs = batch.inputs
        if self.recipe.train.channels_last:
            inputs = inputs.changed(channels_last)
        with watched(self.criterion, self.net, inputs, batch.targets):
            output = forward(self.net, inputs, batch.targets, batch.sizes)
        step = f"at step {self.global_step}"
        with torch.autocast(inputs.image.device.type, enabled=False), told_of(batch.keys, step, self.advice):
            total, self.last_terms = self._judged(output, batch)
        where = f"{step} on: {', '.join(batch.keys)}"
        require_finite("loss", float(total.detach()), where, self.advice)
        return total

    def _judged(self, output: Output, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts."""
        given: tuple[Any, ...] = (output, batch.targets)
        if getattr(self.criterion, "reads_around", False):
            given += (surroundings_of(batch, self.card.preprocessing, self.plan.fraction(self.global_step)),)
        total, terms = self.criterion(*given)
        return total, terms

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate of this step: a function of the step alone, so a resume cannot shift it.

        Raises TrainingError where the gradient is not finite: the step would ruin the weights, and a checkpoint them.
        """
        if self.recipe.train.precision != "fp16":  # there, loss scaling leaves such a step out and scales lower
            require_finite("gradient", gradient_size(self), f"at step {self.global_step}", self.advice)
        if not self._is_fused:
            fuse_steps(optimizer)
            self._is_fused = True
        schedule, step, done = self.recipe.train.schedule, self.global_step, self.plan.fraction(self.global_step)
        for group in optimizer.param_groups:
            base, factor = group["base_lr"], encoder_lr_factor if group.get("of_encoder") else lr_factor
            group["lr"] = base * factor(schedule, step, self.plan.steps, self.plateau.drops, fraction=done, base=base)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser of the recipe."""
        train = self.recipe.train
        apart = train.schedule.encoder_warmup > 0
        adapters = trained_too(self.criterion, self.recipe.distill)
        return build_optimizer(self.net, train.optimizer, train.lr, encoder_apart=apart, too=adapters)

    @property
    def learning_rate(self) -> float:
        """The learning rate that the classifier's group had at the last step."""
        return max(group["lr"] for group in self.trainer.optimizers[0].param_groups if not group.get("too"))

    # ---- validation
    @property
    def predictor(self) -> Predictor:
        """The network with its current weights, as users will meet it."""
        if self._predictor is None:
            self._predictor = Predictor(
                self.net,
                self.card,
                device=str(self.device),
                precision=self._validation_precision(),
                check_scale=False,
            )
        return self._predictor

    def on_validation_epoch_start(self) -> None:
        """Start counting anew, with a predictor made anew: averaged weights are swapped in where it cannot see it."""
        self._predictor = None
        self._metrics = self._new_metrics()

    def validation_step(self, sample: Sample | None, index: int) -> None:
        """Predict one image at its own size and count; None where this process has fewer than others."""
        if sample is None:
            return
        assert self._metrics is not None
        assert sample.target is not None
        self._metrics.update(self.predictor.predict(with_sources(sample, self.card)), sample.target)

    def on_validation_epoch_end(self) -> None:
        """Add up what all processes counted."""
        assert self._metrics is not None
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self._metrics.state())
            self._metrics = self._new_metrics()
            for state in states:
                self._metrics.merge(state)
        scores = self._metrics.compute()
        self.validation_scores = {number.name: scores.whole[number.name] for number in scores.monitored}

    def _new_metrics(self) -> MetricSet:
        return create_for_training(TASKS[self.card.task].metrics, self.card.classes, self.recipe.eval.model_dump())

    def _validation_precision(self) -> str:
        return "fp32" if self.recipe.train.precision == "fp32" else "bf16"

    # ---- what is kept
    def keep(self, checkpoint: Path, folder: RunFolder, metric: dict[str, Any]) -> None:
        """Write the model folder of a new best. metric: the card's."""
        save_model(checkpoint, replace(self.card, metric=metric), folder.model)

    # ---- checkpoints: plain types only, so that they load with weights_only=True
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network, where the run stands and what the schedule must remember.

        The trainer's own counters are left out: a resume sets them from the step, see `training.resume`.
        """
        self.has_checkpoint = True
        checkpoint["card"] = self.card.to_dict()
        checkpoint["plateau"] = self.plateau.state_dict()
        checkpoint["plan"] = self.plan.to_dict()
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")
        checkpoint["epoch"] = self.epoch
        if isinstance(self.criterion, Distillation):
            checkpoint["teacher"] = self.criterion.teacher.sha256
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the schedule's memory; the time that `train.time_limit` gives is counted anew."""
        self.plateau.load_state_dict(checkpoint["plateau"])
        checkpoint["callbacks"].pop("Timer", None)


def forward(net: nn.Module, inputs: Inputs, targets: Any, sizes: Sizes) -> Output:
    """Run a network in training mode; one that draws what its losses are taken of is given the truths, too."""
    needs = find_entry(str(net.architecture))[0].needs
    output: Output = net(inputs, targets, sizes) if needs.targets_in_forward else net(inputs)
    return output


def channels_last(images: Tensor) -> Tensor:
    """Return maps (N, C, H, W) written pixel by pixel, which convolutions are faster on; others stay as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def step_seed(seed: int, epoch: int, batch_index: int, rank: int) -> int:
    """Return the seed of all randomness inside the network for one training step."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + batch_index
    return (mixed * 1_009 + rank) % (2**63)
