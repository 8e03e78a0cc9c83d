"""Pseudo masks of activation maps: sure classes, sure background, and 255 where neither is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fakes.images import save_codes
from fakes.weak import NAMES, write_weak
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.errors import DataError, UsageError
from segatlas.inference import load
from segatlas.inference.images import ImageBatch
from segatlas.models.irnet import ARCHITECTURE
from segatlas.pseudo import PseudoRule, activation_maps, label_of_maps, learned_edges, write_pseudo_masks

QUICK = PseudoRule(scales=(1.0,), flip=False)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image (3, 32, 48), light left of column 24, and a map (1, 8, 12) that is high in the middle of that."""
    image = torch.full((3, 32, 48), 0.1)
    image[..., :24] = 0.9
    maps = torch.zeros(1, 8, 12)
    maps[0, 2:6, 1:5], maps[0, 0, :] = 1.0, 0.1
    return image, maps


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network with random weights and the classes of the fake."""
    torch.manual_seed(0)
    net = create_model("unet", width=4, num_classes=3)
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(net, folder, classes=NAMES)
    return folder


@pytest.mark.parametrize("spread", ["none", "local", "walk"])
def test_what_is_sure_has_its_class_and_what_is_not_is_ignored(spread):
    image, maps = scene()
    foreground = 0.15 if spread == "local" else 0.5  # what spreads over all of the light half is lower there
    label = label_of_maps(maps, image, [2], PseudoRule(spread=spread, foreground=foreground), 0)
    assert label.shape == (32, 48)
    assert set(np.unique(label)) <= {0, 2, 255}
    assert (label[10:20, 6:16] == 2).all()
    assert (label[10:20, 30:46] == 0).all()
    if spread == "none":
        assert (label[0, 30:46] == 255).all()  # 0.1 lies between the two thresholds
    if spread == "local":
        assert (label[:, 24:] == 2).mean() < 0.05


def test_without_a_background_what_is_not_sure_is_ignored():
    image, maps = scene()
    label = label_of_maps(maps, image, [1], PseudoRule(spread="none"), None)
    assert set(np.unique(label)) == {1, 255}


def test_activation_maps_sum_sizes_and_mirror_images(model):
    predictor = load(str(model))
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    rule = PseudoRule(scales=(1.0, 0.5))
    maps = activation_maps(predictor, image, [1, 2], rule)
    assert maps.shape == (2, 8, 12)
    assert maps.amax(dim=(1, 2)).max() <= 1
    mirrored = activation_maps(predictor, np.ascontiguousarray(image[:, ::-1]), [1, 2], rule)
    torch.testing.assert_close(mirrored.flip(-1), maps, atol=1e-3, rtol=0)


def test_a_folder_of_pseudo_masks_trains_as_any_other(tmp_path, model):
    root = write_weak(tmp_path / "weak", "labels", train=3)
    (root / "train/labels.csv").write_text("image,classes\n000,car\n001,\n002,tree\n")
    cfg = DataConfig(name="weak", root=str(root))
    counts = write_pseudo_masks(load(str(model)), cfg, tmp_path / "out", QUICK)
    assert (counts["train"], counts["val"]) == (3, 2)
    data = create_dataset(DataConfig(name="folder", root=str(tmp_path / "out")), "train")
    found = [set(np.unique(data.load(index).label).tolist()) for index in range(3)]
    assert found[0] <= {0, 1, 255}
    assert found[1] == {0}
    assert found[2] <= {0, 2, 255}
    assert not [one for one in examine(tmp_path / "out").errors if one.kind != "single_class"]
    whole = create_dataset(DataConfig(name="folder", root=str(tmp_path / "out")), "val").load(0).label
    np.testing.assert_array_equal(whole, create_dataset(cfg, "val").load(0).label)


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, model):
    root = write_weak(tmp_path / "weak", "labels", train=2)
    cfg = DataConfig(name="weak", root=str(root))
    with pytest.raises(UsageError, match="0 < background <= foreground < 1"):
        PseudoRule(foreground=0.1, background=0.2)
    with pytest.raises(UsageError, match="expected local, walk, none"):
        PseudoRule(spread="far")
    (root / "classes.json").write_text('["ground", "car", "bush"]')
    (root / "train/labels.csv").write_text("image,classes\n000,car\n001,car\n")
    with pytest.raises(UsageError, match="the model has the classes ground, car, tree, the data ground, car, bush"):
        write_pseudo_masks(load(str(model)), cfg, tmp_path / "out", QUICK)
    wrong = CliRunner().invoke(app, ["pseudo", str(model), str(root), "--scales", "a"])
    assert (wrong.exit_code, "expected numbers with commas" in wrong.output) == (2, True)
    assert not (tmp_path / "out").exists()
    silent = write_weak(tmp_path / "silent", "scribbles", train=1)
    save_codes(silent / "train/scribbles/000.png", np.full((32, 48), 255))
    with pytest.raises(DataError, match="says nothing of the classes"):
        write_pseudo_masks(load(str(model)), DataConfig(name="weak", root=str(silent)), tmp_path / "out", QUICK)


def test_a_walk_stops_at_the_borders_that_a_network_has_learned(tmp_path):
    torch.manual_seed(0)
    net = create_model("irnet", num_classes=3, **ARCHITECTURE.tiny)
    save_pretrained(net, tmp_path / "model", classes=NAMES)
    predictor = load(str(tmp_path / "model"))
    image = np.random.default_rng(0).integers(0, 256, (30, 46, 3)).astype(np.uint8)
    rule = PseudoRule(spread="walk", scales=(1.0,))
    edges = learned_edges(predictor, image, rule)
    assert edges.shape == (8, 12)
    with torch.no_grad():
        _, seen = net.eval().forward_with_relations(ImageBatch([predictor.prepare(image)], predictor.device).whole())
    once = learned_edges(predictor, image, PseudoRule(spread="walk", flip=False))
    torch.testing.assert_close(once[:7, :11], seen[0, 0, :7, :11].sigmoid(), atol=1e-5, rtol=0)
    turned = learned_edges(predictor, np.ascontiguousarray(image[:, ::-1]), rule)
    torch.testing.assert_close(turned.flip(-1), edges, atol=1e-5, rtol=0)
    flat, maps = scene()
    border = torch.zeros(8, 12)
    border[:, 2] = 1
    label = label_of_maps(maps, flat, [2], rule, 0, border)
    assert (label[:, 12:20] == 2).any()
    assert (label[:, 24:] == 2).any()  # the colour's edge plays no part, only the border does


def test_the_command_walks_where_the_model_has_learned_borders(tmp_path):
    torch.manual_seed(0)
    save_pretrained(create_model("irnet", num_classes=3, **ARCHITECTURE.tiny), tmp_path / "model", classes=NAMES)
    root = write_weak(tmp_path / "weak", "labels", train=1)
    words = ["pseudo", str(tmp_path / "model"), str(root), "--out", str(tmp_path / "out"), "--scales", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out/pseudo.json").read_text())
    assert (record["spread"], record["edges"]) == ("walk", "learned")


def test_the_command_writes_the_folder(tmp_path, model):
    root = write_weak(tmp_path / "weak", "labels", train=2)
    words = ["pseudo", str(model), str(root), "--out", str(tmp_path / "out"), "--scales", "1", "--no-flip", "--json"]
    done = CliRunner().invoke(app, [*words, "--spread", "walk"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout.splitlines()[-1])
    assert (record["train"], record["spread"]) == (2, "walk")
    record = json.loads((tmp_path / "out/pseudo.json").read_text())
    assert (record["spread"], record["edges"]) == ("walk", "colour")
