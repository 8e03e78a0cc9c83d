"""Terms of distillation beside the code that papers and libraries have published, on the same random maps in float64:

    python tools/beside_distillation.py --torch-distiller DIR --structure DIR --mmrazor DIR

DIR are checkouts of irfanICMLL/TorchDistiller (Shu et al. 2021), irfanICMLL/structure_knowledge_distillation (Liu et
al. 2020) and open-mmlab/mmrazor. Their loss files run as they are, what else these import has a stand-in. Printed are
value and gradient of both sides and the largest relative difference; the exit status is 1 where one is above 1e-9.

Their mean over all elements also divides by the classes, and has no square of the temperature: that factor is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from segatlas.ops.distillation import channel_wise, pair_wise, pixel_wise

SHAPE = (2, 11, 24, 32)
MOST = 1e-9
Term = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison: ours, times a factor, and theirs, of maps of the student and the teacher."""

    name: str
    ours: Term
    theirs: Term
    factor: float = 1.0


class _Registry:
    """Stands for a registry of classes: leaves each as it is."""

    def register_module(self, *_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda one: one


def stand_in(name: str, **holds: Any) -> None:
    """Let a module of this name be importable, with these things in it."""
    module = ModuleType(name)
    for key, value in holds.items():
        setattr(module, key, value)
    sys.modules[name] = module


def run_file(path: Path, name: str) -> ModuleType:
    """Run a file as a module and return it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def cases_of_torch_distiller(root: Path) -> Iterator[Case]:
    """Yield its channel-wise term at two temperatures, and its pixel-wise one."""
    theirs = run_file(root / "SemSeg-distill" / "utils" / "criterion.py", "torch_distiller_criterion")
    for temperature in (1.0, 4.0):
        peer = theirs.CriterionCWD("channel", "kl", temperature)
        yield Case(
            name=f"channel_wise, temperature {temperature:g}, TorchDistiller",
            ours=lambda s, t, temperature=temperature: channel_wise(s, t, temperature),
            theirs=peer,
        )
    peer = theirs.CriterionKD()
    yield Case(
        name=f"pixel_wise / {SHAPE[1]} classes, temperature 1, TorchDistiller",
        ours=lambda s, t: pixel_wise(s, t, 1.0),
        theirs=lambda s, t, peer=peer: peer([s], [t]),
        factor=1 / SHAPE[1],
    )


def cases_of_structure(root: Path) -> Iterator[Case]:
    """Yield its pair-wise term at its own pooling and at ours."""
    stand_in("tensorboardX", SummaryWriter=None)
    stand_in("scipy.ndimage")
    stand_in("utils")
    run_file(root / "utils" / "utils.py", "utils.utils")
    theirs = run_file(root / "utils" / "criterion.py", "structure_criterion")
    for pooling in (0.5, 0.125):
        peer = theirs.CriterionPairWiseforWholeFeatAfterPool(pooling, 0)
        yield Case(
            name=f"pair_wise, pooling {pooling:g}, structure_knowledge_distillation",
            ours=lambda s, t, pooling=pooling: pair_wise(s, t, pooling),
            theirs=lambda s, t, peer=peer: in_double(peer, [s], [t]),
        )


def in_double(peer: Any, *given: Any) -> Any:
    """Return what a peer computes without its own change to float32."""
    plain = torch.Tensor.float
    torch.Tensor.float = lambda self: self  # type: ignore[method-assign]
    try:
        return peer(*given)
    finally:
        torch.Tensor.float = plain  # type: ignore[method-assign]


def cases_of_mmrazor(root: Path) -> Iterator[Case]:
    """Yield its channel-wise term, and its divergence of classes with a sum over all elements."""
    stand_in("mmrazor")
    stand_in("mmrazor.registry", MODELS=_Registry())
    folder = root / "mmrazor" / "models" / "losses"
    channel = run_file(folder / "cwd.py", "mmrazor_cwd").ChannelWiseDivergence(tau=4.0)
    yield Case(name="channel_wise, temperature 4, MMRazor", ours=lambda s, t: channel_wise(s, t, 4.0), theirs=channel)
    pixel = run_file(folder / "kl_divergence.py", "mmrazor_kl").KLDivergence(tau=2.0, reduction="sum")
    pixels = SHAPE[0] * SHAPE[2] * SHAPE[3]
    yield Case(
        name=f"pixel_wise x {pixels} pixels, temperature 2, MMRazor",
        ours=lambda s, t: pixel_wise(s, t, 2.0),
        theirs=pixel,
        factor=pixels,
    )


def compare(case: Case) -> float:
    """Print a case; return the largest relative difference of its value and gradient."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(SHAPE, generator=draw, dtype=torch.float64) for _ in range(2))
    found = []
    for term, factor in ((case.ours, case.factor), (case.theirs, 1.0)):
        leaf = student.clone().requires_grad_()
        value = term(leaf, teacher) * factor
        value.backward()
        assert leaf.grad is not None
        found.append((value.detach(), leaf.grad))
    (ours, our_gradient), (theirs, their_gradient) = found
    apart = max(
        float((ours - theirs).abs() / theirs.abs()),
        float((our_gradient - their_gradient).abs().max() / their_gradient.abs().max()),
    )
    print(f"{case.name}: ours {float(ours):.9g}, theirs {float(theirs):.9g}, value and gradient differ by {apart:.1e}")
    return apart


def main() -> int:
    """Compare with each checkout that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = {
        "--torch-distiller": cases_of_torch_distiller,
        "--structure": cases_of_structure,
        "--mmrazor": cases_of_mmrazor,
    }
    for word in sources:
        parser.add_argument(word, type=Path)
    given = vars(parser.parse_args())
    worst = 0.0
    for word, cases in sources.items():
        root = given[word.removeprefix("--").replace("-", "_")]
        for case in () if root is None else cases(root):
            worst = max(worst, compare(case))
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
