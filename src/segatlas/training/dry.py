"""`train --dry-run`: build everything, run one batch, say what it takes; nothing is written."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segatlas.errors import TrainingError
from segatlas.recipe import Config
from segatlas.structures import further_maps, maps_of
from segatlas.training.auto_batch import settled_batch
from segatlas.training.chosen import with_length, with_transforms
from segatlas.training.course import course_of
from segatlas.training.faults import SMALLER, is_out_of_memory, told_of
from segatlas.training.freezing import training_mode
from segatlas.training.inputs import NetworkFacts
from segatlas.training.machine import check_images, choose_machine
from segatlas.training.one_step import WHAT_HELPS, one_step, placed
from segatlas.training.plan import Plan
from segatlas.training.trackers import needed_extras


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one training step looked like. Memory is the process's peak (CPU) or the device's (CUDA), in MB.

    `source_shapes` are of further inputs by name. `label_name` says what the truth is whose shape `label_shape` is:
    labels (N, H, W), segment ids likewise, masks of objects (N, most objects of an image, H, W), classes of images
    (N,). `output_name` and
    `output_shape` are of the output's first map, `aux_shapes` of all others. `steps` is the length of the run, `course`
    says in words how it would go and what is scored at its end. `notices` says what is to be known of the
    run, and where the step differs from a real one.
    """

    train_images: int
    val_images: int
    classes: tuple[str, ...]
    parameters: int
    network: NetworkFacts
    batch_shape: tuple[int, ...]
    source_shapes: dict[str, tuple[int, ...]]
    label_name: str
    label_shape: tuple[int, ...]
    output_name: str
    output_shape: tuple[int, ...]
    aux_shapes: dict[str, tuple[int, ...]]
    loss: float
    seconds: float
    memory_mb: float
    steps: int
    course: tuple[str, ...]
    notices: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the facts as printed."""
        return [
            *self.notices,
            f"data: {self.train_images} train, {self.val_images} val images; {len(self.classes)} classes",
            *self.network.lines(),
            ", ".join(
                [
                    f"batch: images {self.batch_shape}",
                    *(f"{name} {shape}" for name, shape in self.source_shapes.items()),
                    f"{self.label_name} {self.label_shape}",
                ]
            ),
            f"output: {self.output_name} {self.output_shape}"
            + "".join(f", {k} {v}" for k, v in self.aux_shapes.items()),
            *self.course,
            f"loss {self.loss:.4f}; one step {self.seconds:.2f} s; peak memory {self.memory_mb:.0f} MB",
        ]


def dry_run(config: Config) -> DryRun:
    """Build all parts of a run and take one optimiser step of its first process, on the run's device.

    As in training, a set with fewer images than `train.batch` gives one smaller batch. Raises what training would
    raise at its start, and TrainingError where loss or gradient are not finite.
    """
    needed_extras(config)
    machine = choose_machine(config)
    config, told = with_transforms(config)
    config, tried = settled_batch(config, machine)
    course = course_of(config)
    parts, device = course.build(config, dry=True), machine.device
    config, also = with_length(config, len(parts.train), machine.world)
    settings = config.train
    plan = Plan.of(settings, len(parts.train), machine.world)
    notices = (*told, *tried, *also, *machine.notices, *check_images(config, plan), *parts.notices)
    training_mode(parts.net.to(device), settings)
    batch = placed(course.first_batch(config, parts, plan.batch), config, device)
    inputs, targets = batch.inputs, batch.targets
    started = time.perf_counter()
    try:
        with told_of(batch.keys, "in a dry run", WHAT_HELPS):
            output, loss = one_step(config, parts, batch, f"in a dry run on: {', '.join(batch.keys)}")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory in one step of a dry run: {error}. {SMALLER}") from error
    own = {"scores": output} if isinstance(output, Tensor) else maps_of(output)
    others = {} if isinstance(output, Tensor) else further_maps(output)
    maps = {name: tuple(value.shape) for name, value in own.items()}
    further = {name: tuple(value.shape) for name, value in others.items() if not _is_numbered(name)}
    maps = maps or dict(further)
    first = next(iter(maps))
    return DryRun(
        train_images=len(parts.train),
        val_images=len(parts.val),
        classes=tuple(parts.train.classes),
        parameters=parts.facts.parameters,
        network=parts.facts,
        batch_shape=tuple(inputs.image.shape),
        source_shapes={name: tuple(values.shape) for name, values in inputs.sources.items()},
        label_name=course.truth,
        label_shape=_target_shape(targets),
        output_name=first,
        output_shape=maps.pop(first),
        aux_shapes={**maps, **further},
        loss=loss,
        seconds=time.perf_counter() - started,
        memory_mb=_peak_memory(device),
        steps=plan.steps,
        course=_course_lines(config, plan),
        notices=notices,
    )


def _course_lines(config: Config, plan: Plan) -> tuple[str, ...]:
    """Return how long a run is, by what it learns, and on which images it is scored."""
    train = config.train
    epochs = round(plan.samples / (plan.steps_per_epoch * plan.samples_per_step), 1)
    length = f"{plan.steps} step{'' if plan.steps == 1 else 's'} ({epochs:g} epoch{'' if epochs == 1 else 's'})"
    how = f"training: {length} of {plan.samples_per_step} images, {train.optimizer.name} lr {train.lr:g}, "
    how += train.schedule.name
    if config.pretrain is not None:
        return (how, "validations: val")
    losses = [term.name if term.weight == 1 else f"{term.weight:g} {term.name}" for term in config.losses]
    losses += [f"{term.name} of the teacher" for term in (config.distill.terms if config.distill else ())]
    losses += ["that of images without labels"] if config.semi is not None else []
    return (f"{how}; loss: {' + '.join(losses)}", f"validations: val; scored at the end: {config.eval.split}")


def _is_numbered(name: str) -> bool:
    """Tell whether this is one of several, such as the maps of a pyramid: their shapes are many and say little."""
    return name.rpartition(".")[2].isdigit()


def _target_shape(targets: Any) -> tuple[int, ...]:
    """Return the shape of labels (N, H, W), or that of the first map of N targets of another type behind N."""
    return tuple(targets.shape if isinstance(targets, Tensor) else (len(targets), *targets[0][0].shape))


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
