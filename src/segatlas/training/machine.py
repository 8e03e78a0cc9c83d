"""What a run asks of this machine: a device, a precision it can compute in, processes, and images for each of them.

Training and its dry run ask here before anything is built or written, so that both refuse the same recipes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from segatlas.config.messages import show
from segatlas.errors import ConfigError, Problem
from segatlas.inference.runner import device_fault, processor_has_bf16, resolve_device
from segatlas.recipe import Config
from segatlas.training.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run takes place.

    device: of this process. world: processes in all. local: those on this machine. notices: what is possible, but slow.
    """

    device: torch.device
    world: int
    local: int
    notices: tuple[str, ...] = ()

    @property
    def nodes(self) -> int:
        """Machines that take part."""
        return max(self.world // self.local, 1)

    @property
    def accelerator(self) -> str:
        """The device's kind in the trainer's words."""
        return {"cuda": "gpu"}.get(self.device.type, self.device.type)


def choose_machine(config: Config) -> Machine:
    """Return where a recipe runs.

    Raises ConfigError with all problems where this machine has no such device, not as many, or cannot compute in
    `train.precision`.
    """
    settings = config.train
    fault = device_fault(settings.device)
    if fault:
        problem = Problem(key="train.device", got=show(settings.device), message=f"{fault} - use auto or cpu")
        raise ConfigError("recipe", [problem])
    device = resolve_device(settings.device)
    launched = "WORLD_SIZE" in os.environ
    world = int(os.environ.get("WORLD_SIZE", settings.devices or 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    machine = Machine(device=device, world=world, local=local, notices=_slow(settings.precision, device))
    problems = [*_device_problems(machine), *_precision_problems(settings.precision, device)]
    if launched and settings.devices not in (None, world, machine.local):
        message = f"the launcher has started {world} processes ({machine.local} on this machine)"
        problems.append(Problem(key="train.devices", got=str(settings.devices), message=message))
    if problems:
        raise ConfigError("recipe", problems)
    return machine


def check_images(config: Config, plan: Plan) -> tuple[str, ...]:
    """Refuse a train split with fewer images than processes; return what is to be said where it is below a step.

    A validation split may be smaller: its counts add up over processes, and some have none. Raises ConfigError where a
    process would have no image to train on.
    """
    found = count_of(plan.images, "image")
    if plan.images < plan.world:
        message = f"{plan.world} processes for training, but the train split has {found}; each needs one"
        raise ConfigError("recipe", [Problem(key="train.devices", message=message)])
    batch, accumulate = config.train.batch_size, config.train.accumulate
    if (plan.batch, plan.accumulate) == (batch, accumulate):
        return ()
    return (
        f"the train split has {found}, too few for a step of batch {batch} x accumulate {accumulate} x processes "
        f"{plan.world}: a step takes {plan.batch} x {plan.accumulate} x {plan.world}",
    )


def count_of(number: int, what: str) -> str:
    """Return "1 image", "3 images"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _device_problems(machine: Machine) -> list[Problem]:
    kind = machine.device.type
    if kind == "cpu":
        return []
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if machine.local <= there:
        return []
    message = (
        f"{machine.local} processes, each with a device of its own, but this machine has "
        f"{count_of(there, f'{kind} device')} - train.device=cpu runs any number of them on the processor"
    )
    return [Problem(key="train.devices", got=str(machine.local), message=message)]


def _precision_problems(precision: str, device: torch.device) -> list[Problem]:
    message = ""
    if precision == "fp16" and device.type != "cuda":
        others = "fp32" if device.type == "mps" else "bf16 or fp32"
        message = f"fp16 trains on a CUDA device only, and this run would be on {device} - use {others}"
    if precision == "bf16" and device.type == "mps":
        message = "bf16 training is not possible on mps - use fp32"
    return [Problem(key="train.precision", got=precision, message=message)] if message else []


def _slow(precision: str, device: torch.device) -> tuple[str, ...]:
    if precision != "bf16" or device.type == "mps":
        return ()
    able = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else processor_has_bf16()
    return () if able else (f"train.precision=bf16: {device} has no instructions for it; emulated, slower than fp32",)
