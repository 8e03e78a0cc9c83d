"""Networks that find objects beside their peers: `python tools/parity_objects.py FOLDER...`.

Each FOLDER is what `ref_models.py KEY --image FILE` wrote: checkpoint, input, the peer's maps stage by stage and its
final detections. Printed are the largest differences as a fraction of the peer's largest value: proposal maps of all
levels, then both heads on the peer's own proposals; and the fraction of final detections that have a partner of
the same class (IoU of boxes 0.99, score within 1e-3) on the network's own proposals. Of a PointRend also points
of the peer's own detections, and the fraction of their final masks with an IoU of 0.99 with one of ours.
Of networks whose cells find objects: all maps by level, masks of the peer's own detections, and the fraction of these
with a partner whose final mask has an IoU of 0.99 besides. Of networks whose pixels point at centres: the three maps
at the image's size, the fraction of pixels in the same segment, and of objects with a partner of the same mask and
score.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.conversion.converting import convert_file
from segatlas.hub.loading import load_pretrained
from segatlas.layers.point_head import pixel_centres
from segatlas.ops import upsample_logits
from segatlas.ops.boxes import ious
from segatlas.postprocess.centers_offsets import panoptic as centered
from segatlas.postprocess.detected_masks import instance, panoptic

NAMES = {
    "tv": ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor", "proposals"),
    "md": ("rpn_head", "roi_head.bbox_head", "roi_head.mask_head", "bboxes"),
    "d2": ("proposal_generator.rpn_head", "roi_heads.box_predictor", "roi_heads.mask_head.predictor", "boxes"),
}
"""Library -> what the reference calls proposal head, box head, mask head, and the boxes of proposals."""


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a fraction of the largest expected value."""
    if found.shape != expected.shape:
        raise SystemExit(f"shapes differ: ours {tuple(found.shape)}, theirs {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30)) if found.numel() else 0.0


def paired(found: tuple[Tensor, Tensor, Tensor], expected: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return the fraction of the expected (boxes, scores, labels) with a partner among those found."""
    boxes, scores, labels = expected
    if not len(boxes):
        return 1.0
    if not len(found[0]):
        return 0.0
    fits = (ious(boxes, found[0]) >= 0.99) & (labels[:, None] == found[2][None])
    fits &= (scores[:, None] - found[1][None]).abs() <= 1e-3
    return float(fits.any(dim=1).float().mean())


def network_input(image: Tensor, card: Any, library: str) -> Tensor:
    """Return an image (H, W, 3) uint8 in BGR as a network of that card takes it, in its own size.

    Values are normalised in the library's order, torchvision's as fractions, the others' as 0..255: another rounding of
    a formula is enough to change which of many like proposals come first.
    """
    highest = card.preprocessing.max_value
    scale = 1.0 if library == "tv" else float(highest)
    mean, std = (
        (torch.tensor(values, dtype=torch.float64) * scale).float().view(1, 3, 1, 1)
        for values in (card.preprocessing.mean, card.preprocessing.std)
    )
    rgb = image.flip(2).permute(2, 0, 1)[None].float()
    return (rgb / (highest / scale) - mean) / std


def last_of(value: Any) -> Any:
    """Return the last call of a head that the reference listened to."""
    return value[-1] if isinstance(value, list) else value


def two_stage(net: Any, card: Any, x: Tensor, reference: Mapping[str, Any], library: str) -> dict[str, float]:
    """Compare a network of two stages; the first class of torchvision's is "no object", of which ours has no box."""
    rpn, box, mask, boxes = NAMES[library]
    raw, final = reference["logits"], reference["final"]
    scores, deltas = raw[rpn][0]
    proposals = raw["proposals"] if torch.is_tensor(raw["proposals"]) else raw["proposals"][boxes]
    given, own = net.on_proposals(x, [proposals]), net(x)
    logits, box_deltas = raw[box][0]
    if library == "tv":
        logits, box_deltas = logits.roll(-1, 1), box_deltas[:, 4:]
    found = {
        "rpn scores": max(relative(a, b) for a, b in zip(own.raw["rpn_scores"], scores, strict=True)),
        "rpn deltas": max(relative(a, b) for a, b in zip(own.raw["rpn_deltas"], deltas, strict=True)),
        "box logits": relative(given.raw["box_logits"], logits),
        "box deltas": relative(given.raw["box_deltas"], box_deltas),
    }
    if mask in raw and len(final.get("boxes", ())):
        theirs = last_of(raw[mask])
        maps, _ = net.pyramid(x)
        ours = net.stages.look_at_masks(maps, [final["boxes"]])
        found["mask logits"] = relative(ours, theirs[:, 1:] if library == "tv" else theirs)
    found |= of_points(net, card, x, reference, library, given) if hasattr(net.stages, "point_head") else {}
    if own.semantic is not None and ("semantic_head" in raw or "sem_seg_head" in raw):
        theirs = last_of(raw.get("semantic_head", raw.get("sem_seg_head")))
        theirs = theirs[0] if isinstance(theirs, list) else theirs
        if theirs.shape[-1] != own.semantic.shape[-1]:  # upsampled already
            theirs = theirs.detach()
            ours = F.interpolate(own.semantic, theirs.shape[-2:], mode="bilinear", align_corners=False)
        else:
            ours = own.semantic
        found["semantic"] = relative(ours, theirs)
    if "boxes" in final:
        expected = (final["boxes"], final["scores"], final["labels"] - int(library == "tv"))
        for name, output in (("pairs, given", given), ("pairs, own", own)):
            found[name] = paired((output.boxes[0], output.scores[0], output.labels[0]), expected)
        found["detections"] = len(expected[0])
    if "panoptic" in final:
        found["pairs, pixels"] = panoptic_agreement(given, card, final, library)
    return found


def of_points(
    net: Any, card: Any, x: Tensor, reference: Mapping[str, Any], library: str, given: Any
) -> dict[str, float]:
    """Compare what a PointRend makes of the peer's own detections: points and final masks.

    Points are those of the first step, which computes every cell. In which order theirs come is chance, so the values
    of each class are sorted. Detectron2 drops detections without an area behind the heads: theirs then has more rows.
    """
    raw, final, stages = reference["logits"], reference["final"], net.stages
    maps, boxes, labels = net.pyramid(x)[0], [final["boxes"]], final["labels"]
    coarse = stages.look_at_masks(maps, boxes)
    theirs = raw["roi_head.point_head" if library == "md" else "roi_heads.mask_head.point_head"][0].sort(dim=2).values
    side, dropped = math.isqrt(theirs.shape[2]), len(theirs) - len(coarse)
    cells = torch.arange(side**2).expand(len(coarse), -1)
    ours = stages.logits_at(pixel_centres(cells, side, side), maps, boxes, coarse).sort(dim=2).values
    shifted = [(ours - theirs[shift : shift + len(ours)]).abs().amax(dim=(1, 2)) for shift in range(dropped + 1)]
    found = {"point logits": float(torch.stack(shifted).amin(dim=0).max() / theirs.abs().max())}
    masks = stages.own_masks(maps, boxes, labels, coarse)
    output = given._replace(boxes=(boxes[0],), scores=(final["scores"],), labels=(labels,), mask_logits=(masks,))
    return found | {"pairs, masks": masks_agreement(output, card, final)}


def masks_agreement(output: Any, card: Any, final: Mapping[str, Any]) -> float:
    """Return the fraction of the peer's masks with an IoU of 0.99 with one of ours."""
    size = (int(final["size"][0]), int(final["size"][1]))
    (result,) = instance(output, size, crop=size, rule=card.objects)
    theirs = np.unpackbits(final["masks"].numpy(), axis=-1)[..., : size[1]].astype(bool)
    bitmaps = np.stack([one.bitmap() for one in result.instances])
    return float(np.mean([(mask_ious(mask, bitmaps) >= 0.99).any() for mask in theirs]))


def panoptic_agreement(output: Any, card: Any, final: Mapping[str, Any], library: str) -> float:
    """Return the fraction of pixels in the same segment: of one class, and one for one."""
    theirs = final["panoptic"].long()
    size = (theirs.shape[0], theirs.shape[1])
    if library == "d2":  # its merging sorts once more, and equal scores come in an order of that sort's own
        order = torch.argsort(-output.scores[0])
        parts = ("boxes", "scores", "labels", "mask_logits")
        output = output._replace(**{name: (getattr(output, name)[0][order],) for name in parts})
    (result,) = panoptic(output, size, crop=size, rule=card.objects, things=card.things)
    segments = result.panoptic
    kinds = torch.full((len(segments.segments) + 1 + int(segments.ids.max()),), len(card.classes))
    for one in segments.segments:
        kinds[one.id] = one.class_index
    ids = torch.from_numpy(segments.ids).long()
    if library == "d2":
        table = torch.full((int(theirs.max()) + 1,), len(card.classes))
        things = sum(card.things)
        for number, is_thing, category in final["segments"]:
            table[number] = category if is_thing else things + category - 1
        classes = table[theirs]
    else:
        classes = theirs % 1000
    same = kinds[ids] == classes
    agreed = torch.zeros_like(same)
    for number in theirs.unique():
        place = theirs == number
        agreed |= place & (ids == ids[place].mode().values)
    return float((same & agreed).float().mean())


def of_cells(net: Any, card: Any, x: Tensor, reference: Mapping[str, Any]) -> dict[str, float]:
    """Compare a network whose cells find objects and bring the weights of their masks."""
    (maps,), final, own = reference["logits"]["bbox_head"], reference["final"], net(x)
    names = ("class_logits", "distances", "centerness", "mask_weights")
    found = {
        name.replace("_", " "): max(relative(a, b) for a, b in zip(own.raw[name], level, strict=True))
        for name, level in zip(names, maps, strict=True)
    }
    cell = their_cells(net, own, dict(zip(names, maps, strict=True)), final)
    weights = torch.cat([level[0].flatten(1).T for level in own.raw["mask_weights"]])[cell]
    cells = type(net.cells(own.raw["distances"]))(*(part[cell] for part in net.cells(own.raw["distances"])))
    masks = last_of(last_of(reference["logits"]["mask_head"]))
    found["mask logits"] = relative(net.masks(own.raw["mask_features"][0], weights, cells), last_of(masks))
    expected = (final["boxes"], final["scores"], final["labels"])
    found["pairs, own"] = paired((own.boxes[0], own.scores[0], own.labels[0]), expected)
    found["pairs, masks"] = masks_agreement(own, card, final)
    found["detections"] = len(final["boxes"])
    return found


def of_centers(net: Any, card: Any, x: Tensor, reference: Mapping[str, Any]) -> dict[str, float]:
    """Compare a network whose pixels point at centres; theirs numbers segments class * 1000 + n, -1 = none."""
    raw, final, own = reference["logits"], reference["final"], net(x)
    size = (x.shape[-2], x.shape[-1])
    theirs = {"semantic": last_of(raw["sem_seg_head"])[0]}
    theirs["centers"], theirs["offsets"] = last_of(raw["ins_embed_head"])[:2]
    align = own.resample.align_corners
    found = {
        name: relative(upsample_logits(getattr(own, name), size, canvas=own.canvas, align_corners=align), values)
        for name, values in theirs.items()
    }
    (result,) = centered(own, size, crop=size, rule=card.objects, things=card.things)
    segments, given = result.panoptic, final["panoptic"].long()
    kinds = torch.full((len(segments.segments) + 1,), -1)
    for one in segments.segments:
        kinds[one.id] = one.class_index
    ids = torch.from_numpy(segments.ids).long()
    same = kinds[ids] == torch.where(given < 0, -1, given // 1000)
    agreed = torch.zeros_like(same)
    for number in given.unique():
        place = given == number
        agreed |= place & (ids == ids[place].mode().values)
    found["pairs, pixels"] = float((same & agreed).float().mean())
    found["segments"] = len(given.unique())
    if "masks" in final:
        masks = np.unpackbits(final["masks"].numpy(), axis=-1)[..., : size[1]].astype(bool)
        bitmaps = np.stack([one.bitmap() for one in result.instances])
        ratios = np.stack([mask_ious(mask, bitmaps) for mask in masks])
        found["pairs, masks"] = float((ratios.max(axis=1) >= 0.99).mean())
        scores = np.array([one.score for one in result.instances])[ratios.argmax(axis=1)]
        found["scores"] = float(np.abs(scores - final["scores"].numpy()).max())
        found["detections"] = len(masks)
    return found


def their_cells(net: Any, own: Any, maps: Mapping[str, Any], final: Mapping[str, Tensor]) -> Tensor:
    """Return in which cell each of the peer's detections was found: its box and score follow from the peer's maps."""
    flat = {name: torch.cat([level[0].flatten(1).T for level in levels]) for name, levels in maps.items()}
    middles = net.cells(own.raw["distances"]).middles
    boxes = torch.cat([middles - flat["distances"][:, :2], middles + flat["distances"][:, 2:]], dim=1)
    height, width = (int(side) for side in final["size"])
    boxes = torch.stack([boxes[:, index].clamp(0, (width, height)[index % 2]) for index in range(4)], dim=1)
    scores = flat["class_logits"].sigmoid() * flat["centerness"].sigmoid()
    apart = (boxes[None] - final["boxes"][:, None]).abs().amax(dim=2)
    apart = apart + 100 * (scores[:, final["labels"]].T - final["scores"][:, None]).abs()
    return apart.argmin(dim=1)


def mask_ious(mask: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a mask (H, W) with others (D, H, W); 1 where both are empty."""
    common, union = (mask & others).sum((1, 2)), (mask | others).sum((1, 2))
    ratio: np.ndarray = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    return ratio


@torch.no_grad()
def compare(folder: Path) -> dict[str, float]:
    """Compare the network of a reference folder."""
    given = torch.load(folder / "input.pt")
    reference = torch.load(folder / "reference.pt", weights_only=False)
    library = folder.name.partition(".")[0]
    file = next(file for file in (folder / "checkpoint.pkl", folder / "checkpoint.pth") if file.is_file())
    with tempfile.TemporaryDirectory() as out:
        convert_file(file, out)
        net, card = load_pretrained(out)
    x = network_input(given["image"], card, library)
    if "ins_embed_head" in reference["logits"]:
        return of_centers(net, card, x, reference)
    if hasattr(net, "cells"):
        return of_cells(net, card, x, reference)
    return two_stage(net, card, x, reference, library)


def main() -> None:
    """Print a line for each folder."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        found = compare(Path(name))
        whole = ("detections", "segments")
        forms = {key: ".4f" if "pairs" in key else ".0f" if key in whole else ".1e" for key in found}
        told = "  ".join(f"{key} {value:{forms[key]}}" for key, value in found.items())
        print(f"{Path(name).name:28s} {told}", flush=True)


if __name__ == "__main__":
    main()
