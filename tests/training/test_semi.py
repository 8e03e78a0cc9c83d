"""Images without labels beside labelled ones: what the losses are, what a step sees, and that a resume is exact."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.folder import write_folder
from fakes.images import blocks, image_of, save_image
from torch import nn
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig, SemiConfig
from segatlas.data.collate import collate
from segatlas.data.further_images import FurtherImages
from segatlas.data.sample import Sample
from segatlas.data.transforms import Pipeline
from segatlas.data.transforms.geometry import Crop, Flip, Geometry, ScaleJitter
from segatlas.encoders.contract import Tokens
from segatlas.errors import ConfigError, DataError, UsageError
from segatlas.recipe import Config
from segatlas.structures import SemanticLogits
from segatlas.training.plan import Plan
from segatlas.training.semi import (
    SemiAddresses,
    cut_mix_boxes,
    cut_mixed,
    evaluating,
    mean_teacher_loss,
    move_teacher,
    perturbed_features,
    ramped,
    sure_labels,
    views_of,
    weak_to_strong_loss,
)

SETTINGS = (
    "data.workers=0",
    "data.store=off",
    "model={name: unet, width: 4, dropout: 0.2}",
    "transforms={crop: [32, 32]}",
    "train={steps: 4, batch: 2, lr: 1e-2, device: cpu, threads: 1, val_every: 2}",
    "eval={boundary: false, sizes: false}",
    "log={every: 1, tensorboard: false, samples: 1}",
)


class Channels(nn.Module):
    """A network whose logits are its image's channels times a learned factor, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.AvgPool2d(2))
        self.factor = nn.Parameter(torch.tensor(1.0))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs):
        image = getattr(inputs, "image", inputs)
        return SemanticLogits(self.encoder(image) * self.factor, canvas=(image.shape[2], image.shape[3]))


def batch_of(images: torch.Tensor):
    """Return a batch of images (N, 3, H, W) with labels of 255."""
    geometry = Geometry(before=(), crop=None, after=())
    pipeline = Pipeline(geometry=geometry, mean=(0.0,) * 3, std=(1.0,) * 3, max_value=1.0)
    samples = [
        pipeline(
            Sample(image=one.permute(1, 2, 0).numpy().copy(), target=None, key=str(index)), np.random.default_rng(0)
        )
        for index, one in enumerate(images)
    ]
    return collate(samples)


def noise(count: int = 2, size: tuple[int, int] = (8, 12), seed: int = 0) -> torch.Tensor:
    return 0.1 + torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def others(root: Path, count: int = 5) -> Path:
    for index in range(count):
        save_image(root / f"{index}.png", image_of(blocks(500 + index, (0, 1, 2), (32, 48)), 500 + index))
    return root


def test_views_show_the_same_pixels_in_other_colours_and_follow_from_the_seed():
    image = image_of(blocks(0, (0, 1, 2), (40, 48)), 0)
    geometry = Geometry(
        before=(ScaleJitter(low=0.8, high=1.4),), crop=Crop(size=(32, 32)), after=(Flip(probability=0.5),)
    )
    pipeline = Pipeline(geometry=geometry, mean=(0.5,) * 3, std=(0.2,) * 3)
    sample = Sample(image=image, target=None, key="a")
    views = views_of(sample, pipeline, (1, 2, 3))
    again, other = views_of(sample, pipeline, (1, 2, 3)), views_of(sample, pipeline, (1, 2, 4))
    np.testing.assert_array_equal(views.weak.image, again.weak.image)
    np.testing.assert_array_equal(views.strong[1].image, again.strong[1].image)
    assert not np.array_equal(views.weak.image, other.weak.image)
    assert not np.array_equal(views.strong[0].image, views.strong[1].image)
    grey = [one.image.mean(axis=2).ravel() for one in (views.weak, *views.strong)]
    assert np.corrcoef(grey)[0, 1:].min() > 0.5


def test_each_step_takes_the_next_images_of_an_order_that_follows_from_the_epoch():
    plan = Plan(images=6, world=1, batch=2, accumulate=1, samples=12)
    addresses = SemiAddresses(plan, seed=0, others=5, batch=2)
    seen = [addresses.addresses(number) for number in range(5)]
    assert all(len(one[0]) == 2 and len(one[2]) == 3 for one in seen)
    views = [address[:2] for one in seen for address in one[2:]]
    assert sorted(views[:5]) == [(0, index) for index in range(5)]
    assert sorted(views[5:]) == [(1, index) for index in range(5)]
    shared = [SemiAddresses(replace(plan, world=2, batch=1), seed=0, others=5, batch=1, rank=r) for r in (0, 1)]
    assert sorted(a for one in shared for a in one.addresses(1)[1:]) == sorted(seen[1][2:])


def test_cut_mix_takes_a_box_of_the_next_image_and_255_moves_with_it():
    torch.manual_seed(0)
    image = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 20, 30)
    inside = cut_mix_boxes(image, 1.0)
    fractions = inside.flatten(1).float().mean(dim=1)
    assert ((fractions > 0.005) & (fractions < 0.45)).all()
    labels = torch.tensor([0, 255, 1], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 20, 30)
    mixed = cut_mixed(labels, inside)
    assert (mixed[0][inside[0]] == 1).all()
    assert (mixed[2][inside[2]] == 255).all()
    assert (mixed[1][~inside[1]] == 255).all()
    assert torch.equal(cut_mixed(image, inside)[0, 0][inside[0]], torch.full((int(inside[0].sum()),), 2.0))
    assert not cut_mix_boxes(image, 0.0).any()
    assert not cut_mix_boxes(image[:1], 1.0).any()


def test_labels_are_classes_that_are_sure_and_padding_has_none():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 1, 0], logits[0, 2, 1] = 10.0, 0.5
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    valid[0, 0, 1] = False
    labels = sure_labels(SemanticLogits(logits, canvas=(2, 2)), valid, 0.9)
    assert labels.tolist() == [[[1, 255], [255, 255]]]


def test_weak_to_strong_is_the_cross_entropy_of_what_is_sure():
    torch.manual_seed(0)
    weak, first, second = (batch_of(8 * noise(seed=seed)) for seed in (0, 1, 2))
    net, semi = Channels(), SemiConfig(threshold=0.5, cutmix=0.0, feature_dropout=0.0)
    loss, sure = weak_to_strong_loss(net, weak, (first, second), semi)

    def whole(batch):
        low = nn.functional.avg_pool2d(batch.inputs.image, 2)
        return nn.functional.interpolate(low, size=(8, 12), mode="bilinear")

    confidence, labels = whole(weak).softmax(1).max(1)
    labels = labels.masked_fill(confidence < 0.5, -100)
    known = (labels >= 0).float().mean()

    def of(batch):
        return nn.functional.cross_entropy(whole(batch), labels) * known

    torch.testing.assert_close(loss, (of(first) + of(second)) / 4 + of(weak) / 2)
    torch.testing.assert_close(sure, known)
    assert 0 < sure < 1
    assert net.factor.grad is None
    loss.backward()
    assert net.factor.grad is not None
    nothing, sure = weak_to_strong_loss(net, weak, (first, second), SemiConfig(threshold=0.999, feature_dropout=0))
    assert (nothing, sure) == (0, 0)


def test_a_teacher_is_asked_about_the_weak_view_of_the_mixed_pixels():
    torch.manual_seed(3)
    weak, strong = batch_of(noise(seed=0)), batch_of(noise(seed=1))
    student, teacher = Channels(), Channels()
    semi = SemiConfig(method="mean_teacher", cutmix=0.0)
    said, found = (nn.functional.avg_pool2d(one.inputs.image, 2).softmax(1) for one in (weak, strong))
    loss = mean_teacher_loss(student, teacher, weak, strong, semi)
    torch.testing.assert_close(loss, (said - found).square().mean())
    assert mean_teacher_loss(student, teacher, weak, weak, semi) == 0
    same = mean_teacher_loss(student, teacher, weak, weak, SemiConfig(method="mean_teacher", cutmix=1.0))
    assert same < 1e-3  # but for pixels of the map on the border of a box


def test_a_teacher_moves_by_the_decay_and_takes_whole_numbers_over():
    teacher, student = Channels(), Channels()
    with torch.no_grad():
        student.factor.fill_(3.0)
    student.norm.num_batches_tracked.fill_(7)
    move_teacher(teacher, student, 0.75)
    assert teacher.factor == 1.5
    assert teacher.norm.num_batches_tracked == 7


def test_features_are_perturbed_only_while_it_lasts_and_modes_come_back():
    net, image = Channels().train(), torch.ones(4, 3, 8, 8)
    torch.manual_seed(0)
    with perturbed_features(net, 0.5):
        dropped = net(image).logits
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(net(image).logits, torch.ones(4, 3, 4, 4))
    net.norm.eval()
    with evaluating(net):
        assert not net.training
    assert (net.training, net.norm.training) == (True, False)
    net.encoder = nn.Identity()
    with pytest.raises(UsageError, match="needs an encoder of maps"), perturbed_features(net, 0.5):
        net.encoder(("tokens", 3))
    with perturbed_features(net, 0.5):
        tokens = net.encoder(Tokens((torch.ones(2, 6, 16),), (torch.ones(2, 1, 16),), (2, 3)))
    assert set(tokens.patches[0].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(tokens.patches[0], tokens.prefix[0].expand(-1, 6, -1))  # a channel in all tokens at once


def test_a_teacher_may_say_more_finely_what_a_student_should_give():
    class Fine(Channels):
        def forward(self, inputs):
            image = getattr(inputs, "image", inputs)
            return SemanticLogits(image * self.factor, canvas=(image.shape[2], image.shape[3]))

    weak = batch_of(noise(seed=0))
    semi = SemiConfig(method="mean_teacher", cutmix=0.0)
    assert mean_teacher_loss(Channels(), Fine(), weak, weak, semi) < 1e-12


def test_a_weight_grows_over_its_ramp():
    assert ramped(0.0, 0.2) == pytest.approx(np.exp(-5))
    assert ramped(0.1, 0.2) == pytest.approx(np.exp(-5 / 4))
    assert ramped(0.5, 0.2) == ramped(0.0, 0.0) == 1


def test_labelled_images_are_left_out_and_a_folder_of_nothing_else_is_refused(tmp_path):
    root = write_folder(tmp_path / "data")
    cfg = DataConfig(name="folder", root=str(root))

    def found(folder):
        return FurtherImages.of(cfg.model_copy(update={"unlabelled": str(folder)}), 3)

    with pytest.raises(DataError, match="holds labelled images and no other"):
        found(root / "train/images")
    with pytest.raises(DataError, match="is missing"):
        found(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        found(tmp_path / "empty")
    others(root / "train/images/more", 3)
    assert [path.name for path in found(root / "train/images").files] == ["0.png", "1.png", "2.png"]
    (root / "train/images/more/1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png"):
        found(root / "train/images").load(1)
    with pytest.raises(DataError, match=r"1\.png"):
        found(root / "train/images").check_headers()


@pytest.mark.parametrize("place", ["train/images", "copy", "link", "", "train", "train/masks"])
def test_what_lies_in_the_dataset_itself_or_is_a_copy_of_it_is_no_image_without_labels(tmp_path, place):
    root = write_folder(tmp_path / "data")
    shutil.copytree(root / "train/images", tmp_path / "copy")
    (tmp_path / "link").symlink_to(root / "train/images")
    folder = tmp_path / place if place in ("copy", "link") else root / place
    cfg = DataConfig(name="folder", root=str(root), unlabelled=str(folder))
    with pytest.raises(DataError, match="nothing is learned from it"):
        FurtherImages.of(cfg, 3)
    extra = others(folder / "images" if place in ("", "train") else folder, 1) / "0.png"
    if place == "train/masks":
        return
    assert [path.resolve() for path in FurtherImages.of(cfg, 3).files] == [extra.resolve()]


def test_images_of_test_without_a_mask_are_without_labels_and_those_with_one_are_not(tmp_path):
    root = write_folder(tmp_path / "data", counts={"train": 2, "val": 1, "test": 2})
    cfg = DataConfig(name="folder", root=str(root), unlabelled=str(root / "test"))
    with pytest.raises(DataError, match="nothing is learned from it"):
        FurtherImages.of(cfg, 3)
    mask = sorted((root / "test/masks").iterdir())[0]
    mask.unlink()
    assert [path.stem for path in FurtherImages.of(cfg, 3).files] == [mask.stem]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.unlabelled=x"], "nothing says how to learn from it"),
        (["semi={}"], "needs a folder of images without labels"),
        (["semi={}", "data.unlabelled=x", "task=instance", "model.name=condinst"], "is for classes of pixels"),
        (["semi={}", "data.unlabelled=x", "model.name=mask2former"], "is for networks of class maps"),
        (["semi={method: other}", "data.unlabelled=x"], "semi.method"),
    ],
)
def test_keys_that_do_not_go_together_are_told(words, text):
    with pytest.raises(ConfigError, match=text):
        Config.load({}, *words)


def run(home: Path, root: Path, *words: object):
    home.mkdir(exist_ok=True)
    recipe = home / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    given = ("train", "--config", recipe, f"data.root={root}", f"run.dir={home / 'run'}", *SETTINGS, *words)
    return CliRunner().invoke(app, [*map(str, given)])


def test_a_run_is_made_dry_with_images_without_labels(tmp_path):
    root, more = write_folder(tmp_path / "data"), others(tmp_path / "more")
    done = run(tmp_path / "a", root, "semi={}", f"data.unlabelled={more}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "5 images without labels" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weak_to_strong", "mean_teacher"])
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(tmp_path, method):
    root, more = write_folder(tmp_path / "data"), others(tmp_path / "more")
    semi = f"semi={{method: {method}, threshold: 0.35, batch: 3}}"
    words = (semi, f"data.unlabelled={more}", "train.checkpoint_every=1")
    whole = run(tmp_path / "whole", root, *words)
    assert whole.exit_code == 0, whole.output
    assert run(tmp_path / "parts", root, *words, "train.time_limit=1e-7").exit_code == 0
    stopped = torch.load(tmp_path / "parts/run/checkpoints/last.ckpt", weights_only=True)
    assert stopped["global_step"] < 4
    again = CliRunner().invoke(app, ["train", "--resume", str(tmp_path / "parts/run"), "train.time_limit=null"])
    assert again.exit_code == 0, again.output
    states = [
        torch.load(tmp_path / name / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert any(key.startswith("teacher.") for key in states[0]) == (method == "mean_teacher")
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
