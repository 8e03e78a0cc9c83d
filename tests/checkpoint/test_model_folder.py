from __future__ import annotations

import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segatlas import files
from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.checkpoint import model_folder
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.model_folder import plain_tensors
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import find_model, load_pretrained
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture
from segatlas.palette import default_palette
from segatlas.structures import maps_of, noise_inputs

CLASSES = ("sky", "road", "tree")


def tiny(seed: int = 0, **fields) -> nn.Module:
    """A U-Net whose running statistics differ from their start values."""
    torch.manual_seed(seed)
    net = create_model("unet", **{"num_classes": 3, "width": 4, **fields})
    net(torch.randn(2, net.config.in_channels, 16, 16))
    return net.eval()


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def checkpoint(path, net: nn.Module, **further):
    content = {
        "state_dict": {f"net.{name}": tensor for name, tensor in net.state_dict().items()},
        "card": make_card(net, classes=CLASSES).to_dict(),
        "optimizer_states": [{"lr": 0.1}],
        **further,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_comes_back_exactly_as_it_was_saved(tmp_path, name):
    torch.manual_seed(0)
    net = create_model(name, num_classes=3, **load_architecture(name).tiny).eval()
    save_pretrained(net, tmp_path / "m", classes=CLASSES)
    loaded, card = load_pretrained(tmp_path / "m")

    assert_same_state(loaded, net)
    assert loaded.config == net.config
    assert loaded.architecture == name
    assert not loaded.training
    pairs = zip(loaded.parameters(), net.parameters(), strict=True)
    assert all(ours.requires_grad == theirs.requires_grad for ours, theirs in pairs), "as the network itself has it"
    assert card.classes == CLASSES
    x = noise_inputs(card.inputs, (35, 50)).given()
    with torch.no_grad():
        ours, theirs = maps_of(loaded(x)), maps_of(net(x))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(found, theirs[part]) for part, found in ours.items())


def test_a_network_with_computed_buffers_comes_back_exactly(tmp_path):
    torch.manual_seed(0)
    fields = {"encoder": "timm/swin_tiny_patch4_window7_224", "decoder_channels": (4,)}
    net = create_model("unet", num_classes=3, **fields).eval()
    assert len(list(net.named_buffers())) > len([n for n, _ in net.named_buffers() if n in net.state_dict()])
    save_pretrained(net, tmp_path, classes=CLASSES)
    loaded, _ = load_pretrained(tmp_path)
    assert_same_state(loaded, net)
    assert all(torch.equal(a, b) for a, b in zip(loaded.buffers(), net.buffers(), strict=True))


def test_loading_draws_no_random_numbers(tmp_path):
    save_pretrained(tiny(), tmp_path, classes=CLASSES)
    before = torch.get_rng_state()
    load_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_holds_the_facts_that_were_given_and_defaults_for_the_rest(tmp_path):
    save_pretrained(
        tiny(in_channels=1),
        tmp_path,
        classes=CLASSES,
        licence="Apache-2.0",
        inference=InferenceMode(mode="slide", crop=(32, 32), stride=(16, 16)),
    )
    _, card = load_pretrained(tmp_path)
    assert card.licence == "Apache-2.0"
    assert card.inference == InferenceMode(mode="slide", crop=(32, 32), stride=(16, 16))
    assert card.palette == default_palette(3)
    assert card.inputs[0].channels == 1
    assert card.preprocessing == Preprocessing(mean=(0.449,), std=(0.226,))
    assert card.config["width"] == 4


def test_facts_of_a_given_card_are_taken_over(tmp_path):
    net = tiny()
    given = make_card(net, classes=("a", "b", "c"), source="elsewhere", licence="MIT")
    save_pretrained(net, tmp_path, classes=CLASSES, card=given, licence="BSD")
    card = Card.read(tmp_path)
    assert (card.source, card.licence, card.classes) == ("elsewhere", "BSD", CLASSES)


def test_facts_that_contradict_the_network_are_refused_and_nothing_is_written(tmp_path):
    folder = tmp_path / "m"
    with pytest.raises(UsageError, match=r"classes: 2 names, but config\.num_classes is 3"):
        save_pretrained(tiny(), folder, classes=["a", "b"])
    with pytest.raises(UsageError, match="did you mean 'licence'"):
        save_pretrained(tiny(), folder, classes=CLASSES, license="MIT")
    with pytest.raises(UsageError, match="make it with create_model"):
        save_pretrained(nn.Conv2d(3, 3, 1), folder, classes=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_weights_and_card_and_keeps_other_files(tmp_path):
    folder = tmp_path / "m"
    save_pretrained(tiny(0), folder, classes=CLASSES)
    (folder / "README.md").write_text("mine")
    (folder / "notes").mkdir()
    save_pretrained(tiny(1), folder, classes=("x", "y", "z"))
    net, card = load_pretrained(folder)
    assert_same_state(net, tiny(1))
    assert card.classes == ("x", "y", "z")
    assert (folder / "README.md").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "card.json", "model.safetensors", "notes"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("step", [(model_folder, "save_file"), (files, "_swap_in")], ids=["weights", "swap"])
def test_a_failure_while_writing_leaves_the_earlier_model_untouched(tmp_path, monkeypatch, step):
    folder = tmp_path / "m"
    save_pretrained(tiny(0), folder, classes=CLASSES)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*step, full_disk)
    with pytest.raises(WeightsError, match=r"m: cannot be written: No space left"):
        save_pretrained(tiny(1), folder, classes=CLASSES)
    assert_same_state(load_pretrained(folder)[0], tiny(0))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_failure_between_the_two_renames_puts_the_earlier_model_back(tmp_path, monkeypatch):
    folder = tmp_path / "m"
    save_pretrained(tiny(0), folder, classes=CLASSES)
    rename = model_folder.Path.rename

    def fail_for_new(self, target):
        if self.name.startswith(".m.") and self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(model_folder.Path, "rename", fail_for_new)
    with pytest.raises(WeightsError, match="Input/output error"):
        save_pretrained(tiny(1), folder, classes=CLASSES)
    monkeypatch.undo()
    assert_same_state(load_pretrained(folder)[0], tiny(0))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="file: cannot be written: Not a directory"):
        save_pretrained(tiny(), tmp_path / "file", classes=CLASSES)
    with pytest.raises(WeightsError, match="file/m: cannot be written: Not a directory"):
        save_pretrained(tiny(), tmp_path / "file" / "m", classes=CLASSES)


def test_weights_and_card_have_the_umasks_mode(tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_pretrained(tiny(), tmp_path / "m", classes=CLASSES)
    finally:
        os.umask(before)
    assert {f"{entry.name} {entry.stat().st_mode & 0o777:o}" for entry in folder.iterdir()} == {
        "card.json 640",
        "model.safetensors 640",
    }


def test_two_threads_that_save_one_folder_both_succeed(tmp_path):
    nets = [tiny(0), tiny(1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda net: save_pretrained(net, tmp_path / "m", classes=CLASSES), nets * 8))
    load_pretrained(tmp_path / "m")  # weights and card are of one of the two: the hash fits
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_link_keeps_pointing_and_its_folder_is_replaced(tmp_path):
    save_pretrained(tiny(0), tmp_path / "real", classes=CLASSES)
    (tmp_path / "link").symlink_to("real")
    save_pretrained(tiny(1), tmp_path / "link", classes=CLASSES)
    assert (tmp_path / "link").is_symlink()
    assert_same_state(load_pretrained(tmp_path / "real")[0], tiny(1))


def test_tensors_that_share_memory_or_are_strided_are_written_apart(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    plain = plain_tensors({"a": whole, "tied": whole, "turned": whole.t()})
    save_file(plain, tmp_path / "w.safetensors")
    assert torch.equal(plain["tied"], whole)
    assert torch.equal(plain["turned"], whole.t())
    assert plain["a"].data_ptr() != plain["tied"].data_ptr()


def test_a_network_in_channels_last_is_saved_with_the_same_values(tmp_path):
    net = tiny().to(memory_format=torch.channels_last)
    save_pretrained(net, tmp_path, classes=CLASSES)
    assert_same_state(load_pretrained(tmp_path)[0], tiny())


def test_a_run_folder_and_a_link_to_it_mean_their_model(tmp_path):
    run = tmp_path / "unet-001"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(WeightsError, match="this run has no model yet"):
        load_pretrained(run)
    save_pretrained(tiny(), run / "model", classes=CLASSES)
    (tmp_path / "last").symlink_to(run)
    assert find_model(tmp_path / "last") == tmp_path / "last" / "model"
    assert_same_state(load_pretrained(tmp_path / "last")[0], tiny())


def test_a_checkpoint_gives_its_network(tmp_path):
    net, card = load_pretrained(checkpoint(tmp_path / "last.ckpt", tiny()))
    assert_same_state(net, tiny())
    assert card.classes == CLASSES


def test_a_checkpoint_with_averaged_weights_gives_those(tmp_path):
    averaged = {f"net.{name}": tensor for name, tensor in tiny(1).state_dict().items()}
    net, _ = load_pretrained(checkpoint(tmp_path / "last.ckpt", tiny(0), ema_state_dict=averaged))
    assert_same_state(net, tiny(1))


def test_a_checkpoint_without_a_card_is_refused(tmp_path):
    torch.save({"state_dict": {"net.a": torch.ones(1)}}, tmp_path / "last.ckpt")
    with pytest.raises(WeightsError, match=r"last\.ckpt: holds no card"):
        load_pretrained(tmp_path / "last.ckpt")


def test_a_changed_weights_file_is_found_by_its_hash(tmp_path):
    save_pretrained(tiny(), tmp_path, classes=CLASSES)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256 differs"):
        load_pretrained(tmp_path)


def test_weights_of_another_network_are_refused_with_names_and_shapes(tmp_path):
    save_pretrained(tiny(width=8), tmp_path / "wide", classes=CLASSES)
    save_pretrained(tiny(), tmp_path / "m", classes=CLASSES)
    (tmp_path / "wide" / "model.safetensors").replace(tmp_path / "m" / "model.safetensors")
    dataclasses.replace(Card.read(tmp_path / "m"), sha256="").write(tmp_path / "m")
    with pytest.raises(WeightsError) as error:
        load_pretrained(tmp_path / "m")
    assert "of another shape: encoder.levels.0.0" in str(error.value)
    assert "file 8x3x3x3, network 4x3x3x3" in str(error.value)
    assert ", and 95 more" in str(error.value)


def test_a_card_of_an_unknown_network_is_refused(tmp_path):
    save_pretrained(tiny(), tmp_path, classes=CLASSES)
    data = json.loads((tmp_path / "card.json").read_text())
    for change, fault in [
        ({"architecture": "unett"}, "did you mean 'unet'"),
        ({"config": {"num_classes": "x"}}, "num_c"),
    ]:
        (tmp_path / "card.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(WeightsError, match=fault):
            load_pretrained(tmp_path)


def test_a_folder_with_weights_of_another_library_is_told_how_they_become_a_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name, source in (("model.safetensors", str(tmp_path)), ("other.pth", "FILE")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(WeightsError, match="neither a model folder") as error:
            load_pretrained(tmp_path)
        assert str(error.value).endswith(f"a model folder by: segatlas models convert {source} --out FOLDER")


def test_places_without_a_model_are_named_with_what_was_expected(tmp_path):
    with pytest.raises(WeightsError, match="neither a model folder"):
        load_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_pretrained(tmp_path / "none")
    torch.save(tiny().state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="a weights file alone does not say what network it is for"):
        load_pretrained(tmp_path / "w.pth")


def test_a_hub_id_is_fetched_and_loaded(tmp_path, monkeypatch):
    import huggingface_hub

    save_pretrained(tiny(), tmp_path, classes=CLASSES)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path))
    net, _ = load_pretrained("someone/net")
    assert_same_state(net, tiny())
    assert asked == [
        (("someone/net",), {"allow_patterns": ["card.json", "model.safetensors"], "local_files_only": False})
    ]


def test_a_hub_id_without_a_connection_is_a_clear_error(monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise ConnectionError("name resolution failed\nlong story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(WeightsError) as error:
        load_pretrained("someone/net")
    assert str(error.value) == (
        "someone/net: no such file or folder here, and as a hub id it cannot be fetched (no connection to the hub)"
    )
