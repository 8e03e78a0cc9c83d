"""Networks of queries beside Hugging Face's, to segments: `python tools/parity_query_segments.py FOLDER...`.

Each FOLDER is what `ref_models.py hf.NAME --image FILE` wrote: checkpoint, input, the peer's classes and masks of
queries, and what its own image processor makes of them, at its thresholds and at lower ones that random weights pass.
Printed are the largest differences of classes and masks as a fraction of the peer's largest value; at the low
thresholds the fraction of pixels in the same segment (of one class, and one for one), and of objects that have a
partner of the same class whose score is within 1e-3; then how many segments and objects those are. References in
float64 are compared in float64.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segatlas.config.objects import ObjectRule
from segatlas.conversion.converting import convert_file
from segatlas.hub.loading import load_pretrained
from segatlas.postprocess.query_masks import instance, panoptic

LOW = {"score": 0.05, "segment_score": 0.05, "mask_threshold": 0.02, "segment_overlap": 0.05}
"""Thresholds of the references' second results."""

WORDS = range(1, 78)
"""What the references tell a OneFormer."""


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a fraction of the largest expected value."""
    if found.shape != expected.shape:
        raise SystemExit(f"shapes differ: ours {tuple(found.shape)}, theirs {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max())


def lowered(rule: ObjectRule, *, masks: bool) -> ObjectRule:
    """Return a rule with the low thresholds; that of masks is lowered for segments alone."""
    queries = replace(rule.queries, segment_score=LOW["segment_score"], segment_overlap=LOW["segment_overlap"])
    threshold = LOW["mask_threshold"] if masks else rule.mask_threshold
    return replace(rule, score=LOW["score"], mask_threshold=threshold, queries=queries)


def same_pixels(ids: Tensor, kinds: Mapping[int, int], theirs: Tensor, segments: Sequence[Sequence[int]]) -> float:
    """Return the fraction of pixels in the same segment.

    A segment of theirs is the largest of ours of its class there. Theirs may give one number to several segments, see
    `segatlas.config.objects`: then each is one of ours.

    Args:
        ids: (H, W), ours, 0 = none.
        kinds: of each of our numbers, its class.
        theirs: (H, W).
        segments: number and class of each of theirs.
    """
    agreed = torch.zeros_like(theirs, dtype=torch.bool)
    labels: dict[int, list[int]] = {}
    for number, label in segments:
        labels.setdefault(number, []).append(label)
    for number in theirs.unique().tolist():
        place = theirs == number
        if number not in labels:
            agreed |= place & (ids == 0)
            continue
        for label in set(labels[number]):
            ours = [one for one, kind in kinds.items() if kind == label]
            by_size = sorted(ours, key=lambda one: -int((place & (ids == one)).sum()))
            for one in by_size[: labels[number].count(label)]:
                agreed |= place & (ids == one)
    return float(agreed.float().mean())


def paired(found: Sequence[Any], labels: Tensor, scores: Tensor) -> float:
    """Return the fraction of their objects with one of ours of the class and score, each taken once."""
    left = [(one.class_index, one.score) for one in found]
    count = 0
    for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
        fits = [index for index, (kind, ours) in enumerate(left) if kind == label and abs(ours - score) <= 1e-3]
        if fits:
            left.pop(min(fits, key=lambda index: abs(left[index][1] - score)))
            count += 1
    return count / len(labels) if len(labels) else 1.0


@torch.no_grad()
def compare(folder: Path) -> dict[str, float]:
    """Compare the network of a reference folder."""
    given = torch.load(folder / "input.pt")["input"]
    reference = torch.load(folder / "reference.pt", weights_only=False)
    with tempfile.TemporaryDirectory() as out:
        convert_file(folder / "checkpoint.pth", out)
        net, card = load_pretrained(out)
    if hasattr(net, "words"):
        net.words = WORDS
    output = net.to(given.dtype)(given)
    raw, final = reference["logits"], reference["final"]
    found = {"classes": relative(output.class_logits, raw["cls"]), "masks": relative(output.mask_logits, raw["mask"])}
    height, width = (int(side) for side in final["size"])
    size, count = (height, width), output.class_logits.shape[-1] - 1
    things = [index < 2 * count // 3 for index in range(count)]
    (segments,) = panoptic(output, size, crop=size, rule=lowered(card.objects, masks=True), things=things)
    kinds = {one.id: one.class_index for one in segments.panoptic.segments}
    ids, theirs = torch.from_numpy(segments.panoptic.ids).long(), final["panoptic_low"].long()
    found["pixels"] = same_pixels(ids, kinds, theirs, final["segments_low"])
    (objects,) = instance(output, size, crop=size, rule=lowered(card.objects, masks=False))
    found["objects"] = paired(objects.instances, final["labels_low"], final["scores_low"])
    return {**found, "segments": len(final["segments_low"]), "of objects": len(final["labels_low"])}


def main() -> None:
    """Print a line for each folder."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        found = compare(Path(name))
        told = "  ".join(
            f"{key} {value:{'.1e' if key in ('classes', 'masks') else '.4f' if key in ('pixels', 'objects') else 'd'}}"
            for key, value in found.items()
        )
        print(f"{Path(name).parent.name}/{Path(name).name:16s} {told}", flush=True)


if __name__ == "__main__":
    main()
