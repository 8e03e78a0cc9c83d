"""Recipes that state every key of the schema, for `tools/make_frozen.py`; keys that exclude each other take two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from segatlas.config import yaml_tree
from segatlas.config.section import Section
from segatlas.losses import LOSSES
from segatlas.recipe import Config

EVERY_KEY = {
    "every_key_a": """\
# Every key of a recipe, part a
seed: 3
task: semantic
run: {dir: work/mine, root: work, exist_ok: true}
model:
  name: unet
  encoder: resnet18
  encoder_weights: imagenet
  num_classes: 3
  in_channels: 3
  start_from: work/earlier
  input:
    mean: [0.1, 0.2, 0.3]
    std: [0.4, 0.5, 0.6]
    max_value: 1023
    resize: short:96
    mode: slide
    crop: [64, 48]
    stride: [32, 24]
data:
  name: folder
  root: work/data
  classes: [sky, road, car]
  palette: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
  label_map: {7: 0, 8: 1, 11: 255}
  ignore: [254, nan]
  channels: 3
  lists: {train: a.txt, val: b.csv, test: c.csv}
  val_fraction: 0.3
  accept: [leakage, smoothed_mask, mixed_depth]
  workers: 2
  store: "off"
  store_reserve_gb: 1.5
transforms:
  resize: long:128
  scale: [0.7, 1.4]
  aspect: 0.1
  rotation: 12.5
  crop: [64, 48]
  class_balance: 0.75
  flip: 0.25
  flip_vertical: 0.125
  turns: true
  photometric: {share: 0.6, brightness: 0.2, contrast: [0.6, 1.4], saturation: [0.7, 1.3], hue: 9}
  blur: {share: 0.3, sigma: [0.2, 1.2]}
losses:
- {name: cross_entropy, weight: 0.9, on: logits, class_weights: [1, 2, 0.5], label_smoothing: 0.1}
- {name: ohem, weight: 0.8, class_weights: auto, threshold: 0.6, min_kept: 500}
- {name: dice, weight: 0.7, smooth: 2}
- {name: cross_entropy_dice, label_smoothing: 0.05, dice_fraction: 0.4, smooth: 0.5}
- {name: focal, gamma: 1.5}
- {name: tversky, alpha: 0.4, beta: 0.6, gamma: 1.2, smooth: 0.1}
- {name: lovasz, per_image: true}
- {name: boundary, width: 2, factor: 4}
- {name: detail, on: aux.borders, weight: 0.3}
- {name: class_presence, on: aux.classes, weight: 0.2}
- {name: point_cross_entropy, on: aux.points}
train:
  steps: 400
  batch: 3
  accumulate: 2
  allow_other_batch: true
  lr: 2e-3
  optimizer:
    name: sgd
    weight_decay: 0.02
    decay_norms: true
    momentum: 0.8
    nesterov: true
    betas: [0.8, 0.99]
    encoder_lr_factor: 0.1
    layer_decay: 0.9
  schedule:
    name: step
    warmup: 20
    warmup_ratio: 0.01
    power: 0.8
    min_ratio: 0.05
    milestones: [0.5, 0.75]
    factor: 0.2
    patience: 3
  precision: bf16
  channels_last: false
  clip: 2.5
  ema: {decay: 0.95, warmup: false}
  early_stopping: {patience: 4, min_delta: 0.001}
  val_every: 50
  checkpoint_every: 25
  metric: pixel_accuracy
  freeze_encoder: true
  gradient_checkpointing: true
  deterministic: false
  devices: 1
  device: cpu
  threads: 1
  time_limit: 90.5
eval: {split: test, batch: 2, tta: [flips, "scales:0.75,1.25"], boundary: false, boundary_width: 0.03, sizes: false}
log: {every: 5, tensorboard: false, samples: 2}
""",
    "every_key_b": """\
# Every key of a recipe, part b: what excludes keys of part a
run: {name: mine}
data:
  label_colors: {"10,20,30": 0, "200,100,0": 255}
train: {epochs: 7, val_epochs: 2}
losses: [cross_entropy, {name: lovasz, weight: 0.5}]
""",
}


def keys_of_the_schema() -> set[str]:
    """Return every dotted key that a recipe may state; those of losses as `losses.NAME.key`."""
    keys = {f"losses.{name}.{key}" for name, loss in LOSSES.items() for key in own(name, loss)}
    return keys | {key for key in keys_of(Config) if not key.startswith("losses")}


def own(name: str, loss: type[Section]) -> list[str]:
    """Return a loss' keys that are its own: what all losses share is stated by cross_entropy alone."""
    shared = ("weight", "on", "class_weights")
    return [key for key in loss.model_fields if key not in shared or name == "cross_entropy"]


def keys_of(section: type[Section], prefix: str = "") -> set[str]:
    """Return the dotted keys of a group, its groups' keys in their place."""
    keys: set[str] = set()
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)
        keys |= keys_of(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return keys


def stated_keys(files: Iterable[Path]) -> set[str]:
    """Return the dotted keys that files state, as `keys_of_the_schema` writes them."""
    stated: set[str] = set()
    for file in files:
        node, _ = yaml_tree.parse(file.read_text(encoding="utf-8"), str(file))
        tree = node.plain() if node else {}
        for term in tree.pop("losses"):
            stated |= {f"losses.{term['name']}.{key}" for key in term} if isinstance(term, dict) else set()
        stated |= set(_paths(tree))
    return stated


def _paths(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a tree, groups and what is in them."""
    found = []
    for key, value in tree.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _paths(value, f"{prefix}{key}.")
    return found
