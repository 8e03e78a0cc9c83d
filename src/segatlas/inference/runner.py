"""Runs a network on its device, in its precision and in its fast form."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from segatlas.config.objects import ObjectRule
from segatlas.errors import TaskError, UsageError
from segatlas.inference.batch_statistics import BatchStatisticsForm
from segatlas.inference.current_form import CurrentForm, PlainForm
from segatlas.postprocess.query_masks import scores_of
from segatlas.structures import Inputs, InputSpec, Output, QueryMasks, SemanticLogits, changed, with_maps

Precision = Literal["fp32", "bf16"]
LOGGER = logging.getLogger("segatlas")


class Runner:
    """A network, ready to run: normalised inputs in, its typed output out.

    model: the network in eval mode, on `device`; it stays plain, what runs is its form. precision: "fp32" or "bf16".
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[InputSpec],
        device: str | torch.device,
        precision: str,
        rule: ObjectRule | None = None,
        batch_stats: bool = False,
    ):
        """Move the network to the device and set it to eval mode.

        Args:
            model: the network.
            inputs: what it takes, the image first.
            device: where it runs.
            precision: "fp32" or "bf16".
            rule: how scores of classes are made of queries; None = the defaults.
            batch_stats: batch norm by the statistics of the images that share a pass.

        Raises:
            UsageError: a device that is not there, an unknown precision, or batch statistics without batch norm.
        """
        self.device = resolve_device(device)
        self.rule = rule or ObjectRule()
        self.precision = resolve_precision(precision, self.device)
        self.model = model.to(self.device).eval()
        self._kind = BatchStatisticsForm if batch_stats else CurrentForm
        self._form = self._kind(self.model, inputs, self.precision)

    def with_precision(self, precision: str) -> Runner:
        """Return a runner of the same network in another precision."""
        other = copy.copy(self)
        other.precision = resolve_precision(precision, self.device)
        other._form = self._kind(self.model, self._form.inputs, other.precision)
        return other

    def plain(self) -> Runner:
        """Return a runner of the network itself in fp32, in place of its fast form."""
        other = copy.copy(self)
        other.precision = "fp32"
        kind = BatchStatisticsForm if self._kind is BatchStatisticsForm else PlainForm
        other._form = kind(self.model, self._form.inputs, "fp32")
        return other

    @property
    def form(self) -> nn.Module:
        """Return the network that runs: its fast form for the weights as they are, or itself."""
        return self._form.get()

    def output(self, inputs: Tensor | Inputs) -> Output:
        """Run the form of the network; its maps come back as float32, on `device`, as `inputs` are."""
        network = self.form
        if self.precision == "bf16":
            inputs = changed(inputs, _as_bf16)
        elif self.device.type == "cpu" and network is not self.model:
            inputs = changed(inputs, _channels_last)  # the plain network keeps its order of sums
        with self._autocast():
            output: Output = network(inputs)
        return with_maps(output, Tensor.float)

    def logits(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Run a network of class maps, or of queries, of which scores of classes are made; else TaskError."""
        output = self.output(inputs)
        if isinstance(output, QueryMasks):
            return scores_of(output, self.rule)
        if not isinstance(output, SemanticLogits):
            raise TaskError(f"the network gives {type(output).__name__}, no class scores for each pixel")
        return output

    def _autocast(self) -> AbstractContextManager[object]:
        """Return the runner's own precision: that of an autocast around it, as in training, plays no part."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return torch.autocast(self.device.type, enabled=False)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device meant; "auto" is CUDA, else MPS, else the processor. UsageError where it is not there."""
    fault = device_fault(device)
    if fault:
        raise UsageError(f"device: got {device!r}: {fault}")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return torch.device(device)


def device_fault(device: str | torch.device) -> str:
    """Return in words why a device cannot be used on this machine, "" where it can."""
    try:
        found = torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        return f"torch sees {torch.cuda.device_count()} CUDA devices"
    if found.type == "mps" and not torch.backends.mps.is_available():
        return "this machine has no MPS device"
    return "" if found.type in ("cpu", "cuda", "mps") else "expected auto, cpu, cuda, cuda:N or mps"


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Return the precision to run in: bf16 falls back to fp32, with a warning, where the device has none."""
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"precision: got {precision!r}, expected fp32 or bf16")
    if precision == "fp32":
        return "fp32"
    if device.type == "cpu":
        able, whose = processor_has_bf16(), "this processor has no instructions for it"
    else:
        able, whose = device.type == "cuda" and torch.cuda.is_bf16_supported(), f"not with {device}"
    if not able:
        LOGGER.warning("bf16 is not supported here: %s; predicting in fp32", whose)
        return "fp32"
    return "bf16"


def processor_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this processor multiplies bf16 numbers; without, torch emulates them, slower than fp32.

    Args:
        cpuinfo: Linux's description of the processor, asked where torch does not tell.
    """
    known = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in known)
    try:
        words = cpuinfo.read_text().split()
    except OSError:
        return False
    return not known.isdisjoint(words)


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps


def _as_bf16(maps: Tensor) -> Tensor:
    return maps.to(torch.bfloat16, memory_format=torch.channels_last) if maps.ndim == 4 else maps
