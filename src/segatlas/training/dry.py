"""`train --dry-run`: build everything, run one batch, say what it takes; nothing is written."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from segatlas.config.schema import Config
from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.structures import PointLogits
from segatlas.training.building import build_parts
from segatlas.training.inputs import NetworkFacts
from segatlas.training.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one training step looked like. Memory is the process's peak (CPU) or the device's (CUDA), in MB.

    `notices` says where the step differs from a real one.
    """

    train_pictures: int
    val_pictures: int
    classes: tuple[str, ...]
    parameters: int
    network: NetworkFacts
    batch_shape: tuple[int, ...]
    label_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    aux_shapes: dict[str, tuple[int, ...]]
    loss: float
    seconds: float
    memory_mb: float
    notices: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the facts as printed."""
        return [
            *self.notices,
            f"data: {self.train_pictures} train, {self.val_pictures} val pictures; {len(self.classes)} classes",
            *self.network.lines(),
            f"batch: images {self.batch_shape}, labels {self.label_shape}",
            f"output: logits {self.output_shape}" + "".join(f", {k} {v}" for k, v in self.aux_shapes.items()),
            f"loss {self.loss:.4f}; one step {self.seconds:.2f} s; peak memory {self.memory_mb:.0f} MB",
        ]


def dry_run(config: Config) -> DryRun:
    """Build all parts of a run and take one optimiser step. Raises what training would raise at its start.

    As in training, a set with fewer pictures than `train.batch` gives one smaller batch.
    """
    parts = build_parts(config, dry=True)
    device = torch.device("cuda" if torch.cuda.is_available() and config.train.device in ("auto", "cuda") else "cpu")
    net = parts.net.to(device).train()
    stream = SampleStream(parts.train, parts.pipeline, config.seed)
    batch = collate([stream[(0, index)] for index in range(min(config.train.batch, len(parts.train)))])
    images, labels = batch.images.to(device), batch.labels.to(device)
    optimizer = build_optimizer(net, config.train.optimizer, config.train.lr)
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision != "fp32"):
        output = net(images)
    loss, _ = parts.criterion.to(device)(output, labels)
    loss.backward()
    optimizer.step()
    return DryRun(
        train_pictures=len(parts.train),
        val_pictures=len(parts.val),
        classes=tuple(parts.train.classes),
        parameters=parts.facts.parameters,
        network=parts.facts,
        batch_shape=tuple(images.shape),
        label_shape=tuple(labels.shape),
        output_shape=tuple(output.logits.shape),
        aux_shapes={name: _shape(value) for name, value in output.aux.items()},
        loss=float(loss.detach()),
        seconds=time.perf_counter() - started,
        memory_mb=_peak_memory(device),
        notices=parts.notices,
    )


def _shape(logits: Tensor | PointLogits) -> tuple[int, ...]:
    return tuple(logits.logits.shape if isinstance(logits, PointLogits) else logits.shape)


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
