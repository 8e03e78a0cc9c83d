"""Networks of queries beside their peers: `python tools/parity_queries.py FOLDER...`.

Each FOLDER is what `ref_models.py KEY [--dtype float64] [--image FILE]` wrote: checkpoint, input, and what the peer's
queries predict. Printed are the largest differences as a fraction of the peer's largest value: of classes and masks
after the last layer in eval mode, and of the worst layer where the peer gives all of them. The arithmetic is that of
the reference.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.converting import convert_file
from segatlas.hub.loading import load_pretrained
from segatlas.structures import QueryLayer


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a fraction of the largest expected value."""
    if found.shape != expected.shape:
        raise SystemExit(f"shapes differ: ours {tuple(found.shape)}, theirs {tuple(expected.shape)}")
    return float((found - expected).abs().max() / expected.abs().max())


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


@torch.no_grad()
def compare(folder: Path) -> dict[str, float]:
    """Compare the network of a reference folder."""
    given = torch.load(folder / "input.pt")
    reference = torch.load(folder / "reference.pt", weights_only=False)
    file = next(file for file in (folder / "checkpoint.pkl", folder / "checkpoint.pth") if file.is_file())
    with tempfile.TemporaryDirectory() as out:
        convert_file(file, out)
        net, card = load_pretrained(out)
    theirs = their_layers(reference)
    x = input_of(given, card, folder.name.partition(".")[0]).to(theirs[-1].mask_logits.dtype)
    net = net.to(x.dtype)
    last = net(x)
    net.training = True  # the network alone, not its parts: it then gives all layers
    layers = net(x).layers[-len(theirs) :]
    return {
        "classes": relative(last.class_logits, theirs[-1].class_logits),
        "masks": relative(last.mask_logits, theirs[-1].mask_logits),
        "layers": len(theirs),
        "worst classes": max(relative(a.class_logits, b.class_logits) for a, b in zip(layers, theirs, strict=True)),
        "worst masks": max(relative(a.mask_logits, b.mask_logits) for a, b in zip(layers, theirs, strict=True)),
    }


def main() -> None:
    """Print a line for each folder."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        found = compare(Path(name))
        told = "  ".join(f"{key} {value:{'.0f' if key == 'layers' else '.1e'}}" for key, value in found.items())
        print(f"{Path(name).name:28s} {told}", flush=True)


if __name__ == "__main__":
    main()
