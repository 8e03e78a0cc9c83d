"""Does an image get the same labels alone, in a batch of 4, and under 1 or 2 threads? `python tools/same_labels.py`.

Every architecture, its tiny variant with random weights (or `--variant`, its default one), in the fast form that
prediction runs: labels are counted, bits are looked at. A pixel whose two best logits are closer than sums are exact
(2e-5 of the largest) is a tie: either label is right, which one depends on the processor; ties that flip are counted
apart. Where bits differ, the first layer in order whose output does is named: what is before it gives the same bits, so
it is where the sums are taken in another order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segatlas.build.network import build_network, make_config
from segatlas.inference.fast_form import fast_form
from segatlas.models import ARCHITECTURES
from segatlas.models.architecture import Architecture
from segatlas.models.reading import load_architecture
from segatlas.postprocess import find
from segatlas.structures import CentersAndOffsets, Inputs, SemanticLogits, changed, image_of, maps_of, noise_inputs
from segatlas.testing.rules import seeded

CLASSES, BATCH = 5, 4
SIZE = (97, 129)
TIE = 2e-5
EAGER = 5.0
THREADS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs from the image alone under one thread.

    where: "batch of 4", "2 threads", ... differing: labels, of `labels`, without ties. ties: ties that flip. relative:
    largest difference of a map as a fraction of its largest value; 0 = the same bits. first: the first layer whose
    output differs, "" where none does.
    """

    where: str
    differing: int
    ties: int
    labels: int
    relative: float
    first: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Of one image: its labels, the maps of the network, and the output of each layer in the order of the calls.

    labels: (H, W) classes, or (H, W, K) of a network that finds objects: how many objects of each class lie on a pixel.
    ties: (H, W) bool, False everywhere where labels do not come from logits alone.
    """

    labels: np.ndarray
    ties: np.ndarray
    maps: dict[str, Tensor]
    layers: list[tuple[str, Tensor]]


def compare(name: str, *, tiny: bool = True, size: tuple[int, int] = SIZE) -> list[Difference]:
    """Return what differs for four images of noise, in a batch and over threads."""
    architecture = load_architecture(name)
    record, config = make_config(name, {"num_classes": CLASSES, **(architecture.tiny if tiny else {})})
    with seeded(0):
        net = build_network(record, config).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(std=0.1)
    takes = record.inputs(config)
    images = noise_inputs(takes, size, count=BATCH, seed=1).given()
    with threads(THREADS[0]):
        alone = look(net, record, takes, images, one_by_one=True)
    found = []
    for count in THREADS:
        for one_by_one in (True, False):
            if (count, one_by_one) == (THREADS[0], True):
                continue
            with threads(count):
                other = look(net, record, takes, images, one_by_one=one_by_one)
            where = f"{'alone' if one_by_one else f'batch of {BATCH}'}, {count} thread{'s' if count > 1 else ''}"
            found.append(difference(where, alone, other))
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def look(net: nn.Module, record: Architecture, takes: Any, images: Tensor | Inputs, *, one_by_one: bool) -> list[Seen]:
    """Run the fast form on all images, together or one by one."""
    form = fast_form(net, takes)
    if not one_by_one:
        return look_at(form, record, images)
    return [seen for index in range(BATCH) for seen in look_at(form, record, changed(images, partial(one_of, index)))]


def one_of(index: int, images: Tensor) -> Tensor:
    """Return a batch of one of the images."""
    return images[index : index + 1].contiguous()


def look_at(form: nn.Module, record: Architecture, images: Tensor | Inputs) -> list[Seen]:
    """Run the network once and cut what it gives into images."""
    count, size = len(image_of(images)), (image_of(images).shape[2], image_of(images).shape[3])
    layers: list[tuple[str, Tensor]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim and len(out) == count:
                layers.append((f"{name} ({type(module).__name__})", out.detach().clone()))

        return hook

    leaves = [(name, module) for name, module in form.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note(name)) for name, module in leaves]
    with torch.inference_mode():
        output = eager(form(changed(images, torch.clone)))
    for hook in hooks:
        hook.remove()
    maps, things = dense_maps(output), getattr(form, "things", ())
    results = find(record.output.__name__, record.tasks[0])(output, size, crop=size, things=things)
    return [
        Seen(
            labels=labels_of(result, size),
            ties=ties_of(output, index, size),
            maps={name: values[index : index + 1] for name, values in maps.items()},
            layers=[(name, values[index : index + 1]) for name, values in layers],
        )
        for index, result in enumerate(results)
    ]


def eager(output: Any) -> Any:
    """Return an output whose objects are as likely as not, where random weights find none: centres begin rare."""
    if not isinstance(output, CentersAndOffsets) or output.foreground is None:
        return output
    return output._replace(centers=output.centers + EAGER, foreground=output.foreground + EAGER)


def dense_maps(output: Any) -> dict[str, Tensor]:
    """Return maps with a place for each image; of boxes, whose rows come by score, what they are chosen from."""
    maps = {name: values for name, values in maps_of(output).items() if "." not in name}
    levels = getattr(output, "raw", {}).get("rpn_scores", ())
    return maps | {f"rpn_scores {index}": values for index, values in enumerate(levels)}


def labels_of(result: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the class map, or how many objects of each class lie on each pixel where there is none."""
    if result.class_map is not None:
        return np.asarray(result.class_map)
    drawn = np.zeros((*size, CLASSES), np.int32)
    for one in result.objects:
        drawn[np.asarray(one.mask, bool), one.class_index] += 1
    if not result.objects:
        raise ValueError("no object was found: nothing would be compared")
    return drawn


def ties_of(output: Any, index: int, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool, where the two best logits of an image are as good as equal."""
    if not isinstance(output, SemanticLogits) or output.logits.shape[1] < 2:
        return np.zeros(size, bool)
    mode, align_corners = output.resample
    given = output.logits[index : index + 1].float()
    logits = nn.functional.interpolate(given, output.canvas, mode=mode, align_corners=align_corners)
    best = logits[0, :, : size[0], : size[1]].topk(2, dim=0).values
    ties: np.ndarray = (best[0] - best[1] < TIE * given.abs().max()).numpy()
    return ties


def difference(where: str, alone: Sequence[Seen], other: Sequence[Seen]) -> Difference:
    """Compare image by image."""
    pairs = list(zip(alone, other, strict=True))
    first = ""
    for a, b in pairs:
        named = [x for (x, one), (y, two) in zip(a.layers, b.layers, strict=True) if not torch.equal(one, two)]
        first = first or (named[0] if named else "")
    differing = sum(int((a.labels != b.labels).sum()) for a, b in pairs)
    ties = sum(int((a.labels != b.labels)[a.ties].sum()) for a, b in pairs)
    return Difference(
        where=where,
        differing=differing - ties,
        ties=ties,
        labels=sum(a.labels.size for a, _ in pairs),
        relative=max(
            float((a.maps[name] - b.maps[name]).abs().max() / a.maps[name].abs().max().clamp(min=1e-30))
            for a, b in pairs
            for name in a.maps
        ),
        first=first,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures; default: all")
    parser.add_argument("--variant", action="store_true", help="the default variant in place of the tiny one")
    arguments = parser.parse_args()
    wrong = 0
    print("| Network | Beside the image alone, 1 thread | Labels that differ | Difference of maps | First layer |")
    print("|---|---|---|---|---|")
    for name in arguments.names or ARCHITECTURES:
        for found in compare(name, tiny=not arguments.variant):
            wrong += found.differing
            told = f"{found.relative:.0e}" if found.relative else "none"
            labels = f"{found.differing} of {found.labels}" + (f", {found.ties} ties" if found.ties else "")
            print(f"| `{name}` | {found.where} | {labels} | {told} | {found.first} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
