"""Words that people bring from other libraries, and the key of a recipe that each means.

Read after a word was refused, to say what to write; no such word is taken.
"""

from __future__ import annotations

import re

KEYS = {
    "epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "steps": "train.steps",
    "max_steps": "train.steps",
    "iters": "train.steps",
    "max_iters": "train.steps",
    "batch": "train.batch",
    "batch_size": "train.batch",
    "samples_per_gpu": "train.batch",
    "accumulate_grad_batches": "train.accumulate",
    "lr": "train.lr",
    "lr0": "train.lr",
    "learning_rate": "train.lr",
    "optimizer": "train.optimizer.name",
    "weight_decay": "train.optimizer.weight_decay",
    "momentum": "train.optimizer.momentum",
    "patience": "train.early_stopping.patience",
    "val_interval": "train.val_every",
    "amp": "train.precision",
    "device": "train.device",
    "gpus": "train.devices",
    "num_gpus": "train.devices",
    "workers": "data.workers",
    "num_workers": "data.workers",
    "imgsz": "transforms.crop",
    "img_size": "transforms.crop",
    "image_size": "transforms.crop",
    "crop_size": "transforms.crop",
    "fliplr": "transforms.flip",
    "flipud": "transforms.flip_vertical",
    "seed": "seed",
    "model": "model.name",
    "arch": "model.name",
    "backbone": "model.encoder",
    "encoder": "model.encoder",
    "encoder_name": "model.encoder",
    "encoder_weights": "model.encoder_weights",
    "nc": "model.num_classes",
    "num_classes": "model.num_classes",
    "load_from": "model.start_from",
    "weights": "model.start_from",
    "pretrained": "model.encoder_weights",
    "work_dir": "run.dir",
    "output_dir": "run.dir",
    "save_dir": "run.dir",
    "project": "run.root",
    "name": "run.name",
}
"""Word of another library, with `_` for `-` -> the key of a recipe."""

_FOLDER = "the folder of the data comes first: segatlas train DIR"
OTHER_WAYS = {
    "data": _FOLDER,
    "data_dir": _FOLDER,
    "data_root": _FOLDER,
    "cfg_options": "KEY=VALUE words stand alone, such as train.lr=0.01",
    "resume_from": "--resume last, or --resume RUN",
    "auto_resume": "--resume last",
    "launcher": "--devices N",
}
"""The same of words that no key stands for -> what to do."""


def named(word: str) -> str:
    """Return how a word, `--batch-size` or `batch_size`, stands in the tables."""
    return word.lstrip("-").lower().replace("-", "_")


def what_to_write(word: str, value: str = "") -> str:
    """Return what to write for a word of another library and its value, "" where the word is none.

    Args:
        word: as it was written, with dashes before it or not.
        value: as it was written; "" = not given.
    """
    name = named(word)
    if name in OTHER_WAYS:
        return OTHER_WAYS[name]
    return f"{KEYS[name]}={_value(KEYS[name], value)}" if name in KEYS else ""


def _value(key: str, value: str) -> str:
    """Return a value in the form that the key takes."""
    if key == "transforms.crop":
        sides = re.findall(r"\d+", value)[:2]
        return f"[{sides[0]},{sides[-1]}]" if sides else "[HEIGHT,WIDTH]"
    if key == "model.encoder_weights" and value.lower() in ("", "true", "false"):  # a switch elsewhere
        return "null" if value.lower() == "false" else "imagenet"
    if key == "train.precision":
        return "fp32" if value.lower() in ("false", "0", "no") else "bf16"
    if key == "train.device" and value not in ("cpu", "mps", "auto"):
        return "cuda"  # numbers of GPUs
    if key == "train.optimizer.name":
        return value.lower() or "NAME"
    if key == "model.name" and not value.isidentifier():  # a file of weights, a config
        return "NAME"
    return value or "VALUE"
