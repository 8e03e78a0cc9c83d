"""Plain transformers under DPT, Segmenter and SETR: what of a file is refused, and what it is told by."""

from __future__ import annotations

import json

import pytest
import torch
from fakes.golden import hollow
from fakes.golden_cases import GOLDENS
from PIL import Image
from safetensors.torch import save_file

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config
from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers import importers
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.errors import WeightsError
from segatlas.models.dpt import ARCHITECTURE as DPT
from segatlas.models.segmenter import ARCHITECTURE as SEGMENTER


def golden(library, beginning, **fields):
    """Return the names and shapes, and the settings, of a network that a golden is of."""
    case = next(case for source, case in GOLDENS.values() if source == library and case["key"].startswith(beginning))
    architecture, config = make_config(case["architecture"], {**case["fields"], **fields})
    (importer,) = importers(library, case["architecture"])
    return rename_to_theirs(importer, config, hollow(build_empty(architecture, config).state_dict())), case["settings"]


def with_backbone(settings, **keys):
    model = settings["model"]
    return {"model": {**model, "backbone": {**model["backbone"], **keys}}}


@pytest.mark.parametrize("beginning", ["segmenter_t", "setr_naive", "mm:dpt"])
@pytest.mark.parametrize(
    ("keys", "told"),
    [({"num_heads": 8}, "8 heads"), ({"with_cls_token": False}, "with_cls_token = False: this network")],
)
def test_transformers_of_another_form_are_refused_by_the_setting(beginning, keys, told):
    tensors, settings = golden("mmseg", beginning)
    with pytest.raises(WeightsError, match=told):
        recognise(tensors, with_backbone(settings, **keys))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("library", "beginning"), [("mmseg", "segmenter_t"), ("mmseg", "setr_mla"), ("hf", "hf.DPT")])
def test_channels_of_the_image_classes_and_grid_are_read_from_the_shapes(library, beginning, channels):
    tensors, settings = golden(library, beginning, in_channels=channels, num_classes=9)
    (found,) = recognise(tensors, settings)
    assert (found.fields["num_classes"], found.fields["in_channels"]) == (9, channels)


def test_a_segmenter_that_takes_an_earlier_block_is_refused():
    tensors, settings = golden("mmseg", "segmenter_t")
    with pytest.raises(WeightsError, match="out_indices = 0: a Segmenter takes the last of 2 blocks"):
        recognise(tensors, with_backbone(settings, out_indices=0))


def test_a_setr_without_settings_takes_blocks_of_even_distance_and_says_so():
    tensors, _ = golden("mmseg", "setr_mla")
    (found,) = recognise(tensors, {})
    assert found.fields["blocks"] == (0, 1, 2, 3)
    assert any(note.startswith("model.backbone.out_indices = (0, 1, 2, 3) (published default") for note in found.notes)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("num_attention_heads", 4, "4 heads"),
        ("hidden_act", "relu", "hidden_act = 'relu'"),
        ("reassemble_factors", [4, 2, 1, 1], r"reassemble_factors = \[4, 2, 1, 1\]"),
    ],
)
def test_what_hugging_faces_config_says_of_another_network_is_refused(key, value, told):
    tensors, settings = golden("hf", "hf.DPT")
    with pytest.raises(WeightsError, match=told):
        recognise(tensors, {**settings, key: value})


def test_hugging_faces_depth_network_and_hybrid_are_refused_by_name():
    tensors, settings = golden("hf", "hf.DPT")
    depth = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.head.1")}
    with pytest.raises(WeightsError, match="a DPTForDepthEstimation, which has no classes"):
        recognise(depth, settings)
    hybrid = {name: tensor for name, tensor in tensors.items() if "patch_embeddings" not in name}
    with pytest.raises(WeightsError, match="a DPT around another backbone"):
        recognise(hybrid, settings)


@pytest.mark.parametrize(("library", "beginning"), [("hf", "hf.DPT"), ("smp", "smp.DPT")])
def test_a_readout_without_a_matrix_is_told_by_the_settings_alone(library, beginning):
    tensors, settings = golden(library, beginning)
    bare = {name: tensor for name, tensor in tensors.items() if "readout_projects" not in name}
    bare = {name: tensor for name, tensor in bare.items() if "projection_blocks" not in name}
    key = {"hf": "readout_type", "smp": "decoder_readout"}[library]
    (found,) = recognise(bare, {**settings, key: "add"})
    assert found.fields["readout"] == "add"
    with pytest.raises(WeightsError, match="no matrix of the readout in the weights"):
        recognise(bare, dict.fromkeys(settings))


def hugging_face_folder(path, config):
    """Write a folder as `save_pretrained` does, of a small DPT in its form."""
    torch.manual_seed(0)
    options = {"final_norm": False, "position_resize": "bilinear", "position_antialias": False, "norm_eps": 1e-12}
    encoder = {"name": "vit_w32", "depth": 2, "image_size": (32, 32), **options}
    fields = {**DPT.tiny, "encoder_options": {}, "encoder": encoder, "doubled_logits": True, "blocks": (0, 1)}
    net = create_model("dpt", num_classes=3, **{**fields, "level_channels": (4, 8)}).eval()
    path.mkdir()
    theirs = {name: t.contiguous() for name, t in tensors_of("hf", "dpt", net.config, net.state_dict()).items()}
    save_file(theirs, path / "model.safetensors")
    own = {"model_type": "dpt", "hidden_size": 32, "num_hidden_layers": 2, "image_size": 32, "readout_type": "project"}
    own |= {"backbone_out_indices": [0, 1], "layer_norm_eps": 1e-12, "id2label": {"0": "sky", "1": "road", "2": "car"}}
    (path / "config.json").write_text(json.dumps({**own, **config}))
    return net


def test_a_folder_of_hugging_face_converts_without_its_library(tmp_path):
    net = hugging_face_folder(tmp_path / "theirs", {})
    predictor = sa.load(sa.convert(tmp_path / "theirs", out=tmp_path / "ours"), device="cpu")
    assert predictor.card.classes == ("sky", "road", "car")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(predictor.model(image).logits, net(image).logits)


def test_an_unknown_model_type_is_named_with_those_that_are_known(tmp_path):
    (tmp_path / "mobilevit").mkdir()
    save_file({"mobilevit.conv_stem.weight": torch.zeros(1, 1, 8)}, tmp_path / "mobilevit" / "model.safetensors")
    (tmp_path / "mobilevit" / "config.json").write_text(json.dumps({"model_type": "mobilevit"}))
    with pytest.raises(WeightsError, match="says model_type 'mobilevit'; known are dpt, eomt, mask2former") as caught:
        sa.convert(tmp_path / "mobilevit", out=tmp_path / "ours")
    assert "Hugging Face" in str(caught.value)


def test_settings_of_another_depth_beside_a_folder_are_not_used(tmp_path):
    hugging_face_folder(tmp_path / "theirs", {"num_hidden_layers": 12, "id2label": {"0": "a", "1": "b", "2": "c"}})
    card = sa.load(sa.convert(tmp_path / "theirs", out=tmp_path / "ours"), device="cpu").card
    assert card.classes != ("a", "b", "c")


@pytest.mark.parametrize("size", [(64, 64), (90, 150), (40, 70)])
def test_windows_of_a_card_give_predict_and_evaluate_the_labels_of_scores(tmp_path, size):
    torch.manual_seed(0)
    net = create_model("segmenter", num_classes=4, **SEGMENTER.tiny)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    windows = InferenceMode(mode="slide", crop=(64, 64), stride=(48, 48))
    folder = sa.save_pretrained(net, tmp_path / "net", classes=list("abcd"), inference=windows)
    predictor = sa.load(folder, device="cpu")
    image = torch.randint(0, 255, (*size, 3), dtype=torch.uint8)
    card = predictor.card.preprocessing
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (card.mean, card.std))
    scores = predictor.scores(((image.permute(2, 0, 1) / 255 - mean) / std)[None])
    best = scores[0].topk(2, dim=0).values
    clear = (best[0] - best[1]) > 1e-4
    labels = torch.from_numpy(predictor.predict(image.numpy()).semantic.astype("int64"))
    assert torch.equal(labels[clear], scores[0].argmax(0)[clear])
    masks = (labels.where(clear, 255), (labels + 1) % 4)
    for split, mask in zip(("val", "test"), masks, strict=True):
        for kind, pixels in (("images", image), ("masks", mask.byte())):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            Image.fromarray(pixels.numpy()).save(tmp_path / "data" / split / kind / "a.png")
    told = [sa.evaluate(predictor, tmp_path / "data", split=split, progress=False) for split in ("val", "test")]
    assert [report.scores.pixel_accuracy for report in told] == [1, 0]
