"""Files of EoMT and OneFormer: what settings and sizes tell of their use."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.conversion.converting import convert_file, export_file, tensors_of
from segatlas.errors import WeightsError
from segatlas.hub.loading import load_pretrained

ENCODER = {"name": "vit_w32", "depth": 2, "registers": 2, "class_position": False, "layer_scale": 1e-5}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def eomt(num_classes: int = 133, queries: int = 7, side: int = 64) -> Any:
    torch.manual_seed(0)
    encoder = {**ENCODER, "image_size": (side, side)}
    return create_model("eomt", num_classes=num_classes, queries=queries, query_blocks=1, encoder=encoder).eval()


def hub_folder(place: Path, net: Any, processor: dict[str, Any] | None, *, model_type: str = "eomt") -> Path:
    """Write a folder as Hugging Face's hub has it."""
    place.mkdir()
    save_file(tensors_of("hf", str(net.architecture), net.config, net.state_dict()), place / "model.safetensors")
    settings = {"model_type": model_type, "image_size": 64, "layerscale_value": 1e-5}
    (place / "config.json").write_text(json.dumps(settings))
    if processor is not None:
        rules = {"image_mean": MEAN, "image_std": STD, **processor}
        (place / "preprocessor_config.json").write_text(json.dumps(rules))
    return place


@pytest.mark.parametrize(("classes", "task"), [(133, "panoptic"), (80, "instance")])
def test_an_eomt_whose_images_are_padded_is_for_objects_or_segments_and_sees_the_padding(classes, task, tmp_path):
    net = eomt(classes)
    processor = {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True, "do_split_image": False}
    card = convert_file(hub_folder(tmp_path / "a", net, processor), tmp_path / "out").card
    assert (card.task, card.config["padded_to"], card.preprocessing.resize) == (task, 64, "fit:64x64")
    assert card.things == ((True,) * 80 + (False,) * 53 if task == "panoptic" else ())
    assert (card.objects.queries.pairs, card.objects.score) == ("best", 0.8)


def test_an_eomt_whose_images_are_split_is_for_class_maps(tmp_path):
    processor = {"size": {"shortest_edge": 64, "longest_edge": None}, "do_pad": False, "do_split_image": True}
    card = convert_file(hub_folder(tmp_path / "a", eomt(150), processor), tmp_path / "out").card
    assert (card.task, card.config["padded_to"], card.preprocessing.resize) == ("semantic", None, "short:64")
    assert (card.objects.queries.upsampled, card.objects.queries.pairs) == ("probabilities", "best")
    assert (card.inference.mode, card.inference.crop, card.inference.stride) == ("slide", (64, 64), (64, 64))


@pytest.mark.parametrize(
    ("classes", "queries", "task", "padded", "resize"),
    [
        (133, 200, "panoptic", 64, "fit:64x64"),
        (80, 200, "instance", 64, "fit:64x64"),
        (150, 200, "panoptic", 64, "fit:64x64"),
        (150, 100, "semantic", None, "short:64"),
        (19, 100, "semantic", None, "short:64"),
    ],
)
def test_the_authors_files_tell_their_use_by_classes_and_queries(classes, queries, task, padded, resize, tmp_path):
    net = eomt(classes, queries)
    state = tensors_of("eomt", "eomt", net.config, net.state_dict())
    below = {f"network.{name}": tensor for name, tensor in state.items()}
    below |= {"network.encoder.pixel_mean": torch.ones(1, 3, 1, 1), "criterion.empty_weight": torch.ones(classes + 1)}
    torch.save(below, tmp_path / "pytorch_model.bin")
    found = convert_file(tmp_path / "pytorch_model.bin", tmp_path / "out")
    assert found.library == "eomt"
    card = found.card
    assert (card.task, card.config["padded_to"], card.preprocessing.resize) == (task, padded, resize)
    assert bool(card.things) == (task == "panoptic")
    assert (card.inference.mode == "slide") == (task == "semantic")


def test_differences_from_dinov3_are_no_network(tmp_path):
    net = eomt()
    state = tensors_of("eomt", "eomt", net.config, net.state_dict())
    state["encoder.backbone.patch_embed.register_tokens"] = torch.ones(1, 4, 32)
    torch.save(state, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="hold the differences from DINOv3"):
        convert_file(tmp_path / "a.bin", tmp_path / "out")


def test_a_oneformer_is_asked_for_what_is_stated(tmp_path):
    torch.manual_seed(0)
    fields = {"queries": 5, "layers": 2, "pixel_layers": 1, "pixel_hidden": 32, "hidden": 32}
    net = create_model("oneformer", num_classes=150, encoder="swin_w8", channels=64, mask_channels=32, **fields)
    place = hub_folder(tmp_path / "a", net, None, model_type="oneformer")
    card = convert_file(place, tmp_path / "panoptic").card
    assert (card.task, card.config["asked_for"], len(card.things)) == ("panoptic", "panoptic", 150)
    card = convert_file(place, tmp_path / "semantic", stated={"task": "semantic"}).card
    assert (card.task, card.config["asked_for"], card.things) == ("semantic", "semantic", ())
    card = convert_file(place, tmp_path / "instance", stated={"task": "instance"}).card
    assert (card.task, card.objects.queries.pairs, card.objects.queries.upsampled) == ("instance", "queries", "logits")
    with pytest.raises(WeightsError, match="task = 'depth': expected panoptic, instance, semantic"):
        convert_file(place, tmp_path / "none", stated={"task": "depth"})


@pytest.mark.parametrize("library", ["mmdet", "hf"])
def test_a_mask2former_goes_to_other_libraries_and_back(library, tmp_path):
    torch.manual_seed(0)
    fields = {"queries": 5, "channels": 64, "mask_channels": 32, "layers": 3, "pixel_layers": 1, "points": 2}
    net = create_model("mask2former", num_classes=7, encoder="swin_w8", **fields)
    place = save_pretrained(net, tmp_path / "ours", classes=[f"class {index}" for index in range(7)])
    file = export_file(place, tmp_path / "theirs.pth", to=library).file
    back, _ = load_pretrained(convert_file(file, tmp_path / "back").folder)
    assert back.config == net.config
    state = back.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_files_of_the_authors_zoo_are_refused_where_only_commercial_use_is_wanted(tmp_path):
    torch.manual_seed(0)
    fields = {"queries": 5, "layers": 2, "pixel_layers": 1, "pixel_hidden": 32, "hidden": 32}
    net = create_model("mask2former", num_classes=133, encoder="swin_w8", channels=64, mask_channels=32, **fields)
    arrays = tensors_of("detectron2", "mask2former", net.config, net.state_dict())
    file = tmp_path / "model_final.pkl"
    file.write_bytes(pickle.dumps({"model": {name: tensor.numpy() for name, tensor in arrays.items()}}))
    found = convert_file(file, tmp_path / "out")
    assert "non-commercial" in str(found.card.licence)
    with pytest.raises(WeightsError, match="non-commercial"):
        load_pretrained(tmp_path / "out", commercial_ok=True)
