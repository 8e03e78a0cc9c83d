from __future__ import annotations

import pytest
import torch
from fakes.foreign import foreign_state, small_network
from typer.testing import CliRunner

from segatlas.checkpoint.prefixes import without_wrappers
from segatlas.checkpoint.reading import read_state_dict
from segatlas.cli.main import app
from segatlas.conversion.converting import convert_file
from segatlas.errors import WeightsError
from segatlas.hub.loading import load_pretrained


@pytest.fixture(scope="module")
def state():
    return foreign_state("smp", small_network("smp"))


def below(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def converted(tmp_path, content):
    torch.save(content, tmp_path / "w.ckpt")
    done = convert_file(tmp_path / "w.ckpt", tmp_path / "out")
    net, card = load_pretrained(done.folder)
    return done, foreign_state("smp", net), card


@pytest.mark.parametrize("prefix", ["module._orig_mod.model.", "wrapper.inner."])
def test_what_training_programs_put_before_all_names_is_removed(tmp_path, state, prefix):
    _, found, _ = converted(tmp_path, {"state_dict": below(prefix, state)})
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "net.", "_forward_module.", "model._orig_mod.", "_forward_module.model.net."]
)
def test_usual_wrappers_are_no_part_of_a_name(prefix):
    assert list(without_wrappers({f"{prefix}a.b": torch.ones(1), f"{prefix}c": torch.ones(1)})) == ["a.b", "c"]


def test_compiled_parts_inside_names_are_removed_unless_two_names_become_one():
    one, two = torch.ones(1), torch.zeros(1)
    assert list(without_wrappers({"encoder._orig_mod.a": one, "b": two})) == ["encoder.a", "b"]
    assert list(without_wrappers({"_orig_mod.a": one, "a": two})) == ["_orig_mod.a", "a"]


def test_a_lightning_checkpoint_of_smp_converts_and_tells_what_it_leaves_out(tmp_path, state):
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.25)
    lightning = {**below("model.", state), "mean": mean, "std": std, "loss_fn.pos_weight": torch.ones(2)}
    done, found, card = converted(tmp_path, {"state_dict": lightning, "epoch": 3})
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert (done.prefix, done.left_out) == ("model.", ("mean", "std", "loss_fn.pos_weight"))
    assert card.preprocessing.mean == pytest.approx((0.4, 0.5, 0.6))
    assert card.preprocessing.std == (0.25, 0.25, 0.25)
    printed = CliRunner().invoke(app, ["models", "convert", str(tmp_path / "w.ckpt"), "--out", str(tmp_path / "again")])
    assert printed.exit_code == 0
    assert "left out   mean, std, loss_fn.pos_weight" in printed.stdout
    assert "prefix     model." in printed.stdout


def test_statistics_of_pixels_beside_a_network_are_taken_to_the_range_of_a_card(tmp_path, state):
    mean, std = torch.tensor([51.0, 102.0, 204.0]), torch.tensor([51.0, 25.5, 127.5])
    done, _, card = converted(tmp_path, {**below("model.", state), "pixel_mean": mean, "pixel_std": std})
    assert card.preprocessing.mean == pytest.approx((0.2, 0.4, 0.8))
    assert card.preprocessing.std == pytest.approx((0.2, 0.1, 0.5))
    assert any("beside the network in the file, of values 0..255" in note for note in done.notes)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.1, 0.2], [1.0, 1.0]), ([float("nan")] * 3, [1.0] * 3), ([0.5] * 3, [0.0] * 3)]
)
def test_statistics_beside_a_network_that_cannot_be_used_are_told(tmp_path, state, mean, std):
    content = {**below("model.", state), "mean": torch.tensor(mean), "std": torch.tensor(std)}
    done, _, card = converted(tmp_path, content)
    assert card.preprocessing.mean == (0.485, 0.456, 0.406)
    assert any("beside the network in the file are not used" in note for note in done.notes)


def test_tensors_beside_the_network_that_nobody_knows_are_an_error(tmp_path, state):
    with pytest.raises(WeightsError, match=r"below 'model\.'.*beside them are 1 .*: projector\.weight"):
        converted(tmp_path, {**below("model.", state), "projector.weight": torch.ones(3)})


def metrics():
    """Metrics that trainings of segmentation networks keep, of each way to name their states."""
    import torchmetrics.segmentation

    return {
        "jaccard": torchmetrics.JaccardIndex(task="multiclass", num_classes=2),
        "accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=2),
        "exact": torchmetrics.ExactMatch(task="multiclass", num_classes=2),
        "miou": torchmetrics.segmentation.MeanIoU(num_classes=2),
        "dice": torchmetrics.segmentation.GeneralizedDiceScore(num_classes=2),
        "mean": torchmetrics.MeanMetric(),
        "largest": torchmetrics.MaxMetric(),
        "error": torchmetrics.MeanSquaredError(),
    }


@pytest.mark.parametrize("prefix", ["net.", "model.", ""])
def test_states_of_metrics_under_any_name_are_left_out_and_told(tmp_path, state, prefix):
    kept = {}
    for name, metric in metrics().items():
        metric.persistent(True)
        kept |= below(f"val_{name}.", metric.state_dict())
    content = {**below(prefix, state), **kept, "val_apart.metric.confmat": torch.ones(2, 2)}
    done, found, _ = converted(tmp_path, {"state_dict": content})
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert (done.prefix, set(done.left_out)) == (prefix, {*kept, "val_apart.metric.confmat"})


def test_names_of_states_beside_other_tensors_may_be_a_part_of_the_network(tmp_path, state):
    with pytest.raises(WeightsError, match=r"beside them are 2 .*: head\.total, head\.weight"):
        converted(tmp_path, {**below("net.", state), "head.total": torch.ones(1), "head.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"beside them are 2 .*: head\.bias, head\.confmat"):
        converted(tmp_path, {**below("net.", state), "head.bias": torch.ones(1), "head.confmat": torch.ones(1)})


def test_averaged_weights_are_taken_before_those_they_are_made_of(tmp_path, state):
    averaged = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    content = {**below("model.", state), **below("ema_model.module.", averaged), "n_averaged": torch.tensor(3)}
    done, found, _ = converted(tmp_path, content)
    assert done.prefix == "ema_model.module."
    assert all(torch.equal(found[name], tensor) for name, tensor in averaged.items())


def test_two_networks_in_one_file_are_told_by_their_prefixes(tmp_path, state):
    with pytest.raises(WeightsError, match=r"several networks, below the names 'student\.', 'teacher\.'"):
        converted(tmp_path, {**below("student.", state), **below("teacher.", state)})


def test_a_second_state_dict_in_a_file_is_named(tmp_path, state):
    torch.save({"state_dict": state, "ema_state_dict": below("module.", state)}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").others == ("ema_state_dict",)


def test_weights_with_nan_are_not_converted(tmp_path, state):
    name = "encoder.patch_embed1.proj.weight"
    with pytest.raises(WeightsError, match=r"w\.ckpt: NaN or infinite values in 1 tensors: encoder\.patch_embed1"):
        converted(tmp_path, {**state, name: state[name] * float("nan")})
