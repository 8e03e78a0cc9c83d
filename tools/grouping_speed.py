"""How long Panoptic-DeepLab's way from maps to segments takes, and whether it is the slow way's:

    python tools/grouping_speed.py [--size 1024x2048] [--things 80] [--turns 7] [--threads 2]

Maps at stride 4 are drawn from a made scene: things on a quarter of the image, 19 classes. Timed are the parts by
themselves, the least of some turns: grouping (centres, nearest centre of each pixel, classes by majority) on maps at
full size, the upsampling of these maps, the class map, and all of it to the result with masks and boxes. With one
thread processor time counts, so that others on the machine hardly matter; else that of the clock. Grouping is compared
with a plain form: pooling over the whole heat map, and all pixels with all centres.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.config.objects import ObjectRule
from segatlas.ops import class_map, upsample_logits
from segatlas.ops.nearest import slow_nearest
from segatlas.postprocess.segments_of_centers import grouped, panoptic_results
from segatlas.structures import CentersAndOffsets

CLASSES, FIRST_THING = 19, 11
THINGS = tuple(index >= FIRST_THING for index in range(CLASSES))
RULE = ObjectRule(stuff_area=2048)

Value = TypeVar("Value")


def scene(size: tuple[int, int], things: int) -> CentersAndOffsets:
    """Return the maps of ellipses on stuff in rows, with some noise."""
    draw = torch.Generator().manual_seed(0)
    h, w = size[0] // 4, size[1] // 4
    y, x = torch.arange(h)[:, None].float(), torch.arange(w).float()
    semantic = torch.randn(1, CLASSES, h, w, generator=draw) * 0.3
    for kind in range(FIRST_THING):
        semantic[0, kind, kind * h // FIRST_THING : (kind + 1) * h // FIRST_THING] += 4
    offsets = torch.randn(1, 2, h, w, generator=draw) * 2
    heat = torch.zeros(1, 1, h, w)
    reach = (0.25 * h * w / things / 3.1416) ** 0.5
    for number in range(things):
        cy, cx = torch.rand(2, generator=draw) * torch.tensor([h, w])
        inside = ((y - cy) / reach / 0.8) ** 2 + ((x - cx) / reach / 1.25) ** 2 < 1
        semantic[0, FIRST_THING + number % (CLASSES - FIRST_THING), inside] += 6
        offsets[0, 0][inside] += (4 * (cy - y)).expand(h, w)[inside]
        offsets[0, 1][inside] += (4 * (cx - x)).expand(h, w)[inside]
        peak = torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 2.0**2))
        heat[0, 0] = torch.maximum(heat[0, 0], peak * (0.4 + 0.5 * torch.rand(1, generator=draw)))
    return CentersAndOffsets(heat, offsets, None, canvas=size, semantic=semantic)


def slow_groups(labels: Tensor, heat: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ids (H, W) and classes of things, the plain way."""
    shown = F.threshold(heat, RULE.center_score, -1)
    window = RULE.center_window
    shown[shown != F.max_pool2d(shown[None], window, stride=1, padding=window // 2)[0]] = -1
    least = shown.flatten().topk(RULE.center_top).values[-1].clamp(min=0)
    centers = (shown > least).nonzero()
    y, x = torch.meshgrid(torch.arange(heat.shape[0]), torch.arange(heat.shape[1]), indexing="ij")
    places = (torch.stack([y, x]) + offsets).flatten(1).T
    owner = slow_nearest(places, centers.float()).view(heat.shape)
    is_thing = torch.tensor(THINGS)[labels.int()]
    ids, classes = torch.zeros(heat.shape, dtype=torch.int32), []
    for index in range(len(centers)):
        mine = is_thing & (owner == index)
        if mine.any():
            classes.append(int(labels[mine].mode().values))
            ids[mine] = len(classes)
    return ids, torch.tensor(classes)


def least(turns: int, of: Callable[[], Value]) -> tuple[float, Value]:
    """Return the least milliseconds of some turns, and what came out."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found, value = [], of()
    for _ in range(turns):
        start = clock()
        value = of()
        found.append((clock() - start) * 1e3)
    return min(found), value


def main() -> None:
    """Print the times and whether both ways agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1024x2048")
    parser.add_argument("--things", type=int, default=80)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    height, width = (int(side) for side in asked.size.split("x"))
    size, output = (height, width), scene((height, width), asked.things)
    assert output.semantic is not None
    semantic = output.semantic
    classes, labels = least(asked.turns, lambda: class_map(semantic, size, canvas=size))
    upsampling, (heat, offsets) = least(
        asked.turns,
        lambda: (upsample_logits(output.centers, size), upsample_logits(output.offsets, size)),
    )
    grouping, groups = least(asked.turns, lambda: grouped(labels[0], heat[0, 0], offsets[0], RULE, THINGS))
    whole, _ = least(asked.turns, lambda: panoptic_results(output, size, size, RULE, THINGS))
    start = time.perf_counter()
    ids, kinds = slow_groups(labels[0], heat[0, 0], offsets[0])
    slow = (time.perf_counter() - start) * 1e3
    same = bool(torch.equal(ids, groups.ids) and torch.equal(kinds, groups.classes))
    part = float((ids > 0).float().mean())
    print(
        f"{len(kinds)} things of {len(groups.centers)} centres on {part:.0%} of {asked.size}, {asked.threads} threads"
    )
    print(f"grouping {grouping:.1f} ms, the plain way {slow:.0f} ms, equal: {same}")
    print(
        f"upsampling centres and offsets {upsampling:.1f} ms, class map {classes:.1f} ms, to the result {whole:.1f} ms"
    )


if __name__ == "__main__":
    main()
