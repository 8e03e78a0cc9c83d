"""`segatlas prune`, and every other command on what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from fakes.prunable import CLASSES, network
from PIL import Image
from typer.testing import CliRunner

import resume_campaign
from segatlas.bench import measuring
from segatlas.build.saving import save_pretrained
from segatlas.build.surgery import layer_sizes
from segatlas.cli.main import app
from segatlas.hub.loading import load_pretrained
from segatlas.training.module import SegmentationModule

QUICK = ("--size", "32x48", "--round-to", "1")
RECIPE = """
data: {{name: folder, root: {data}, workers: 0, store: "off"}}
model: {{name: unet, encoder: {{name: resnet18, width: 16, levels: 2}}, decoder_channels: [16, 8], aux: true}}
transforms: {{crop: [16, 16]}}
losses: [{{name: cross_entropy}}, {{name: cross_entropy, on: aux.fcn, weight: 0.4}}]
train: {{epochs: 2, batch: 2, lr: 1e-3, device: cpu, threads: 1, checkpoint_every: 1}}
eval: {{boundary: false, sizes: false}}
log: {{every: 1, tensorboard: false, samples: 0}}
"""


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def last(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model, the same pruned to half, and data of its classes."""
    home = tmp_path_factory.mktemp("prune")
    save_pretrained(network(), home / "dense", classes=CLASSES, metric={"miou": 0.5})
    root = home / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for seed in range(4 if split == "train" else 1):
            generator = np.random.default_rng([seed, len(split)])
            image = Image.fromarray(generator.integers(0, 256, (16, 24, 3)).astype(np.uint8))
            image.save(root / split / "images" / f"{split}{seed}.png")
            label = np.kron(generator.permutation([0, 0, 1, 1, 2, 2]).reshape(2, 3), np.ones((8, 8))).astype(np.uint8)
            Image.fromarray(label).save(root / split / "masks" / f"{split}{seed}.png")
    (root / "classes.json").write_text(
        json.dumps([{"name": name, "color": [9, 9, i]} for i, name in enumerate(CLASSES)])
    )
    (home / "recipe.yaml").write_text(RECIPE.format(data=root))
    (home / "run").mkdir()
    (home / "run" / "config.yaml").write_text("seed: 0")
    (home / "facts.json").write_text(
        json.dumps(last(segatlas("prune", home / "dense", "--macs", "0.5", *QUICK, "--out", home / "half", "--json")))
    )
    return home


def test_it_tells_what_was_and_what_is_and_writes_a_model_without_the_old_score(home):
    facts = json.loads((home / "facts.json").read_text())
    assert facts["macs"]["after"] / facts["macs"]["before"] == pytest.approx(0.5, abs=0.02)
    assert facts["model"] == str(home / "half")
    assert facts["difference"] < 1e-9
    card = json.loads((home / "half" / "card.json").read_text())
    assert len(card["surgery"]) == facts["layers"]
    assert card["metric"] == {}
    assert card["source"].startswith("pruned")
    info = segatlas("models", "info", home / "half")
    assert f"pruned         {facts['layers']} layers are narrower" in info.output


def test_a_training_begins_with_it_keeps_its_shapes_and_is_the_same_when_killed_and_resumed(home, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    words = ["train", home / "recipe.yaml", f"model.start_from={home / 'half'}", "-q"]
    result = segatlas(*words, f"run.dir={home / 'whole'}")
    assert result.exit_code == 0, result.output
    original = SegmentationModule.training_step

    def killed(self, batch, batch_index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", killed)
        assert segatlas(*words, f"run.dir={home / 'cut'}").exit_code != 0
    (home / "half").rename(home / "moved")  # the run's own checkpoint knows how narrow the network is
    resumed = segatlas("train", "--resume", home / "cut", "-q")
    (home / "moved").rename(home / "half")
    assert resumed.exit_code == 0, resumed.output
    assert resume_campaign.differences(home / "whole", home / "cut") == []
    sizes = layer_sizes(load_pretrained(home / "half")[0])
    trained, card = load_pretrained(home / "whole")
    assert layer_sizes(trained) == sizes == layer_sizes(load_pretrained(home / "cut" / "checkpoints" / "last.ckpt")[0])
    assert "miou" in card.metric
    assert not torch.equal(trained.classifier.weight, load_pretrained(home / "half")[0].classifier.weight)


def test_other_commands_take_it_like_any_model(home, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "measure_memory", lambda *words: 2.5)
    image = home / "data" / "val" / "images" / "val0.png"
    result = segatlas("predict", home / "half", image, "--out", tmp_path / "p", "--device", "cpu", "-q")
    assert result.exit_code == 0, result.output
    assert "miou" in str(last(segatlas("eval", home / "half", "--data", home / "data", "--device", "cpu", "--json")))
    result = segatlas("explain", "heatmap", home / "half", image, "--out", tmp_path / "h.png", "--class", "disc")
    assert result.exit_code == 0, result.output
    facts = last(
        segatlas("bench", home / "dense", home / "half", "--size", "32x48", "--repeats", 1, "--threads", 1, "--json")
    )
    told = json.loads((home / "facts.json").read_text())["macs"]
    assert [model["macs"] for model in facts["models"]] == [told["before"], told["after"]]


def test_the_loss_on_images_may_tell_what_matters(home):
    words = ("--macs", "0.5", *QUICK, "--importance", "taylor", "--batches", "1", "--json")
    result = segatlas("prune", home / "dense", *words, "--out", home / "taylor")
    assert "lies in no run folder, so say which images: --data RECIPE" in result.output
    recipe = home / "taylor.yaml"  # a loss that reads the image, and a start that has gone by now
    text = RECIPE.format(data=home / "data").replace("losses: [", "losses: [{name: gated_crf}, ")
    recipe.write_text(text.replace("aux: true}", "aux: true, start_from: gone}"))
    facts = last(segatlas("prune", home / "dense", *words, "--out", home / "taylor", "--data", recipe))
    assert facts["macs"]["after"] / facts["macs"]["before"] == pytest.approx(0.5, abs=0.02)
    other, half = (load_pretrained(home / name)[0] for name in ("taylor", "half"))
    pairs = zip(other.parameters(), half.parameters(), strict=True)
    assert any(one.shape != two.shape or not torch.equal(one, two) for one, two in pairs)


def test_the_control_is_told_in_words_of_a_recipe(home):
    facts = last(segatlas("prune", home / "dense", "--macs", "0.5", "--size", "32x48", "--control", "--json"))
    assert facts["words"][0] in [f"model.encoder={{name: resnet18, levels: 2, width: {width}}}" for width in (10, 11)]
    assert facts["words"][1].startswith("model.decoder_channels=[")
    assert len(facts["words"]) == 2, "aux_channels, which is not set, stays so"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--macs", "1.5", "--out", "x"), 2, "macs: got 1.5, expected a fraction between 0 and 1"),
        (("--macs", "0.01", "--out", "x"), 2, "macs: 0.01 cannot be reached"),
        (("--ratio", "0.95", "--out", "x"), 2, "ratio: 0.95 would leave no channel of"),
        (("--macs", "0.5"), 2, "--out: say which folder"),
        (
            ("--macs", "0.5", "--out", "x", "--data", "unet_camvid"),
            2,
            "--data: only --importance taylor looks at images",
        ),
        (("--macs", "0.5", "--out", "x", "--importance", "size"), 2, "importance: got 'size'"),
        (("--ratio", "0.5", "--control"), 2, "control: say --macs"),
        (
            ("--macs", "0.001", "--control", "--tolerance", "1e-4"),
            2,
            "control: macs: 0.001 cannot be met within 0.0001",
        ),
        (("--macs", "0.5", "--control", "--out", "x"), 2, "--out: --control writes nothing"),
        (("--macs", "0.5", "--out", "HOME/dense"), 2, "holds the model that is pruned, which stays as it is"),
        (("--macs", "0.5", "--out", "HOME"), 2, "holds the model that is pruned"),
        (("--macs", "0.5", "--out", "HOME/run/model"), 2, "belongs to a run, whose model stays as it is"),
        (("--ratio", "0.01", "--out", "x"), 2, "ratio: 0.01 takes no channel of any layer, for each keeps a multiple"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(home, tmp_path, monkeypatch, words, code, told):
    monkeypatch.chdir(tmp_path)
    result = segatlas("prune", home / "dense", *(word.replace("HOME", str(home)) for word in words))
    assert result.exit_code == code, result.output
    assert told in result.output
    assert not (tmp_path / "x").exists()


def test_without_torch_pruning_the_extra_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    result = segatlas("prune", home / "dense", "--macs", "0.5", "--out", tmp_path / "x")
    assert result.exit_code == 3
    assert 'pip install "segatlas[prune]"' in result.output
