from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from fakes.foreign import SMALL, foreign_state, small_network, write_checkpoint

import segatlas as sa
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.checkpoint.reading import read_state_dict
from segatlas.conversion import recognition
from segatlas.conversion.converting import convert_file
from segatlas.conversion.recognition import recognise
from segatlas.data.datasets import dataset_class
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import load_pretrained

CLASSES, PALETTE = ["sky", "road ", "car"], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
CFG = """
dataset_type = 'ADE20KDataset'
model = dict(
    data_preprocessor=dict(mean=[127.5, 0.0, 255.0], std=[51.0, 25.5, 255.0], bgr_to_rgb=True),
    backbone=dict(type='MixVisionTransformer', embed_dims=32, norm_cfg=dict(type='LN', eps=1e-4)),
    decode_head=dict(type='SegformerHead', num_classes=3, align_corners=False),
    test_cfg=dict(mode='slide', crop_size=(64, 96), stride=(48, 72)))
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def checkpoint(path, source="mmseg", meta=None, **fields):
    net = small_network(source, **fields)
    return write_checkpoint(path, foreign_state(source, net), meta), net


@pytest.mark.parametrize("source", SMALL)
def test_a_converted_file_loads_and_gives_the_numbers_of_the_network_it_was_made_from(tmp_path, source):
    file, net = checkpoint(tmp_path / "foreign.pth", source, meta=None)
    folder = sa.convert(file, out=tmp_path / "converted")
    predictor = sa.load(folder, device="cpu")
    x = torch.randn(1, 3, 61, 93)
    with torch.inference_mode():
        assert torch.equal(predictor.model(x).logits, net(x).logits)
    assert predictor.scores(x).shape == (1, 3, 61, 93)
    assert predictor.predict(torch.rand(3, 61, 93)).semantic.shape == (61, 93)


def test_the_card_of_a_1x_checkpoint_holds_classes_colours_normalisation_and_windows(tmp_path):
    meta = {"cfg": CFG, "dataset_meta": {"classes": CLASSES, "palette": PALETTE}}
    file, _ = checkpoint(tmp_path / "new.pth", meta=meta)
    card = convert_file(file, tmp_path / "out").card
    assert card.classes == ("sky", "road", "car")
    assert card.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert card.preprocessing.mean == (0.5, 0.0, 1.0)
    assert card.preprocessing.std == (0.2, 0.1, 1.0)
    assert card.preprocessing.max_value == 255
    assert card.inference == InferenceMode(mode="slide", crop=(64, 96), stride=(48, 72))
    assert {card.config["encoder"][key] for key in ("norm_eps", "embedding_norm_eps")} == {1e-4}
    assert card.source.startswith("MMSegmentation: new.pth, sha256 ")
    assert card.licence == ""


def test_the_card_of_a_0x_checkpoint_holds_them_too(tmp_path):
    text = """
img_norm_cfg = dict(mean=[127.5, 0.0, 255.0], std=[51.0, 25.5, 255.0], to_rgb=True)
model = dict(decode_head=dict(num_classes=3), test_cfg=dict(mode='whole'))
"""
    file, _ = checkpoint(tmp_path / "old.pth", meta={"config": text, "CLASSES": CLASSES, "PALETTE": PALETTE})
    card = convert_file(file, tmp_path / "out").card
    assert card.classes == ("sky", "road", "car")
    assert card.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert card.preprocessing.mean == (0.5, 0.0, 1.0)
    assert card.inference == InferenceMode()


def test_a_pipeline_tells_the_normalisation_where_nothing_else_does(tmp_path):
    steps = "[dict(type='LoadImage'), dict(type='Normalize', mean=[51.0, 51.0, 51.0], std=[51.0, 51.0, 51.0])]"
    text = f"data = dict(test=dict(pipeline={steps}))"
    file, _ = checkpoint(tmp_path / "old.pth", meta={"config": text})
    assert convert_file(file, tmp_path / "out").card.preprocessing.mean == (0.2, 0.2, 0.2)


def test_a_network_that_takes_bgr_is_refused(tmp_path):
    file, _ = checkpoint(tmp_path / "bgr.pth", meta={"cfg": CFG.replace("bgr_to_rgb=True", "bgr_to_rgb=False")})
    with pytest.raises(WeightsError, match="BGR order"):
        convert_file(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_bare_state_dict_does_not_tell_is_taken_by_default_and_noted(tmp_path):
    file, _ = checkpoint(tmp_path / "bare.pth", num_classes=19)
    done = convert_file(file, tmp_path / "out")
    assert done.card.classes == tuple(dataset_class("cityscapes").classes)
    assert done.card.inference == InferenceMode()
    assert any("cityscapes" in note for note in done.notes)
    assert any("ImageNet" in note for note in done.notes)
    assert done.settings_from == ""


def test_convert_logs_its_notes(tmp_path, caplog):
    file, _ = checkpoint(tmp_path / "bare.pth")
    sa.convert(file, tmp_path / "out")
    assert "'class_0' to 'class_2'" in caplog.text


def test_a_config_beside_the_file_is_used_where_it_agrees_with_the_shapes(tmp_path):
    file, _ = checkpoint(tmp_path / "bare.pth")
    (tmp_path / "config.py").write_text(CFG)
    done = convert_file(file, tmp_path / "out")
    assert done.settings_from == str(tmp_path / "config.py")
    assert done.card.inference.mode == "slide"


NAMED = "metainfo = dict(classes=('ground', 'house', 'tree'), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])\n"


@pytest.mark.parametrize(
    "text",
    [
        NAMED,
        NAMED + "train_dataloader = dict(dataset=dict(type='BaseSegDataset', metainfo=metainfo))\nmetainfo = 0",
        NAMED
        + "val_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(metainfo=metainfo)))\nmetainfo = 0",
        NAMED + "test_dataloader = dict(dataset=dict(datasets=[dict(metainfo=metainfo)]))\nmetainfo = 0",
        "data = dict(train=dict(classes=['ground', 'house', 'tree'], palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]]))",
    ],
)
def test_class_names_and_colours_are_those_of_the_configs_dataset(tmp_path, text):
    file, _ = checkpoint(tmp_path / "bare.pth")
    (tmp_path / "given.py").write_text(CFG + text)
    card = convert_file(file, tmp_path / "out", config=tmp_path / "given.py").card
    assert card.classes == ("ground", "house", "tree")
    assert card.palette == ((1, 1, 1), (2, 2, 2), (3, 3, 3))


def test_class_names_of_a_config_that_are_not_as_many_as_the_classes_are_not_taken(tmp_path):
    file, _ = checkpoint(tmp_path / "net.pth", meta={"dataset_meta": {"classes": CLASSES, "palette": PALETTE}})
    (tmp_path / "given.py").write_text(CFG + "metainfo = dict(classes=('ground', 'house'))")
    assert convert_file(file, tmp_path / "out", config=tmp_path / "given.py").card.classes == ("sky", "road", "car")
    bare, _ = checkpoint(tmp_path / "bare.pth")
    done = convert_file(bare, tmp_path / "bare", config=tmp_path / "given.py")
    assert "class names are 'class_0' to 'class_2': 2 names were found for 3 classes" in done.notes


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (("num_classes=3", "num_classes=150"), "num_classes is 150, but the file has 3"),
        (("embed_dims=32", "embed_dims=64"), "embed_dims is 64, but the file has 32"),
        (("model = dict(", "model = dict(("), "not a config file"),
    ],
)
def test_a_config_of_another_model_beside_the_file_is_not_used_and_given_it_is_an_error(tmp_path, changed, fault):
    file, _ = checkpoint(tmp_path / "bare.pth")
    config = tmp_path / "config.py"
    config.write_text(CFG.replace(*changed))
    done = convert_file(file, tmp_path / "out")
    assert done.card.inference.mode == "whole"
    assert any("config.py (sidecar file) was not used" in note and fault in note for note in done.notes)
    with pytest.raises(WeightsError, match=fault):
        convert_file(file, tmp_path / "other", config=config)
    assert not (tmp_path / "other").exists()


def test_the_config_called_like_the_file_wins_and_a_given_one_wins_over_all(tmp_path):
    file, _ = checkpoint(tmp_path / "net.pth", meta={"cfg": CFG})
    (tmp_path / "given.py").write_text(CFG.replace("'slide'", "'whole'"))
    assert convert_file(file, tmp_path / "out", config=tmp_path / "given.py").card.inference.mode == "whole"
    bare, _ = checkpoint(tmp_path / "bare.pth")
    (tmp_path / "config.py").write_text(CFG)
    (tmp_path / "bare.py").write_text(CFG.replace("'slide'", "'whole'"))
    assert convert_file(bare, tmp_path / "out").settings_from == str(tmp_path / "bare.py")


def test_a_config_of_another_library_is_an_error(tmp_path):
    file, _ = checkpoint(tmp_path / "net.pth")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"config\.json is no configuration of MMSegmentation"):
        convert_file(file, tmp_path / "out", config=tmp_path / "config.json")


def test_wrappers_prefixes_half_precision_and_missing_counters_are_taken_in(tmp_path):
    net = small_network("nvlabs")
    state = foreign_state("nvlabs", net)
    whole = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": {f"module.{name}": t.half() for name, t in whole.items()}}, tmp_path / "half.pth")
    loaded, _ = load_pretrained(sa.convert(tmp_path / "half.pth", tmp_path / "out"))
    for name, tensor in net.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor.half().float() if tensor.is_floating_point() else torch.zeros_like(tensor))


def test_a_tensor_left_over_or_missing_is_an_error_that_names_it_and_writes_nothing(tmp_path):
    state = foreign_state("nvlabs", small_network("nvlabs"))
    extra = {**state, "decode_head.surprise.weight": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"1 not in the network: decode_head\.surprise\.weight 3"):
        sa.convert(write_checkpoint(tmp_path / "extra.pth", extra), tmp_path / "out")
    state.pop("decode_head.linear_fuse.bn.bias")
    with pytest.raises(WeightsError, match=r"1 missing in the file: decoder\.fuse\.bn\.bias 16"):
        sa.convert(write_checkpoint(tmp_path / "less.pth", state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_dropped_on_purpose_is_no_fault(tmp_path):
    state = foreign_state("nvlabs", small_network("nvlabs"))
    state["decode_head.conv_seg.weight"] = torch.zeros(3, 16, 1, 1)
    assert sa.convert(write_checkpoint(tmp_path / "with.pth", state), tmp_path / "out").is_dir()


def test_a_file_that_is_not_recognised_is_described_with_what_can_be_read(tmp_path):
    state = {"stem.weight": torch.zeros(8, 3, 7, 7), "stem.bias": torch.zeros(8), "head.weight": torch.zeros(2, 8)}
    file = write_checkpoint(tmp_path / "other.pth", state)
    with pytest.raises(WeightsError) as error:
        sa.convert(file, tmp_path / "out")
    for part in (
        "other.pth: not recognised",
        "stem (2), head (1)",
        "stem.weight 8x3x7x7",
        "can be read: files of MMSegmentation, ",
    ):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match="not recognised as 'fcn'"):
        sa.convert(file, tmp_path / "out", arch="fcn")


def test_where_the_library_is_recognised_and_its_encoder_is_not_no_other_libraries_are_listed(tmp_path):
    state = foreign_state("smp", small_network("smp"))
    renamed = {name.replace("encoder.", "encoder.layer0."): tensor for name, tensor in state.items()}
    with pytest.raises(WeightsError, match="the encoder is none that can be read") as error:
        sa.convert(write_checkpoint(tmp_path / "net.pth", renamed), tmp_path / "out")
    assert "can be read: files of" not in str(error.value)


def test_several_architectures_that_fit_are_listed_and_arch_chooses(tmp_path, monkeypatch):
    file, _ = checkpoint(tmp_path / "net.pth", "nvlabs")
    every, [own] = recognition.importers, recognition.importers("nvlabs", "segformer")

    class Twin:
        architecture, source, recognise = "fcn", "nvlabs", staticmethod(own.recognise)

    def two(source=None, architecture=None):
        twin = [Twin()] if source in (None, "nvlabs") and architecture in (None, "fcn") else []
        return [*every(source, architecture), *twin]

    monkeypatch.setattr(recognition, "importers", two)
    with pytest.raises(WeightsError, match=r"several architectures fit: fcn .*, segformer .*--arch"):
        sa.convert(file, tmp_path / "out")
    assert Card.read(sa.convert(file, tmp_path / "out", arch="segformer_b0")).architecture == "segformer"


def test_an_unknown_architecture_or_one_without_importers_is_a_usage_error(tmp_path, monkeypatch):
    file, _ = checkpoint(tmp_path / "net.pth")
    with pytest.raises(UsageError, match="did you mean 'segformer'"):
        sa.convert(file, tmp_path / "out", arch="segfromer")
    monkeypatch.setattr(recognition, "importers", lambda *_, **__: [])
    with pytest.raises(UsageError, match="no weights of other libraries can be read for 'unet'"):
        sa.convert(file, tmp_path / "out", arch="unet")


def test_settings_that_the_network_cannot_have_are_an_error_that_names_them(tmp_path):
    file, _ = checkpoint(tmp_path / "net.pth", meta={"cfg": CFG.replace("embed_dims=32", "num_heads=[1, 2, 4, 8]")})
    with pytest.raises(WeightsError, match=r"model\.backbone\.num_heads = \[1, 2, 4, 8\]"):
        sa.convert(file, tmp_path / "out")


def test_what_only_settings_tell_is_read_from_them(tmp_path, monkeypatch):
    """As the mask of a PSANet that is not square: the fingerprint fits, the rest needs settings."""
    file, _ = checkpoint(tmp_path / "net.pth")
    [own] = recognition.importers("mmseg", "segformer")

    def recognise(file):
        fields = own.recognise(file)
        if fields is not None and file.stated("model.backbone.type") is None:
            raise WeightsError("must be told by a config")
        return fields

    def one(source=None, architecture=None):
        return [dataclasses.replace(own, recognise=recognise)] if source == "mmseg" else []

    monkeypatch.setattr(recognition, "importers", one)
    with pytest.raises(WeightsError, match="MMSegmentation: must be told by a config"):
        convert_file(file, tmp_path / "out")
    (tmp_path / "config.py").write_text(CFG)
    assert convert_file(file, tmp_path / "out").settings_from == str(tmp_path / "config.py")


def test_a_folder_of_hugging_face_is_read_with_its_configs(tmp_path):
    net = small_network("hf")
    torch.save(foreign_state("hf", net), tmp_path / "pytorch_model.bin")
    labels = {"0": "sky", "1": "road", "2": "car"}
    config = {"model_type": "segformer", "id2label": labels, "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rules = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"height": 64, "width": 96}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(rules))
    card = Card.read(sa.convert(tmp_path, tmp_path / "out"))
    assert card.classes == ("sky", "road", "car")
    assert (card.preprocessing.mean, card.preprocessing.resize) == ((0.5, 0.5, 0.5), "64x96")
    config["hidden_sizes"] = [64, 128, 320, 512]
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = convert_file(tmp_path, tmp_path / "out")
    assert done.card.classes == ("class_0", "class_1", "class_2")
    assert any("hidden_sizes" in note for note in done.notes)


def test_a_folder_with_several_weights_files_must_be_more_precise(tmp_path):
    for name in ("a.pth", "b.pth"):
        write_checkpoint(tmp_path / name, {"x": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"name one weights file \(there: a\.pth, b\.pth\)"):
        sa.convert(tmp_path, tmp_path / "out")


@pytest.fixture
def model(tmp_path):
    return save_pretrained(small_network("mmseg"), tmp_path / "model", classes=["sky", "road", "car"], palette=PALETTE)


def test_a_model_of_ours_is_written_for_mmsegmentation_with_classes_in_both_forms(tmp_path, model):
    file = sa.convert(model, tmp_path / "to" / "mmseg.pth", to="mmseg")
    content = torch.load(file, weights_only=True)
    assert list(content) == ["meta", "state_dict"]
    assert content["meta"]["dataset_meta"] == {"classes": ["sky", "road", "car"], "palette": PALETTE}
    assert content["meta"]["CLASSES"] == ["sky", "road", "car"]
    assert content["meta"]["PALETTE"] == PALETTE
    net, _ = load_pretrained(model)
    expected = foreign_state("mmseg", net)
    assert content["state_dict"].keys() == expected.keys()
    assert all(torch.equal(content["state_dict"][name], tensor) for name, tensor in expected.items())


def test_what_was_written_for_another_library_is_read_back_the_same(tmp_path, model):
    file = sa.convert(model, tmp_path / "mmseg.pth", to="mmseg")
    again, card = load_pretrained(sa.convert(file, tmp_path / "again"))
    assert (card.classes, card.palette) == (("sky", "road", "car"), tuple(map(tuple, PALETTE)))
    net, _ = load_pretrained(model)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert read_state_dict(file).meta["meta"]["CLASSES"] == ["sky", "road", "car"]


def test_what_a_library_cannot_hold_is_an_error_and_nothing_is_written(tmp_path, model):
    out = tmp_path / "out.pth"
    with pytest.raises(UsageError, match="expected one of mmseg"):
        sa.convert(model, out, to="mmsegmentation")
    with pytest.raises(UsageError, match="no segformer is written for"):
        sa.convert(model, out, to="semask")
    with pytest.raises(WeightsError, match="segmentation-models-pytorch has no such segformer"):
        sa.convert(model, out, to="smp")
    with pytest.raises(WeightsError, match=r"Hugging Face has no such segformer.*batch norm in its projections"):
        sa.convert(model, out, to="hf")
    linear = save_pretrained(small_network("hf"), tmp_path / "linear", classes=["a", "b", "c"])
    with pytest.raises(WeightsError, match="MMSegmentation has no such segformer"):
        sa.convert(linear, out, to="mmseg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linear", "model"]


def test_what_the_file_cannot_tell_is_noted(tmp_path, caplog):
    options = {"norm_eps": 1e-6, "embedding_norm_eps": 1e-5}
    model = save_pretrained(small_network("mmseg", encoder_options=options), tmp_path / "m", classes=["a", "b", "c"])
    sa.convert(model, tmp_path / "out.pth", to="mmseg")
    assert "see to it in the configuration of MMSegmentation: encoder.embedding_norm_eps=1e-05" in caplog.text


def test_recognition_touches_no_values():
    state = {name: tensor.to("meta") for name, tensor in foreign_state("mmseg", small_network("mmseg")).items()}
    [found] = recognise(state, {})
    assert found.fields["decoder_channels"] == 16
