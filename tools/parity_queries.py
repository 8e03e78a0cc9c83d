"""Networks of queries beside their peers: `python tools/parity_queries.py FOLDER...`.

Each FOLDER is what `ref_models.py KEY [--dtype float64] [--image FILE]` wrote: checkpoint, input, and what the peer's
queries predict. Printed are the largest differences as a fraction of the peer's largest value: of classes and masks
after the last layer in eval mode, and of the worst layer where the peer gives all of them. Then, by the card's rule:
the fraction of the peer's objects that have a partner (same class, score within 1e-3, IoU of masks 0.99 where the
reference has their masks), of pixels in the same segment of the same class, and of pixels of the same class in class
maps; "low" is the same at the peer's low thresholds, which random weights pass. The arithmetic is the reference's, also
that of positions, for which ours takes float32 always, as all but transformers do.

Where it is float32, cells that lie on the border of a mask may fall to either side of it, and what queries see jumps.
So further printed are: of how many cells ours decides otherwise in float32 than in float64, "cells"; the differences
where ours in float32 decides as in float64, "alike"; and how far the peer's float32 lies from our float64, "theirs
alone".
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segatlas.conversion.converting import convert_file
from segatlas.hub.loading import load_pretrained
from segatlas.layers import deformable_pixel_decoder
from segatlas.layers.query_decoder import sine_positions
from segatlas.models import maskformer, oneformer, query_network
from segatlas.models.eomt import EoMT
from segatlas.postprocess import query_masks
from segatlas.structures import QueryLayer, QueryMasks, Result

WORDS = range(1, 78)
"""What the references tell a OneFormer, in place of words."""

SHORTCUT: dict[str, Any] = {"upsampled_to": "stride", "upsampled": "probabilities"}
"""How the references make EoMT's class maps. transformers upsamples the logits first, and so does the card's rule."""

COMPOSED = "oneformer"
"""Of it transformers composes objects as it does segments, but of logits; ours are made as the authors make theirs."""


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a fraction of the largest expected value."""
    if found.shape != expected.shape:
        raise SystemExit(f"shapes differ: ours {tuple(found.shape)}, theirs {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max())


@dataclass
class Decisions:
    """Which cells queries saw, block by block: kept in one pass, given back in another, counted where that differs."""

    kept: list[Tensor] = field(default_factory=list)
    replayed: int | None = None
    unlike: int = 0

    def of(self, decided: Tensor) -> Tensor:
        """Return what is decided, or what was."""
        if self.replayed is None:
            self.kept.append(decided)
            return decided
        before = self.kept[self.replayed]
        self.replayed += 1
        self.unlike += int((decided != before).sum())
        return before

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ask the networks' own decisions through `of`."""
        cells, tokens = query_network.allowed_cells, EoMT.masks_of_attention

        def watched(decide: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *given: self.of(decide(*given))

        setattr(query_network, "allowed_cells", watched(cells))  # noqa: B010
        setattr(EoMT, "masks_of_attention", watched(tokens))  # noqa: B010
        try:
            yield
        finally:
            setattr(query_network, "allowed_cells", cells)  # noqa: B010
            setattr(EoMT, "masks_of_attention", tokens)  # noqa: B010


@contextmanager
def positions_of(library: str, dtype: torch.dtype) -> Iterator[None]:
    """Let positions of cells be computed in float64, as transformers does in such a network; all others in float32."""
    rooms = (query_network, maskformer, oneformer, deformable_pixel_decoder)

    def exact(grid: tuple[int, int], width: int, like: Tensor) -> Tensor:
        single = torch.float32
        setattr(torch, "float32", dtype)  # noqa: B010
        try:
            return sine_positions(grid, width, like)
        finally:
            setattr(torch, "float32", single)  # noqa: B010

    for room in rooms if library == "hf" and dtype == torch.float64 else ():
        setattr(room, "sine_positions", exact)  # noqa: B010
    try:
        yield
    finally:
        for room in rooms:
            setattr(room, "sine_positions", sine_positions)  # noqa: B010


def by_decisions(net: Any, x: Tensor, theirs: QueryLayer) -> Iterator[tuple[str, float]]:
    """Say what decisions in float32 do: see above."""
    decisions = Decisions()
    with decisions.watch():
        exact = net.double()(x.double())
        decisions.replayed = 0
        alike = net.float()(x)
    yield "cells", decisions.unlike
    for name, found in (("alike", alike), ("theirs alone", exact)):
        yield f"classes {name}", relative(found.class_logits, theirs.class_logits)
        yield f"masks {name}", relative(found.mask_logits, theirs.mask_logits)


def their_layers(reference: Mapping[str, Any]) -> list[QueryLayer]:
    """Return what the peer's queries predict after its layers, or after the last one where it gives no others."""
    raw = reference["logits"]
    if torch.is_tensor(raw):  # MMSegmentation's MaskFormer
        head = reference["heads"][-1]
        return [QueryLayer(*pair) for pair in zip(head["map"], head["se"], strict=True)]
    if "panoptic_head" in raw:  # MMDetection
        classes, masks = raw["panoptic_head"][0]
        return [QueryLayer(*pair) for pair in zip(classes, masks, strict=True)]
    if "sem_seg_head" in raw:  # the authors'
        found = raw["sem_seg_head"][0]
        return [QueryLayer(one["pred_logits"], one["pred_masks"]) for one in (*found["aux_outputs"], found)]
    return [QueryLayer(raw["cls"], raw["mask"])]


def input_of(given: Mapping[str, Tensor], card: Any, library: str) -> Tensor:
    """Return the image as a network of that card takes it; the authors' network normalises by itself."""
    if library != "d2":
        return given["input"]
    mean, std = (
        torch.tensor([round(255 * value, 6) for value in values]).view(1, 3, 1, 1).double()
        for values in (card.preprocessing.mean, card.preprocessing.std)
    )
    return (given["input"].double() - mean) / std


def our_objects(output: QueryMasks, size: tuple[int, int], rule: Any, things: Sequence[bool]) -> Result:
    """Return the objects of an output over the top left `size` pixels of its canvas."""
    (result,) = query_masks.instance(output, size, crop=size, rule=rule, things=things)
    return result


def paired(result: Result, final: Mapping[str, Any], suffix: str, width: int) -> float:
    """Return the fraction of the peer's objects, in an image of that width, that have a partner among ours.

    Those without a pixel, which MMDetection keeps with a score of 0 and ours leaves out, do not count.
    """
    theirs = np.unpackbits(final[f"masks{suffix}"].numpy(), axis=-1)[..., :width].astype(bool)
    ours = list(result.instances)
    bitmaps = [one.bitmap() for one in ours]
    found, count = 0, int(theirs.any(axis=(1, 2)).sum())
    for mask, label, score in zip(theirs, final[f"labels{suffix}"], final[f"scores{suffix}"], strict=True):
        if not mask.any():
            continue
        for one, bitmap in zip(ours, bitmaps, strict=True):
            if one.class_index != int(label) or abs(one.score - float(score)) > 1e-3:
                continue
            if (mask & bitmap).sum() / (mask | bitmap).sum() >= 0.99:
                found += 1
                break
    return found / max(count, 1)


def paired_scores(result: Result, final: Mapping[str, Any], suffix: str) -> float:
    """Return the fraction of the peer's objects with one of ours of the class and score, each taken once."""
    left = [(one.class_index, one.score) for one in result.instances]
    labels, scores = (final[f"{name}{suffix}"].tolist() for name in ("labels", "scores"))
    found = 0
    for label, score in zip(labels, scores, strict=True):
        fits = [index for index, (kind, ours) in enumerate(left) if kind == label and abs(ours - score) <= 1e-3]
        if fits:
            left.pop(min(fits, key=lambda index: abs(left[index][1] - score)))
            found += 1
    return found / len(labels)


def same_segments(result: Result, ids: np.ndarray, kinds: Mapping[int, Counter[int]], none: int) -> float:
    """Return the fraction of pixels whose class is the peer's and whose segment stands for the peer's there.

    ids: (H, W), of the peer. kinds: of each id the classes that it stands for, and for how many segments of a class:
    of one in all sources but transformers, which gives an id twice (things that follow a stuff met before).
    """
    segments = result.panoptic
    table = np.full(int(segments.ids.max()) + 1, none)
    for one in segments.segments:
        table[one.id] = one.class_index
    ours, same = table[segments.ids], np.zeros(ids.shape, bool)
    for number in np.unique(ids).tolist():
        for kind, count in kinds.get(number, Counter([none])).items():
            place = (ids == number) & (ours == kind)
            if place.any():
                areas = np.bincount(segments.ids[place])
                same |= place & np.isin(segments.ids, np.argsort(areas)[-count:])
    return float(same.mean())


def their_segments(
    final: Mapping[str, Any], suffix: str, library: str, things: Sequence[bool]
) -> tuple[np.ndarray, dict[int, Counter[int]]]:
    """Return the number of each pixel's segment in the peer's map, and of each number the classes of its segments."""
    theirs = final[f"panoptic{suffix}"].numpy().astype(np.int64)
    if library == "md":
        return theirs, {number: Counter([number % 1000]) for number in np.unique(theirs).tolist()}
    kinds: dict[int, Counter[int]] = {}
    for number, *_, category in final[f"segments{suffix}"]:
        of_number = kinds.setdefault(number, Counter())
        of_number[category] = of_number[category] + 1 if things[category] else 1
    return theirs, kinds


def rules(rule: Any, library: str, suffix: str) -> tuple[Any, Any]:
    """Return the card's rule for objects and for segments, at the peer's low thresholds where a suffix asks."""
    if not suffix:
        return rule, rule
    if library == "hf":
        queries = replace(rule.queries, segment_score=0.05, segment_overlap=0.05)
        return replace(rule, score=0.05), replace(rule, mask_threshold=0.02, queries=queries)
    return rule, replace(rule, queries=replace(rule.queries, segment_score=0.02, segment_overlap=0.005))


def finals(
    output: QueryMasks, card: Any, reference: Mapping[str, Any], library: str, size: tuple[int, int]
) -> Iterator[tuple[str, float]]:
    """Compare what follows from the last layer for an image of that size, as far as the reference has it."""
    final, classes, rule = reference.get("final") or {}, len(card.classes), card.objects
    if reference.get("pred") is not None:
        whose = replace(rule, queries=replace(rule.queries, **SHORTCUT)) if card.architecture == "eomt" else rule
        (result,) = query_masks.semantic(output, size, crop=size, rule=whose)
        differs = torch.from_numpy(np.asarray(result.class_map).astype(np.int64)) != reference["pred"]
        clear = reference["margin"].float() >= 1e-3 * float(reference["seg_logits_s8"].std())
        yield "classes of pixels", 1 - float((differs & clear).float().mean())
    for suffix in ("", "_low"):
        named, (of_objects, of_segments) = suffix.replace("_", " "), rules(rule, library, suffix)
        things = card.things
        if library == "hf":  # as the reference was told
            things = tuple(index < 2 * classes // 3 for index in range(classes))
        if f"masks{suffix}" in final:
            of_things = () if library == "hf" else card.things
            yield f"objects{named}", paired(our_objects(output, size, of_objects, of_things), final, suffix, size[1])
        elif len(final.get(f"labels{suffix}", ())) and card.architecture != COMPOSED:
            yield f"objects{named}", paired_scores(our_objects(output, size, of_objects, ()), final, suffix)
        if f"panoptic{suffix}" in final:
            ids, kinds = their_segments(final, suffix, library, things)
            whole = (ids.shape[0], ids.shape[1])  # MMDetection's at low thresholds are of the padded image
            (result,) = query_masks.panoptic(output, whole, crop=whole, rule=of_segments, things=things)
            yield f"segments{named}", same_segments(result, ids, kinds, classes)


@torch.no_grad()
def compare(folder: Path) -> dict[str, float]:
    """Compare the network of a reference folder."""
    given = torch.load(folder / "input.pt")
    reference = torch.load(folder / "reference.pt", weights_only=False)
    file = next(file for file in (folder / "checkpoint.pkl", folder / "checkpoint.pth") if file.is_file())
    with tempfile.TemporaryDirectory() as out:
        convert_file(file, out)
        net, card = load_pretrained(out)
    if hasattr(net, "words"):
        setattr(net, "words", WORDS)  # noqa: B010
    theirs = their_layers(reference)
    x = input_of(given, card, folder.name.partition(".")[0]).to(theirs[-1].mask_logits.dtype)
    net, size = net.to(x.dtype), (given["image"].shape[0], given["image"].shape[1])
    jumps = dict(by_decisions(net, x, theirs[-1])) if x.dtype == torch.float32 else {}
    with positions_of(folder.name.partition(".")[0], x.dtype):
        last = net(x)
        net.training = True  # the network alone, not its parts: it then gives all layers
        layers = net(x).layers[-len(theirs) :]
    found = {
        "classes": relative(last.class_logits, theirs[-1].class_logits),
        "masks": relative(last.mask_logits, theirs[-1].mask_logits),
        "layers": len(theirs),
        "worst classes": max(relative(a.class_logits, b.class_logits) for a, b in zip(layers, theirs, strict=True)),
        "worst masks": max(relative(a.mask_logits, b.mask_logits) for a, b in zip(layers, theirs, strict=True)),
    }
    return found | jumps | dict(finals(last, card, reference, folder.name.partition(".")[0], size))


def main() -> None:
    """Print a line for each folder."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        found = compare(Path(name))
        forms = {
            key: ".0f" if key in ("layers", "cells") else ".4f" if value > 0.01 or "s low" in key else ".1e"
            for key, value in found.items()
        }
        told = "  ".join(f"{key} {value:{forms[key]}}" for key, value in found.items())
        print(f"{Path(name).name:28s} {told}", flush=True)


if __name__ == "__main__":
    main()
