"""segatlas.inference.batch_statistics: `segatlas eval --batch-stats`."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.folder import write_folder
from torch import Tensor, nn
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.cli.main import app
from segatlas.errors import UsageError
from segatlas.evaluation import evaluate
from segatlas.inference import Predictor, load
from segatlas.inference.batch_statistics import BatchStatisticsForm, OfTheBatch
from segatlas.inference.sliding import make_windows, slide
from segatlas.models.fc_densenet import ARCHITECTURE
from segatlas.ops import upsample_logits
from segatlas.structures import SemanticLogits

CLASSES = ("ground", "disc", "other")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    net = create_model("fc_densenet", num_classes=3, **ARCHITECTURE.tiny).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # averages of other images, far from those to come
            nn.init.normal_(module.running_mean, std=2)
            nn.init.uniform_(module.running_var, 2, 9)
            nn.init.uniform_(module.weight, 0.5, 2)
    nn.init.normal_(net.classifier.weight)
    return net


def predictor(net: nn.Module, **options: object) -> Predictor:
    card = make_card(net, classes=CLASSES, preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3))
    return Predictor(net, card, device="cpu", batch_stats=True, **options)


def by_hand(net: nn.Module, x: Tensor) -> Tensor:
    """Return logits of the slow form: a network that trains, but drops nothing and is thrown away."""
    trained = copy.deepcopy(net).train()
    for module in trained.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        out: SemanticLogits = trained(x)
    return upsample_logits(out.logits, x.shape[-2:], canvas=out.canvas)


def images(count: int = 1, size: tuple[int, int] = (33, 47)) -> list[np.ndarray]:
    draw = np.random.default_rng(count)
    return [(draw.random((*size, 3)) * (80 + 40 * index)).astype(np.uint8) for index in range(count)]


def normalised(given: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(given)).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)


def test_logits_are_those_of_the_statistics_of_the_images_of_a_pass(net):
    both = images(2)
    for given in (both, both[:1], both[1:]):
        x = normalised(given)
        found, expected = predictor(net).output(x).logits, by_hand(net, x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = Predictor(net, predictor(net).card, device="cpu").output(normalised(both[:1])).logits
    assert (plain - by_hand(net, normalised(both[:1]))).abs().max() > 0.1
    torch.testing.assert_close(predictor(net).scores(x), expected, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_network_changes(net):
    before = {name: (value.clone(), value._version) for name, value in net.state_dict(keep_vars=True).items()}
    ours = predictor(net)
    ours.predict(images(3))
    assert not any(module.training for module in net.modules())
    for name, value in net.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name][0])
        assert value._version == before[name][1]


def test_new_weights_are_seen(net):
    changed = copy.deepcopy(net)
    ours, x = predictor(changed), normalised(images())
    first = ours.output(x).logits
    with torch.no_grad():
        changed.classifier.weight.mul_(-1)
    changed.classifier.bias = nn.Parameter(torch.ones(3))
    second = ours.output(x).logits
    torch.testing.assert_close(second, by_hand(changed, x), rtol=1e-4, atol=1e-4)
    assert not torch.equal(first, second)


def test_each_window_has_its_own_statistics_however_many_fit_into_a_pass(net):
    (image,) = images()
    ours = predictor(net, window=(16, 24))
    scores = slide(normalised([image]), make_windows((16, 24), 1 / 3), lambda part: by_hand(net, part))
    assert np.array_equal(ours.predict(image).semantic, scores.argmax(1)[0].numpy())
    with pytest.raises(UsageError, match="window_batch: got 4; with batch_stats each window has a pass of its own"):
        predictor(net, window_batch=4)


def test_each_view_has_its_own_statistics(net):
    (image,) = images()
    x = normalised([image])
    views = [by_hand(net, x), by_hand(net, x.flip(-1)).flip(-1)]
    mean = torch.stack([view.softmax(1) for view in views]).mean(0)
    assert np.array_equal(predictor(net, tta="flips").predict(image).semantic, mean.argmax(1)[0].numpy())


def test_a_single_value_a_channel_has_no_variance_and_takes_the_averages():
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    form, one, two = OfTheBatch(norm), torch.randn(1, 2, 1, 1), torch.randn(2, 2, 1, 1)
    assert torch.equal(form(one), norm(one))
    assert form(two).mean(0).abs().max() < 1e-6
    small = predictor(create_model("pspnet", num_classes=3, encoder="resnet18_w8", channels=8))
    assert small.predict(images(1, (8, 8))[0]).semantic.shape == (8, 8)  # pooled to one cell


def test_a_network_without_batch_norm_is_refused():
    with pytest.raises(UsageError, match="no batch norm"):
        BatchStatisticsForm(nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)), (), "fp32")
    assert isinstance(BatchStatisticsForm(nn.BatchNorm2d(3), (), "fp32").get(), OfTheBatch)


def test_the_record_of_an_evaluation_says_which(net, tmp_path: Path):
    root = write_folder(tmp_path / "data")
    save_pretrained(net, tmp_path / "model", classes=CLASSES, preprocessing=predictor(net).card.preprocessing)
    words = ["eval", str(tmp_path / "model"), "--data", str(root), "--out", str(tmp_path / "out"), "--batch-stats"]
    result = CliRunner().invoke(app, [*words, "--batch", "2"])
    assert result.exit_code == 0, result.output
    assert "statistics of the images of a pass" in " ".join(result.output.split())
    settings = json.loads((tmp_path / "out/eval.json").read_text())["settings"]
    assert (settings["batch_stats"], settings["batch"]) == (True, 2)
    ours = load(tmp_path / "model", device="cpu")
    plain, other = (evaluate(ours, root, batch_stats=on, batch=2, progress=False) for on in (False, True))
    assert (plain.settings.batch_stats, other.settings.batch_stats) == (False, True)
    assert json.loads((tmp_path / "out/eval.json").read_text())["miou"] == pytest.approx(other.miou)
    assert plain.miou != other.miou
