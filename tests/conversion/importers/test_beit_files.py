"""UPerNet on BEiT of MMSegmentation and Hugging Face: what weights and settings tell, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from fakes.golden import hollow
from safetensors.torch import save_file

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import upernet_beit, upernet_beit_before_5
from segatlas.conversion.importers.mmseg import upernet
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.encoders.vit import relations
from segatlas.errors import WeightsError

BEIT = {
    "name": "vit_w32",
    "depth": 5,
    "at": (0, 1, 2, 4),
    "image_size": (64, 64),
    "absolute_positions": False,
    "relative_positions": True,
    "key_bias": False,
    "layer_scale": 0.1,
    "final_norm": False,
    "position_antialias": False,
}
EACH = pytest.mark.parametrize(
    "importer", [upernet.IMPORTER, upernet_beit.IMPORTER, upernet_beit_before_5.IMPORTER], ids=["mmseg", "5", "4"]
)
FIELDS = {"neck": "deconvolve", "channels": 16, "aux": True, "aux_channels": 8}
HF = (upernet_beit.IMPORTER, upernet_beit_before_5.IMPORTER)


def config_of(**options):
    return make_config("upernet", {"num_classes": 3, "encoder": {**BEIT, **options}, **FIELDS})


def file_of(importer, settings=None, **options):
    """Return the file of a small network, with settings beside it."""
    architecture, config = config_of(**options)
    theirs = rename_to_theirs(importer, config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings=settings or {})


@EACH
def test_beit_goes_there_and_back(importer):
    architecture, config = config_of()
    torch.manual_seed(0)
    ours = {name: torch.randn(t.shape) for name, t in build_empty(architecture, config).state_dict().items()}
    again = rename_to_ours(importer, config, rename_to_theirs(importer, config, ours))
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)


@EACH
def test_weights_tell_that_keys_have_no_bias_and_which_grid_the_tables_are_for(importer):
    fields = importer.recognise(file_of(importer, image_size=(96, 96)))
    told = {key: fields["encoder_options"][key] for key in ("relative_positions", "key_bias", "absolute_positions")}
    assert told == {"relative_positions": True, "key_bias": False, "absolute_positions": False}
    assert fields["encoder_options"]["image_size"] == (96, 96)
    assert (fields["neck"], fields["aux_level"], fields["channels"]) == ("deconvolve", 2, 16)


@EACH
def test_a_table_of_no_square_grid_is_refused_by_name(importer):
    with pytest.raises(WeightsError, match=r"bias_table has 80 rows: expected those of a square grid"):
        importer.recognise(file_of(importer, image_size=(64, 96)))


def test_indices_are_written_for_mmsegmentation():
    file = file_of(upernet.IMPORTER)
    index = file.tensors["backbone.layers.4.attn.relative_position_index"]
    assert torch.equal(index, relations((4, 4), torch.device("cpu")))


@pytest.mark.parametrize("importer", HF)
def test_indices_of_blocks_begin_with_the_patch_embedding_there(importer):
    settings = {"out_indices": [2, 3, 4, 6], "layer_norm_eps": 1e-12, "drop_path_rate": 0.1}
    options = importer.recognise(file_of(importer, settings))["encoder_options"]
    assert (options["at"], options["norm_eps"], options["drop_path"]) == ((0, 1, 2, 4), 1e-12, 0.1)


@pytest.mark.parametrize("importer", HF)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"out_indices": [1, 2, 3, 4]}, r"out_indices = \[1, 2, 3, 4\]: expected four numbers from 2 to 6"),
        ({"out_indices": [2, 3, 4]}, r"out_indices = \[2, 3, 4\]: expected four numbers from 2 to 6"),
        ({"hidden_act": "relu"}, "hidden_act = relu: only gelu is supported"),
        ({"use_shared_relative_position_bias": True}, "use_shared_relative_position_bias = True: only False"),
        ({"num_attention_heads": 4}, "a plain transformer of width 32 with 4 heads"),
    ],
)
def test_forms_of_hugging_face_that_ours_does_not_have_are_refused(importer, settings, message):
    with pytest.raises(WeightsError, match=message):
        importer.recognise(file_of(importer, settings))


@pytest.mark.parametrize("importer", HF)
def test_a_beit_without_relative_positions_is_refused(importer):
    file = file_of(importer)
    tensors = {name: t for name, t in file.tensors.items() if not name.endswith("bias_table")}
    with pytest.raises(WeightsError, match="only a BEiT with relative positions of each block is supported"):
        importer.recognise(ForeignWeights(tensors=tensors))


@pytest.mark.parametrize("importer", HF)
def test_networks_that_are_no_beit_are_not_written_for_it(importer):
    for options, message in (
        ({"relative_positions": False, "absolute_positions": True}, "no UPerNet with neck 'deconvolve' on 'vit_w32'"),
        ({"key_bias": True}, "biases of queries and values, none of keys, and no final norm"),
    ):
        with pytest.raises(WeightsError, match=message):
            file_of(importer, **options)


def folder_of(path, config):
    """Write a folder as Hugging Face has it; return the network."""
    torch.manual_seed(0)
    _, own = config_of()
    net = create_model("upernet", num_classes=3, encoder=BEIT, **FIELDS).eval()
    path.mkdir()
    theirs = {name: t.contiguous() for name, t in tensors_of("hf", "upernet", own, net.state_dict()).items()}
    save_file(theirs, path / "model.safetensors")
    settings = {"model_type": "beit", "hidden_size": 32, "num_hidden_layers": 5, "out_indices": [2, 3, 4, 6]}
    settings |= {"layer_norm_eps": 1e-6, "id2label": {"0": "sky", "1": "road", "2": "car"}}
    (path / "config.json").write_text(json.dumps({**settings, **config}))
    return net


def test_a_folder_converts_and_gives_the_same_logits(tmp_path):
    net = folder_of(tmp_path / "theirs", {})
    predictor = sa.load(sa.convert(tmp_path / "theirs", out=tmp_path / "ours"), device="cpu")
    assert predictor.card.classes == ("sky", "road", "car")
    image = torch.randn(1, 3, 48, 80)
    with torch.no_grad():
        assert torch.equal(predictor.model(image).logits, net(image).logits)


def test_settings_of_another_width_beside_a_folder_are_not_used(tmp_path):
    folder_of(tmp_path / "theirs", {"hidden_size": 768, "id2label": {"0": "a", "1": "b", "2": "c"}})
    card = sa.load(sa.convert(tmp_path / "theirs", out=tmp_path / "ours"), device="cpu").card
    assert card.classes != ("a", "b", "c")


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_key_too_few_or_too_many_is_named(tmp_path, change):
    _, config = config_of()
    net = create_model("upernet", num_classes=3, encoder=BEIT, **FIELDS)
    theirs = tensors_of("mmseg", "upernet", config, net.state_dict())
    if change == "missing":
        del theirs["backbone.layers.1.attn.q_bias"]
    else:
        theirs["backbone.layers.1.attn.k_bias"] = torch.zeros(32)
    torch.save({"state_dict": theirs}, tmp_path / "beit.pth")
    with pytest.raises(WeightsError, match=r"layers\.1\.attn\.k_bias|blocks\.1\.attn\.q_bias"):
        sa.convert(tmp_path / "beit.pth", out=tmp_path / "ours")
