"""Memory and time of what is made of queries, and memory of their losses: `python tools/query_memory.py [--only WORD]`.

Every line is a process of its own, with one thread: the most memory that it held beyond its inputs, and processor time,
the lesser of two turns. Results beside the published order, which makes every mask as large as the image first, and
beside transformers' functions, are made in the same run and compared pixel by pixel. A step of validation is all
results of an image (objects, segments, class map) and what is counted of them. Losses are those of ten layers of
100 queries on 512 x 512 pixels, forward and backward, by the number of objects. --python: an environment that holds the
peer, too; without it its lines are left out.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
STREET, LARGE = (1024, 2048), (3000, 1500)
LOSS_SIDE, LOSS_QUERIES, LOSS_LAYERS, LOSS_CLASSES = 512, 100, 10, 80


# ---- material
def queries(size: tuple[int, int], count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return classes (1, Q, K + 1) and masks (1, Q, h, w) of blobs that share an image; half are sure of a class."""
    draw = torch.Generator().manual_seed(seed)
    shape = (-(-size[0] // 4), -(-size[1] // 4))
    rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])[None]
    masks = torch.empty(1, count, *shape)
    best = torch.full(shape, -torch.inf)
    places = torch.rand(count, 2, generator=draw) * torch.tensor(shape)
    for mask, (y, x) in zip(masks[0], places.tolist(), strict=True):
        torch.neg((rows - y) ** 2 + (columns - x) ** 2, out=mask)
        torch.maximum(best, mask, out=best)
    for mask in masks[0]:
        mask.sub_(best).div_(200.0).add_(3.0).clamp_(-12)
    logits = torch.randn(1, count, classes + 1, generator=draw)
    logits[0, torch.arange(count), torch.randint(0, classes, (count,), generator=draw)] += 9
    logits[0, count // 2 :, classes] += 12
    return logits, masks


def peak_of(work: Callable[[], Any]) -> float:
    """Return the most memory in MB that work holds beyond what there was before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


# ---- results
def ours(task: str, rule: Any, output: Any, size: tuple[int, int], things: tuple[bool, ...]) -> Any:
    """Return segments as (id map, classes), a class map, or objects."""
    from segatlas.postprocess import find, query_masks

    if task != "panoptic":
        (found,) = find("QueryMasks", task)(output, size, crop=output.canvas, rule=rule)
        return found.semantic if task == "semantic" else found.instances
    steps = query_masks._steps(output, size, output.canvas, rule)
    (pair,) = query_masks._images(output)
    found = query_masks.segments_of(*pair, steps, rule, things)
    return found.ids, [one.class_index for one in found.segments]


def published(task: str, output: Any, size: tuple[int, int], things: tuple[bool, ...]) -> Any:
    """Return the same in the published order (Cheng et al. 2022)."""
    classes = output.class_logits[0]
    whole = F.interpolate(output.mask_logits, size=size, mode="bilinear", align_corners=False)[0]
    if task == "semantic":
        return torch.einsum("qk,qhw->khw", classes.softmax(-1)[:, :-1], whole.sigmoid()).argmax(0).numpy()
    if task == "instance":
        values, places = classes.softmax(-1)[:, :-1].flatten().topk(100)
        chosen = whole[places // (classes.shape[1] - 1)]
        inside = (chosen > 0).float()
        sure = (chosen.sigmoid().flatten(1) * inside.flatten(1)).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
        return values * sure, inside
    scores, kinds = classes.softmax(-1).max(-1)
    whole = whole.sigmoid()
    keep = kinds.ne(classes.shape[1] - 1) & (scores > 0.8)
    scores, kinds, whole = scores[keep], kinds[keep], whole[keep]
    winner = (scores[:, None, None] * whole).argmax(0)
    ids, listed, stuff = torch.zeros(size, dtype=torch.int32), [], {}
    for index, kind in enumerate(kinds.tolist()):
        won, own = winner == index, whole[index] >= 0.5
        painted = won & own
        if not (won.any() and own.any() and painted.any()) or won.sum().item() / own.sum().item() < 0.8:
            continue
        if not things[kind] and kind in stuff:
            ids[painted] = stuff[kind]
            continue
        listed.append(kind)
        ids[painted] = len(listed)
        if not things[kind]:
            stuff[kind] = len(listed)
    return ids.numpy(), listed


def theirs(task: str, output: Any, size: tuple[int, int], things: tuple[bool, ...]) -> Any:
    """Return what transformers makes."""
    from transformers import Mask2FormerImageProcessor

    peer = Mask2FormerImageProcessor()
    given = SimpleNamespace(class_queries_logits=output.class_logits, masks_queries_logits=output.mask_logits)
    if task == "semantic":
        return peer.post_process_semantic_segmentation(given, target_sizes=[size])[0].numpy()
    stuff = {index for index, is_thing in enumerate(things) if not is_thing}
    if task == "panoptic":
        found = peer.post_process_panoptic_segmentation(given, target_sizes=[size], label_ids_to_fuse=stuff)[0]
        return found["segmentation"].numpy(), found["segments_info"]
    return peer.post_process_instance_segmentation(given, target_sizes=[size], return_binary_maps=True)[0]


def result_case(who: str, task: str, source: str, size: tuple[int, int], count: int, classes: int) -> dict[str, Any]:
    """Return memory, time and a digest of a result."""
    from dataclasses import replace

    from segatlas.config.objects import MASK2FORMER, TRANSFORMERS_MASK2FORMER
    from segatlas.structures import QueryMasks

    rule = MASK2FORMER if source == "published" else replace(TRANSFORMERS_MASK2FORMER, top=None)
    things = tuple(index < classes * 2 // 3 for index in range(classes))
    output = QueryMasks(*queries(size, count, classes), canvas=(-(-size[0] // 4) * 4, -(-size[1] // 4) * 4))
    make: Callable[[Any, tuple[int, int]], Any] = {
        "ours": lambda given, target: ours(task, rule, given, target, things),
        "published": lambda given, target: published(task, given, target, things),
        "transformers": lambda given, target: theirs(task, given, target, things),
    }[who if who == "ours" else source]
    small = QueryMasks(*queries((64, 64), count, classes), canvas=(64, 64))
    make(small, (64, 64))  # what is loaded once does not count
    held: list[Any] = []
    peak = peak_of(lambda: held.append(make(output, size)))
    seconds = []
    for _ in range(2):
        start = time.process_time()
        make(output, size)
        seconds.append(time.process_time() - start)
    return {"mb": peak, "seconds": min(seconds), "digest": digest(held[0], task, who, source)}


def digest(found: Any, task: str, who: str, source: str) -> list[str]:
    """Return what is compared: a hash of each segment's class and pixels, of the class map, or of objects' masks."""
    if task == "semantic":
        return [hashlib.sha1(np.ascontiguousarray(found.astype(np.int64))).hexdigest()]
    if task == "panoptic":
        ids, listed = found
        if who != "ours" and source == "transformers":
            pairs = {(one["id"], one["label_id"]) for one in listed}
        else:
            pairs = {(number + 1, kind) for number, kind in enumerate(listed)}
        return sorted(f"{kind} {hashlib.sha1(np.packbits(ids == number)).hexdigest()}" for number, kind in pairs)
    if who == "ours":
        return sorted(hashlib.sha1(np.packbits(one.bitmap())).hexdigest() for one in found)
    maps = found["segmentation"] if source == "transformers" else found[1]
    return sorted(hashlib.sha1(np.packbits(one.numpy() > 0)).hexdigest() for one in maps if one.any())


# ---- a step of validation
def validation_case(size: tuple[int, int], count: int, classes: int) -> dict[str, Any]:
    """Return the memory of what follows the network in validation: all results of an image, and what is counted."""
    from segatlas.config.objects import MASK2FORMER
    from segatlas.metrics import create_for_training
    from segatlas.postprocess import find
    from segatlas.structures import QueryMasks, SegmentsTarget
    from segatlas.tasks import TASKS

    things = tuple(index < classes * 2 // 3 for index in range(classes))
    metrics = create_for_training(TASKS["panoptic"].metrics, [f"class {index}" for index in range(classes)])

    def step(size: tuple[int, int]) -> None:
        output = QueryMasks(*given[size], canvas=size)
        (result,) = find("QueryMasks", "panoptic")(output, size, crop=size, rule=MASK2FORMER, things=things)
        metrics.update(result, truths[size])

    given = {one: queries(one, count, classes) for one in ((64, 64), size)}
    truths = {}
    for rows, columns in given:
        ids = np.arange(16, dtype=np.int32).reshape(4, 4).repeat(rows // 4, 0).repeat(columns // 4, 1)
        kinds = np.arange(16) % classes
        truths[rows, columns] = SegmentsTarget(ids, kinds, np.array(things)[kinds], np.zeros(16, bool))
    step((64, 64))  # what is loaded once does not count
    started = time.process_time()
    return {"mb": peak_of(lambda: step(size)), "seconds": time.process_time() - started}


# ---- losses
def loss_case(name: str, objects: int) -> dict[str, Any]:
    """Return the memory of a loss and its gradient."""
    from segatlas import criteria
    from segatlas.losses import LOSSES
    from segatlas.structures import QueryLayer, QueryMasks, SegmentsTarget

    draw = torch.Generator().manual_seed(0)
    side = LOSS_SIDE // 4

    def layer() -> QueryLayer:
        classes = torch.randn(1, LOSS_QUERIES, LOSS_CLASSES + 1, generator=draw)
        return QueryLayer(
            classes.requires_grad_(), torch.randn(1, LOSS_QUERIES, side, side, generator=draw).requires_grad_()
        )

    def target(count: int) -> SegmentsTarget:
        ids = torch.randint(0, count, (32, 32), generator=draw).repeat_interleave(16, 0).repeat_interleave(16, 1)
        ids.flatten()[:count] = torch.arange(count)
        kinds = torch.randint(0, LOSS_CLASSES, (count,), generator=draw)
        return SegmentsTarget(ids.int(), kinds, torch.ones(count).bool(), torch.zeros(count).bool())

    layers = [layer() for _ in range(LOSS_LAYERS)]
    aux = {f"layer_{index}": one for index, one in enumerate(layers[:-1])}
    output = QueryMasks(*layers[-1], canvas=(LOSS_SIDE, LOSS_SIDE), aux=aux)
    criterion = criteria.build("QueryMasks", [LOSSES[name]()])
    tensors = [tensor for one in layers for tensor in one]
    truth = target(objects)

    def step() -> None:
        total, _ = criterion(output, (truth,))
        torch.autograd.grad(total, tensors)

    criterion(output, (target(2),))  # what is loaded once does not count
    started = time.process_time()
    peak = peak_of(step)
    return {"mb": peak, "seconds": time.process_time() - started}


# ---- the table
def run(python: str, words: list[Any]) -> dict[str, Any]:
    """Return what a case gives in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    done = subprocess.run(
        [python, __file__, "--case", json.dumps(words)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


RESULTS = (
    ("panoptic", STREET, 100, 19),
    ("semantic", STREET, 100, 19),
    ("semantic", STREET, 100, 150),
    ("instance", LARGE, 200, 80),
    ("panoptic", STREET, 200, 19),
    ("panoptic", (512, 1024), 100, 19),
)
VALIDATION = (((512, 1024), 100), ((512, 1024), 200), (STREET, 100), (STREET, 200))
"""Size and queries of the steps of validation."""


def table(python: str, peers: bool, only: str) -> None:
    """Print a line for each case."""
    for task, size, count, classes in RESULTS:
        if only not in task:
            continue
        for source in ("published", *(["transformers"] if peers else [])):
            own, other = (run(python, ["result", who, task, source, size, count, classes]) for who in ("ours", "other"))
            same = own["digest"] == other["digest"]
            apart = "equal" if same else f"{len(set(own['digest']) ^ set(other['digest']))} parts differ"
            print(
                f"{task} {size[0]}x{size[1]}, Q={count}, K={classes}, {source}: {own['mb']:.0f} MB beside "
                f"{other['mb']:.0f} ({other['mb'] / max(own['mb'], 1):.1f}x), {own['seconds']:.2f} s beside "
                f"{other['seconds']:.2f} ({other['seconds'] / own['seconds']:.1f}x), {apart}",
                flush=True,
            )
    for size, count in VALIDATION if only in "validation" else ():
        found = run(python, ["validation", size, count, 133])
        whole = count * size[0] * size[1] * 4 / 2**20
        print(
            f"validation {size[0]}x{size[1]}, Q={count}, K=133: {found['mb']:.0f} MB, {found['seconds']:.1f} s; "
            f"all masks would take {whole:.0f} MB",
            flush=True,
        )
    if only not in "losses":
        return
    for name in ("query_points", "query_maps"):
        found = {count: run(python, ["loss", name, count]) for count in (1, 100, 250, 500)}
        slope = max((found[count]["mb"] - found[1]["mb"]) / (count - 1) for count in (100, 250, 500))
        told = ", ".join(f"{count} objects {one['mb']:.0f} MB, {one['seconds']:.1f} s" for count, one in found.items())
        print(f"{name}: {told}; at most {slope:.2f} MB an object", flush=True)


def main() -> None:
    """Print the table, or be one case of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="that runs the cases")
    parser.add_argument("--peers", action="store_true", help="beside transformers, too")
    parser.add_argument("--only", default="", help="a task, 'validation' or 'losses'")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.case is None:
        table(args.python, args.peers, args.only)
        return
    kind, *words = json.loads(args.case)
    with torch.enable_grad() if kind == "loss" else torch.no_grad():
        if kind == "result":
            who, task, source, size, count, classes = words
            print(json.dumps(result_case(who, task, source, (size[0], size[1]), count, classes)))
        elif kind == "validation":
            size, count, classes = words
            print(json.dumps(validation_case((size[0], size[1]), count, classes)))
        else:
            print(json.dumps(loss_case(*words)))


if __name__ == "__main__":
    main()
