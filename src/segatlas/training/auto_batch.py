"""`train.batch=auto`: how many images a step can take on this machine. The run then has that number in its recipe.

A GPU is asked by trial: steps of more and more images, until the next would need too much of its memory. On a processor
more images are no faster, so the usual number is taken, or less where a pass shows that they would not fit.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segatlas.config.schema import USUAL_BATCH
from segatlas.errors import ConfigError, Problem, SegAtlasError, TrainingError
from segatlas.recipe import Config
from segatlas.training.building import TrainingComponents
from segatlas.training.course import course_of
from segatlas.training.faults import SMALLER, is_out_of_memory
from segatlas.training.free_memory import free_memory
from segatlas.training.freezing import training_mode
from segatlas.training.logbook import LOGGER
from segatlas.training.machine import Machine, count_of
from segatlas.training.one_step import one_step, passed, placed
from segatlas.training.run import config_of_run

AUTO = "auto"
SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of images that are tried."""
STEPS = 4
"""An epoch has at least as many steps, as far as two images a step allow that."""
OF_GPU, OF_MEMORY = 0.85, 0.5
"""Fraction of the free memory that a step may take: of a GPU, of a processor's machine."""
BESIDES = 2
"""What a step holds at its worst, as a multiple of what its forward pass keeps: gradients and what kernels work in."""
BYTES_OF_STATE = 16
"""Of a parameter: itself, its gradient, and two numbers of the optimiser, in float32."""


def settled_batch(
    config: Config, machine: Machine, *, resume: str | Path | None = None, given: str | None = None
) -> tuple[Config, tuple[str, ...]]:
    """Return the recipe with a number as `train.batch`, and what is to be said of how it was found.

    A run that goes on keeps the number in its config.yaml. Processes of one run take the number of the first.

    Args:
        config: the recipe.
        machine: where it runs.
        resume: the run that goes on, or its checkpoint.
        given: the run folder that the first process has made, where this is another of its processes.

    Raises:
        ConfigError: `semi`, whose steps hold further images.
        TrainingError: not even one image fits.
    """
    if config.train.batch != AUTO:
        return config, ()
    earlier = config_of_run(resume, given)
    if earlier is not None:
        return _with_batch(config, earlier.train.batch_size), ()
    if config.semi is not None:
        message = "auto tries steps of labelled images alone, and `semi` adds others: give a number"
        raise ConfigError("recipe", [Problem(key="train.batch", got=AUTO, message=message)])
    found: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            found = [_probe(config, machine)]
        except SegAtlasError as error:
            found = [error]
    if dist.is_initialized():
        dist.broadcast_object_list(found)
    if isinstance(found[0], SegAtlasError):
        raise found[0]
    number, why = found[0]
    return _with_batch(config, number), (f"train.batch=auto: {count_of(number, 'image')} a step, {why}",)


def _with_batch(config: Config, number: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch": number})})


def _probe(config: Config, machine: Machine) -> tuple[int, str]:
    """Return how many images a step takes, and why, in words. Nothing of it is left in memory."""
    course, device = course_of(config), machine.device
    config = _with_batch(config, SIZES[0])
    with _silent():  # the run says it all when it builds its own
        parts = course.build(config, dry=True)
    images = len(parts.train) // machine.world
    sizes = sizes_for(images)
    training_mode(parts.net.to(device), config.train)
    free = free_memory(device)
    try:
        if device.type == "cuda" and free is not None:
            free += torch.cuda.memory_reserved(device)
            found, why = _by_trial(config, parts, device, sizes, int(OF_GPU * free))
        else:
            found, why = _by_estimate(config, parts, device, sizes, free)
    finally:
        del parts
        _clean(device)
    return found, why


def sizes_for(images: int) -> tuple[int, ...]:
    """Return the numbers of images that may be tried where a process has `images` of them; at least one number."""
    most = max(images // STEPS, min(images, SIZES[0]), 1)
    return tuple(size for size in SIZES if size <= most) or (1,)


def climb(trial: Callable[[int], int | None], sizes: Sequence[int], allowed: int) -> int:
    """Return the largest of rising sizes that takes no more than allowed, 0 where none does.

    Args:
        trial: the bytes that a size takes, None where it does not fit at all.
        sizes: what may be tried; a size is left out where the two before say that it would take too much.
        allowed: bytes.
    """
    known: list[tuple[int, int]] = []
    for size in sizes:
        if len(known) > 1:
            (small, less), (large, more) = known[-2:]
            if more + (more - less) * (size - large) / (large - small) > allowed:
                break
        taken = trial(size)
        if taken is None or taken > allowed:
            break
        known.append((size, taken))
    return known[-1][0] if known else 0


def _by_trial(
    config: Config, parts: TrainingComponents, device: torch.device, sizes: Sequence[int], allowed: int
) -> tuple[int, str]:
    """Take steps of more and more images on a GPU."""
    course = course_of(config)

    def trial(size: int) -> int | None:
        _clean(device)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            batch = placed(course.first_batch(config, parts, size), config, device)
            one_step(config, parts, batch, f"when a step of {size} images was tried")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            parts.net.zero_grad(set_to_none=True)
        return int(torch.cuda.max_memory_reserved(device))

    found = climb(trial, sizes, allowed) or climb(trial, (1,), allowed)
    if not found:
        raise TrainingError(
            f"train.batch=auto: not even a step of one image fits into the memory of {device}. {SMALLER}"
        )
    why = f"by trial: at most {OF_GPU:.0%} of what is free on {device} is used"
    return found, why if found < sizes[-1] else f"the most that is tried for so many in train, and it fits on {device}"


def _by_estimate(
    config: Config, parts: TrainingComponents, device: torch.device, sizes: Sequence[int], free: int | None
) -> tuple[int, str]:
    """Look at what the forward pass of the smallest batch keeps; `free` is None where the system does not tell."""
    sizes = [size for size in sizes if size <= USUAL_BATCH]
    usual = f"the usual {USUAL_BATCH}: more are no faster on a processor"
    usual = usual if sizes[-1] == USUAL_BATCH else f"as many as leave {STEPS} steps an epoch, or two images"
    if free is None:
        return sizes[-1], f"{usual}; this system does not tell how much memory is free"
    batch = placed(course_of(config).first_batch(config, parts, sizes[0]), config, device)
    each = kept_bytes(lambda: passed(config, parts, batch)[1], parts) // len(batch.keys)
    state = BYTES_OF_STATE * parts.facts.parameters
    found = climb(lambda size: state + BESIDES * each * size, sizes, int(OF_MEMORY * free))
    if found == sizes[-1]:
        return found, usual
    return max(found, 1), f"for half of the {free / 2**30:.1f} GiB of free memory"


def kept_bytes(forward: Callable[[], Tensor], parts: TrainingComponents) -> int:
    """Return how many bytes a pass keeps for its gradients, parameters left out; each piece of memory counts once."""
    of_network = {one.untyped_storage().data_ptr() for one in parts.net.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_network:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(kept.values())


@contextmanager
def _silent() -> Iterator[None]:
    """Leave out what is said but errors."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
