"""Measurements for `beside_mmsegmentation.py`: `segatlas eval` of a converted model, and the peer's own evaluation.

Run by the interpreter of the reference environment, as `beside_training.py` is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from beside_training import converted, label_of, peer_config, peer_model


def scores(
    peer: str, seed: int, root: Path, count: int, window: int | None = None, *, resize: bool = True
) -> dict[str, Any]:
    """Evaluate a converted checkpoint as `segatlas eval` does, and with the peer's test pipeline and IoUMetric.

    `window`: both by windows of this side, two thirds of it apart. `resize`: both resize as the pipeline says; else
    images stay at their own size, as they do with ours by default.
    """
    from mmseg.registry import TRANSFORMS

    from segatlas.evaluation import evaluate

    config = peer_config(peer)
    config.model.decode_head.num_classes = 11
    if window is not None:
        stride = window * 2 // 3
        config.model.test_cfg = {"mode": "slide", "crop_size": (window, window), "stride": (stride, stride)}
    model = peer_model(config, seed)
    steps = [TRANSFORMS.build(step) for step in config.test_pipeline]
    steps = [step for step in steps if type(step).__name__ == "PackSegInputs" or (resize and _is_resize(step))]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = _linked(root, place / "camvid", count)
        _spread_classes(model.eval(), steps, files[0][0])
        folder = converted(model, config, place)
        if resize:
            sides = sorted(next(step for step in config.test_pipeline if step["type"] == "Resize")["scale"])
            _set_resize(folder, f"fit:{sides[0]}x{sides[1]}")
        words = ["data.name=camvid", f"data.root={place / 'camvid'}", "data.store=off"]
        report = evaluate(str(folder), split="val", overrides=words, device="cpu", boundary=False, sizes=False)
    theirs, predicted = _peer_ious(model, steps, files)
    mine = np.array(report.scores.columns["iou"], float)
    mean = 100 * float(np.nanmean(theirs))
    return {
        "what": "scores", "peer": peer, "seed": seed, "images": len(files), "ours": 100 * report.miou, "theirs": mean,
        "class": float(np.nanmax(np.abs(100 * mine - 100 * theirs))), "classes": predicted,
        "good": abs(100 * report.miou - mean) <= 0.01,
    }  # fmt: skip


def _is_resize(step: Any) -> bool:
    return type(step).__name__ == "Resize"


def _spread_classes(model: nn.Module, steps: list[Any], image: Path) -> None:
    """Let all classes of a random start be predicted: far apart, and of the same mean on one image."""
    sample = _sample_of(image, steps)
    with torch.inference_mode():
        inputs = model.data_preprocessor({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})
        logits = model.decode_head.forward(model.extract_feat(inputs["inputs"]))
    head = model.decode_head.conv_seg
    with torch.no_grad():
        head.bias.copy_(30 * (head.bias - logits.mean((0, 2, 3))))
        head.weight.mul_(30)


def _sample_of(image: Path, steps: list[Any]) -> dict[str, Any]:
    pixels = cv2.imread(str(image))
    size = pixels.shape[:2]
    results: dict[str, Any] = {"img": pixels, "ori_shape": size, "img_shape": size, "img_path": str(image)}
    for step in steps:
        results = step.transform(results)
    return results


def _peer_ious(model: nn.Module, steps: list[Any], files: list[tuple[Path, Path]]) -> tuple[np.ndarray, int]:
    """Return the IoU of each class as the peer's metric counts them, unrounded, and how many classes are predicted."""
    from mmseg.evaluation import IoUMetric

    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": [str(index) for index in range(11)]}
    for image, annotation in files:
        packed = _sample_of(image, steps)
        with torch.inference_mode():
            (found,) = model.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
        label = torch.from_numpy(label_of(annotation)).unsqueeze(0)
        metric.process({}, [found.to_dict() | {"gt_sem_seg": {"data": label}}])
    sums = [sum(areas) for areas in zip(*metric.results, strict=True)]
    ious = metric.total_area_to_metrics(*sums, metrics=["mIoU"])["IoU"]
    return np.asarray(ious, float), int((np.asarray(sums[2]) > 0).sum())


def _linked(root: Path, place: Path, count: int) -> list[tuple[Path, Path]]:
    files = sorted((root / "val").iterdir())[::5][:count]
    pairs = [(file, root / "valannot" / f"{file.stem}.png") for file in files]
    for split in ("train", "val", "test"):
        for folder, number in ((split, 0), (f"{split}annot", 1)):
            (place / folder).mkdir(parents=True)
            for pair in pairs:
                (place / folder / pair[number].name).symlink_to(pair[number])
    return pairs


def _set_resize(folder: Path, resize: str) -> None:
    import json

    card = json.loads((folder / "card.json").read_text())
    card["preprocessing"]["resize"] = resize
    (folder / "card.json").write_text(json.dumps(card))
