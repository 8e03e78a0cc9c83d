from __future__ import annotations

from typing import Any

import pytest

from segatlas.config import Config
from segatlas.config.rules import check_rules

GOOD: list[dict[str, Any]] = [
    {},
    {"train": {"val_every": 3, "val_epochs": 1}},
    {"train": {"schedule": {"milestones": (0.2, 0.5, 0.9)}}},
    {"train": {"optimizer": {"name": "sgd", "nesterov": True}}},
    {"train": {"precision": "fp16"}},
    {"eval": {"tta": ("flips", "scales:0.5,8")}},
    {"train": {"precision": "bf16", "device": "cpu"}},
    {"model": {"input": {"mode": "slide", "crop": (8, 8), "stride": (8, 4)}}},
    {"model": {"input": {"mean": (0, 0), "std": (1, 1)}, "in_channels": 2}},
    {"model": {"num_classes": 2}, "data": {"classes": ("a", "b"), "palette": ((0, 0, 0), (9, 9, 9))}},
    {"data": {"classes": ("a", "b"), "label_map": {0: 0, 9: 1, 11: 255}}},
    {"data": {"label_colors": {"0,0,0": 0, "255, 0, 1": 255}}},
    {"model": {"num_classes": 2}, "losses": [{"name": "dice", "class_weights": (0, 1)}]},
    {"losses": [{"name": "dice", "class_weights": "auto"}]},
    {"losses": [{"name": "cross_entropy", "class_weights": "median_frequency"}]},
    {"train": {"schedule": {"name": "exponential", "min_ratio": 0.01}, "optimizer": {"name": "rmsprop"}}},
    {"train": {"schedule": {"name": "exponential", "min_lr": 1e-4}}},
    {"train": {"optimizer": {"decay_norms": True, "decay_encoder_norms": False}, "schedule": {"min_lr": 1e-3}}},
    {"transforms": {"scale": (0.5, 0.5), "class_balance": 0.7, "crop": (8, 8), "photometric": {}, "blur": {}}},
]

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"train": {"steps": 3, "epochs": 3}}, "train.epochs", "both epochs and steps"),
    ({"train": {"steps": None, "epochs": None}}, "train.epochs", "both are null"),
    ({"train": {"val_every": 3, "val_epochs": 2}}, "train.val_epochs", "both val_every and val_epochs"),
    ({"train": {"schedule": {"milestones": (0.5, 0.2)}}}, "train.schedule.milestones", "ascend"),
    ({"train": {"schedule": {"milestones": (0.5, 0.5)}}}, "train.schedule.milestones", "ascend"),
    ({"train": {"schedule": {"milestones": (0.5, 1.0)}}}, "train.schedule.milestones", "below 1"),
    ({"train": {"lr": 0.01, "schedule": {"min_lr": 0.1}}}, "train.schedule.min_lr", "train.lr = 0.01"),
    ({"train": {"schedule": {"name": "exponential"}}}, "train.schedule.min_ratio", "no end at 0"),
    ({"train": {"schedule": {"name": "exponential", "min_lr": 0}}}, "train.schedule.min_ratio", "no end at 0"),
    (
        {"train": {"optimizer": {"decay_encoder_norms": False}}},
        "train.optimizer.decay_encoder_norms",
        "decay_norms: true",
    ),
    ({"train": {"optimizer": {"nesterov": True}}}, "train.optimizer.nesterov", "sgd"),
    ({"train": {"optimizer": {"betas": (0.9, 1.0)}}}, "train.optimizer.betas", "below 1"),
    (
        {"train": {"optimizer": {"name": "sgd", "momentum": 0, "nesterov": True}}},
        "train.optimizer.nesterov",
        "momentum",
    ),
    ({"train": {"precision": "fp16", "device": "cpu"}}, "train.precision", "needs a GPU"),
    ({"model": {"input": {"mode": "slide"}}}, "model.input.crop", "mode slide"),
    ({"model": {"input": {"mode": "slide", "crop": (8, 8), "stride": (8, 9)}}}, "model.input.stride", "without"),
    ({"model": {"input": {"crop": (8, 8)}}}, "model.input.crop", "the mode is whole"),
    ({"model": {"input": {"stride": (8, 8)}}}, "model.input.stride", "the mode is whole"),
    ({"model": {"input": {"mean": (0, 0), "std": (1, 1, 1)}}}, "model.input.mean", "mean has 2 values, std has 3"),
    ({"model": {"input": {"mean": (0, 0, 0)}}}, "model.input.mean", "together"),
    ({"model": {"input": {"std": (1, 1, 1)}}}, "model.input.std", "together"),
    ({"model": {"input": {"mean": (0, 0), "std": (0, 1)}}}, "model.input.std", "at least 1e-06"),
    ({"model": {"input": {"mean": (0,), "std": (1,)}, "in_channels": 3}}, "model.input.mean", "3 channels"),
    ({"eval": {"tta": ("flips", "scales:1,9")}}, "eval.tta.1", "at most 8"),
    ({"model": {"in_channels": 4}, "data": {"channels": 3}}, "model.in_channels", "data.channels = 3"),
    ({"model": {"num_classes": 3}, "data": {"classes": ("a", "b")}}, "model.num_classes", "2 classes"),
    ({"model": {"num_classes": 256}}, "model.num_classes", "at most 255"),
    ({"data": {"classes": tuple(map(str, range(256)))}}, "data.classes", "at most 255"),
    ({"data": {"classes": ("a", "a")}}, "data.classes", "twice"),
    ({"data": {"classes": ("a", "b"), "palette": ((0, 0, 0),)}}, "data.palette", "1 colours for 2 classes"),
    ({"data": {"classes": ("a", "b"), "label_map": {0: 2}}}, "data.label_map.0", "0..1"),
    ({"model": {"num_classes": 4}, "data": {"label_map": {5: -1}}}, "data.label_map.5", "0..3"),
    ({"data": {"label_colors": {"1,2,3": 256}}}, "data.label_colors.1,2,3", "0..254"),
    ({"data": {"label_colors": {"1,2": 0}}}, "data.label_colors.1,2", "'r,g,b'"),
    ({"data": {"label_colors": {"1,2,256": 0}}}, "data.label_colors.1,2,256", "'r,g,b'"),
    ({"losses": []}, "losses", "at least one loss"),
    (
        {"model": {"num_classes": 3}, "losses": [{"name": "dice"}, {"name": "focal", "class_weights": (1, 2)}]},
        "losses.1.class_weights",
        "2 weights for 3 classes",
    ),
    ({"losses": [{"name": "dice", "class_weights": (1, -1)}]}, "losses.0.class_weights", "at least 0"),
    ({"losses": [{"name": "dice", "class_weights": (0, 0)}]}, "losses.0.class_weights", "not all 0"),
    ({"losses": [{"name": "lovasz", "class_weights": (1e38, 1)}]}, "losses.0.class_weights", "at most 1e+09"),
    ({"transforms": {"scale": (2, 0.5)}}, "transforms.scale", "low <= high"),
    ({"transforms": {"photometric": {"contrast": (0, 1)}}}, "transforms.photometric.contrast", "0 < low"),
    ({"transforms": {"photometric": {"saturation": (3, 1)}}}, "transforms.photometric.saturation", "low <= high"),
    ({"transforms": {"blur": {"sigma": (2, 1)}}}, "transforms.blur.sigma", "low <= high"),
    ({"transforms": {"class_balance": 0.7}}, "transforms.class_balance", "no crop"),
    ({"transforms": {"copy_paste": {}}}, "transforms.copy_paste", "no objects to paste"),
]


@pytest.mark.parametrize("recipe", GOOD)
def test_a_recipe_whose_keys_agree_has_no_problem(recipe: dict[str, Any]) -> None:
    assert check_rules(Config.model_validate(recipe), set()) == []


@pytest.mark.parametrize(("recipe", "key", "words"), BAD)
def test_keys_that_disagree_are_one_problem(recipe: dict[str, Any], key: str, words: str) -> None:
    (problem,) = check_rules(Config.model_validate(recipe), set())
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize("faulty", ["train.epochs", "train.steps", "train"])
def test_a_rule_is_silent_about_keys_that_are_faulty_by_themselves(faulty: str) -> None:
    cfg = Config.model_validate({"train": {"steps": 3, "epochs": 3}})
    assert check_rules(cfg, {faulty}) == []
    assert len(check_rules(cfg, {"train.epochs_other", "data"})) == 1
