"""What a training chooses from its data: samples, length and warm-up; where they are kept, and that all is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes.folder import write_folder
from fakes.thin import write_thin

from segatlas.config.schema import TrainConfig
from segatlas.data import choices
from segatlas.recipe import Config
from segatlas.training import chosen, dry_run, train
from segatlas.training.chosen import choose_epochs, with_length, with_transforms

OPEN = ("transforms.crop=auto", "transforms.scale=auto", "train.schedule.warmup=auto", "train.val_epochs=auto")
NARROW = "model={name: unet, encoder: resnet18_w8, encoder_weights: auto, decoder_channels: [8, 8, 8, 8]}"


def lengths(config: TrainConfig) -> tuple[object, ...]:
    return config.epochs, config.steps, config.val_epochs, config.schedule.warmup


def test_a_small_set_has_more_passes_and_a_huge_one_fewer() -> None:
    assert [choose_epochs(a_pass)[0] for a_pass in (1, 6, 10, 100, 400, 1000, 50_000)] == [500, 84, 50, 50, 50, 20, 1]


@pytest.mark.parametrize(
    ("words", "images", "expected"),
    [
        ((), 5, (500, None, 10, 25)),
        ((), 24, (84, None, 1, 25)),
        ((), 400, (50, None, 1, 100)),
        ((), 40_000, (2, None, 1, 100)),
        (("train.steps=300", "train.batch=2"), 24, (None, 300, 1, 15)),
        (("train.epochs=3",), 8, (3, None, 1, 0)),
        (("train.val_every=7",), 5, (500, None, 1, 25)),
        (("train.val_epochs=4", "train.schedule.warmup=30"), 5, (500, None, 4, 30)),
    ],
)
def test_length_and_warm_up_follow_from_the_images_and_stated_keys_win(words, images, expected) -> None:
    config, lines = with_length(Config.load("unet_folder", *words), images, 1)
    assert lengths(config.train) == expected
    assert all(line.startswith("chosen train.") for line in lines)
    assert with_length(config, images, 1) == (config, [])


def test_a_run_keeps_what_it_chose_goes_on_with_it_and_is_the_same_when_it_is_stated(recipe, monkeypatch) -> None:
    first = train(
        recipe(*OPEN, "train.steps=1", "log.samples=0", "eval.boundary=false", "eval.sizes=false"), quiet=True
    )
    kept = Config.load(first.dir / "config.yaml")
    assert (kept.transforms.crop, kept.train.val_epochs, kept.train.schedule.warmup) == ((32, 48), 1, 0)
    log = (first.dir / "log.txt").read_text(encoding="utf-8")
    assert log.count("chosen transforms.crop=[32,48]: the images whole") == 1
    monkeypatch.setattr(chosen, "chosen_transforms", lambda *_: pytest.fail("the data were looked at again"))
    monkeypatch.setattr(chosen, "choose_epochs", lambda *_: pytest.fail("the length was chosen again"))
    again = train(Config.load(first.dir / "config.yaml", f"run.dir={first.dir}-2"), quiet=True)
    weights = [torch.load(run.dir / "checkpoints" / "last.ckpt")["state_dict"] for run in (first, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    left_open = recipe(*OPEN, "train.epochs=auto")
    for place in ({"resume": first.dir}, {"resume": first.dir / "checkpoints/last.ckpt"}, {"given": str(first.dir)}):
        config, lines = with_transforms(left_open, **place)
        config, more = with_length(config, 99, 1, **place)
        assert (config.transforms, lines, more) == (kept.transforms, [], [])
        assert lengths(config.train) == lengths(kept.train)


def sets(root: Path, kind: str) -> Path:
    if kind == "thin":
        return write_thin(root, counts={"train": 4, "val": 1}, size=(64, 96), width=2, curves=3)
    if kind == "tiny":
        return write_folder(root, size=(20, 24), counts={"train": 12, "val": 2})
    if kind == "one class absent":
        (write_folder(root, codes=(0, 2), size=(64, 64), counts={"train": 5, "val": 1}) / "classes.txt").write_text(
            "ground\nnever\nthing\n"
        )
        return root
    return write_folder(root, layout="flat", size=(80, 96), counts={"train": 5}, channels=1)


@pytest.mark.parametrize(
    ("kind", "shape", "told"),
    [
        ("thin", (4, 1, 64, 96), "chosen transforms.scale=null: line is"),
        ("tiny", (4, 3, 20, 24), "chosen transforms.crop=[20,24]: the images whole"),
        ("one class absent", (4, 3, 64, 64), "chosen train.epochs=500: a pass takes 1 step, and fewer than 500"),
        ("five, grey", (4, 1, 64, 64), "chosen transforms.crop=[64,64]: of 80x96, the images; no side above 64"),
    ],
)
def test_a_folder_of_any_kind_takes_a_step_and_says_what_was_chosen(tmp_path, monkeypatch, kind, shape, told) -> None:
    monkeypatch.setattr(choices, "LARGEST_SIDE", 64 if kind == "five, grey" else choices.LARGEST_SIDE)
    root = sets(tmp_path / "set", kind)
    words = (f"data.root={root}", NARROW, "train.threads=1", "train.device=cpu", "data.store=off")
    shown = dry_run(Config.load("unet_folder", *words))
    assert shown.batch_shape == shape
    assert any(told in line for line in shown.lines())
    assert sum("random, for ImageNet's cannot be had" in line for line in shown.network.lines()) == 1
