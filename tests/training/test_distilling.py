"""A student learns from a teacher: what each of them is given, what is kept, what is refused by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_resume import Killed, kill_at, step_of
from typer.testing import CliRunner

import resume_campaign
from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing
from segatlas.cli.main import app
from segatlas.config.distillation import ChannelWise, PairWise, PixelWise
from segatlas.data import create_dataset
from segatlas.data.transforms.color import normalise
from segatlas.errors import ConfigError, UsageError, WeightsError
from segatlas.inference import load
from segatlas.recipe import Config
from segatlas.structures import Inputs
from segatlas.training import dry_run, train
from segatlas.training.building import with_preprocessing
from segatlas.training.distillation import Distillation, _difference
from segatlas.training.distilling import _common, build_parts
from segatlas.training.free_memory import _of_container, _of_machine
from segatlas.training.module import forward
from segatlas.training.taken_maps import covered, taken
from segatlas.training.teacher import Change, Teacher, least_memory, with_lasting_name

OWN = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), max_value=255.0)
"""Input statistics of the teacher; those of the student are ImageNet's."""


@pytest.fixture(scope="module")
def classes(shapes) -> tuple[str, ...]:
    return create_dataset(Config.load({"data": {"name": "shapes", "root": str(shapes)}}).data, "train", 0).classes


@pytest.fixture(scope="module")
def write(classes, tmp_path_factory):
    """Return a writer of teachers with random weights: a U-Net of double width where nothing else is said."""

    def make(name: str = "unet", *, names: tuple[str, ...] = classes, card: dict | None = None, **fields) -> Path:
        torch.manual_seed(3)
        net = create_model(name, **{"num_classes": len(names), **(fields or {"width": 8})})
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        facts = {"preprocessing": OWN, **(card or {})}
        return save_pretrained(net, tmp_path_factory.mktemp("teacher") / "model", classes=names, **facts)

    return make


@pytest.fixture(scope="module")
def teacher(write) -> Path:
    return write()


@pytest.fixture
def distilled(recipe, teacher):
    """Return a maker of recipes of a narrow U-Net that learns from the teacher."""

    def make(*words: str, terms: str = "[channel_wise]", at: Path | str = teacher, **more) -> Config:
        return recipe(
            f"distill.teacher={json.dumps(str(at))}", f"distill.terms={terms}", "log.samples=0", *words, **more
        )

    return make


def criterion_of(config: Config) -> Distillation:
    criterion = build_parts(config).criterion
    assert isinstance(criterion, Distillation)
    return criterion


def refusal(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        build_parts(config)
    return str(caught.value)


# ---- what the teacher is given
@pytest.mark.parametrize(
    ("depth", "student_max", "teacher_max", "stated"),
    [("uint8", 255.0, 255.0, None), ("uint16", 4095.0, 65535.0, None), ("uint16", 65535.0, 255.0, None),
     ("float32", 1.0, 2.0, None), ("uint8", 255.0, 4095.0, 255.0)],
)  # fmt: skip
def test_an_image_reaches_the_teacher_as_its_own_normalisation_makes_it(depth, student_max, teacher_max, stated):
    draw = np.random.default_rng(0)
    image = (draw.random((6, 5, 3)) * student_max).astype(depth)
    student, theirs = Preprocessing(max_value=student_max), replace(OWN, max_value=teacher_max)

    def by(rules: Preprocessing, values: np.ndarray = image) -> torch.Tensor:
        return torch.from_numpy(normalise(values, rules.mean, rules.std, rules.max_value)).permute(2, 0, 1)[None]

    stored = image if stated is None else image.astype(np.float32) * np.float32(teacher_max / stated)
    change = Change(student=student, teacher=theirs, depth=depth, stated=stated)
    found = change.apply(by(student), torch.zeros(1, 6, 5, dtype=torch.uint8))
    assert torch.allclose(found, by(theirs, stored), atol=1e-5)


def test_padding_is_zero_for_the_teacher_too_and_a_pixel_with_a_label_is_not():
    image, labels = torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8)
    image[..., 0, 0], labels[..., 0, 1] = 0.5, 1
    found = Change(student=Preprocessing(), teacher=OWN, depth="uint8").apply(image, labels)
    assert found[..., 1, :].abs().max() == 0
    assert found[..., 0, :].abs().min() > 0


def test_the_teacher_gives_what_its_predictor_gives_in_the_order_of_the_students_classes(distilled, write, classes):
    turned = tuple(reversed(classes))
    place = write(names=turned)
    criterion = criterion_of(distilled(at=place))
    image = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    predictor = load(place, device="cpu")
    rules = Preprocessing()
    given = torch.from_numpy(normalise(image, rules.mean, rules.std, 255.0)).permute(2, 0, 1)[None]
    labels = torch.zeros(1, 32, 48, dtype=torch.uint8)
    output, maps = criterion.teacher.run(criterion.change.apply(given, labels), "fp32")
    own = torch.from_numpy(normalise(image, OWN.mean, OWN.std, 255.0)).permute(2, 0, 1)[None]
    expected = predictor.output(own).logits.flip(1)
    assert (output.logits - expected).abs().max() < 1e-5 * expected.abs().max()
    assert maps == {}
    assert not output.logits.requires_grad


def test_a_resumed_run_that_keeps_its_normalisation_tells_its_teacher(distilled):
    config = distilled()
    parts = build_parts(config)
    kept = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.3, 0.3, 0.3))
    assert with_preprocessing(parts, kept, config).criterion.change.student == kept


# ---- what is compared
def test_a_student_that_is_its_teacher_loses_only_by_its_own_losses(distilled, write):
    terms = "[pixel_wise, channel_wise, {name: channel_wise, on: features}, {name: pair_wise, on: decoded}]"
    alike = write(card={"preprocessing": Preprocessing()}, width=4)
    parts = build_parts(distilled(terms=terms, at=alike))
    criterion = parts.criterion
    assert len(criterion.adapters) == 0
    net = load(alike).model.eval()
    image, labels = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8)
    with criterion.watching(net, Inputs(image), labels):
        output = net(image)
    total, values = criterion(output, labels)
    own, _ = criterion.own(output, labels)
    assert [name for name in values if name.startswith("distill.")] == [
        "distill.pixel_wise", "distill.channel_wise", "distill.channel_wise.features", "distill.pair_wise.decoded"
    ]  # fmt: skip
    assert all(abs(value.item()) < 1e-6 for name, value in values.items() if name.startswith("distill."))
    assert total.item() == pytest.approx(own.item(), rel=1e-5)


def test_features_are_the_encoders_maps_at_common_strides_with_an_adapter_each_and_gradients_reach_both(
    distilled, write
):
    place = write("fpn", encoder="resnet18_w8", pyramid_channels=8, channels=8, groups=8)
    parts = build_parts(
        distilled(terms="[{name: channel_wise, on: features}, {name: pair_wise, on: features.8}]", at=place)
    )
    criterion, net = parts.criterion, parts.net
    # the student has 4, 8, 16, 32, 64 channels at strides 1 to 16, the teacher 8, 8, 16, 32, 64 at 2 to 32
    assert [pair.student for pair in criterion.terms[0].pairs] == [f"features.{stride}" for stride in (2, 4, 8, 16)]
    shapes = [tuple(adapter[0].weight.shape[:2]) for adapter in criterion.adapters]
    assert shapes == [(8, 16), (16, 32), (32, 64)]
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    inputs = Inputs(torch.randn(2, 3, 32, 32))
    with criterion.watching(net.train(), inputs, labels):
        output = forward(net, inputs, labels, ((32, 32),) * 2)
    total, values = criterion(output, labels)
    (total - criterion.own(output, labels)[0]).backward()
    assert all(float(value) > 0 for value in values.values())
    assert all(parameter.grad is not None for parameter in criterion.adapters.parameters())
    assert all(float(one.grad.abs().max()) > 0 for one in net.encoder.parameters() if one.ndim == 4)
    assert all(parameter.grad is None for parameter in criterion.teacher.net.parameters())


def test_a_wrapped_teacher_gives_the_maps_of_its_host(distilled, write):
    place = write("temperature", host={"name": "unet", "width": 4})
    criterion = criterion_of(
        distilled(terms="[{name: pair_wise, on: decoded}, {name: pair_wise, on: features.4}]", at=place)
    )
    _, maps = criterion.teacher.run(torch.randn(1, 3, 32, 32), "fp32")
    assert {name: tuple(values.shape[1:]) for name, values in maps.items()} == {
        "decoded": (4, 32, 32), "features.4": (16, 8, 8)
    }  # fmt: skip


def test_the_teacher_that_a_link_means_today_stands_in_the_runs_recipe(distilled, teacher, tmp_path):
    (tmp_path / "last").symlink_to(teacher)
    assert with_lasting_name(distilled(at=tmp_path / "last")).distill.teacher == str(teacher.resolve())
    config = distilled(at="a/hub-id")
    assert with_lasting_name(config) is config


def test_maps_of_an_encoder_cover_whole_cells_of_their_stride_and_others_the_canvas():
    maps = torch.zeros(1, 4, 8, 10)
    assert covered("features.32", maps, (240, 320)) == (256, 320)
    assert covered("features.32", maps, (257, 320)) == (257, 320)
    assert covered("decoded", maps, (240, 320)) == (240, 320)


@pytest.mark.parametrize("term", [PixelWise(), ChannelWise(), PairWise()])
def test_networks_that_pad_an_image_to_other_multiples_are_compared_where_both_have_pixels(term):
    def of_places(canvas: tuple[int, int]) -> torch.Tensor:
        y, x = (torch.arange(side // 4, dtype=torch.float64) * 4 + 2 for side in canvas)
        return torch.stack([y[:, None] * x / 90, y[:, None] - x, (y[:, None] / 9).sin() + x])[None]

    ours, theirs = of_places((40, 56)), of_places((64, 64))
    assert abs(float(_difference(term, ours, theirs, (40, 56), (64, 64)))) < 1e-9
    assert float(_difference(term, ours, theirs, (64, 64), (64, 64))) > 1e-3  # as if both covered the same


def test_what_a_network_changes_in_place_later_is_taken_as_it_was():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(inplace=True))
    x = torch.randn(1, 3, 4, 4)
    with taken(net, ["0"]) as maps:
        net(x)
    assert torch.equal(maps["0"], net[0](x))
    assert (maps["0"] < 0).any()


def test_where_the_fast_form_lacks_a_layers_values_the_teacher_runs_plain(distilled, teacher):
    names = [name for name, one in load(teacher).model.named_modules() if isinstance(one, torch.nn.Conv2d)]
    inside = next(name for name in names if name.startswith("encoder."))
    plain = criterion_of(distilled(terms=f"[{{name: pair_wise, on: {inside}}}]")).teacher
    assert not plain.in_fast_form
    assert criterion_of(distilled(terms="[{name: pair_wise, on: features}]")).teacher.in_fast_form
    with taken(plain.net, [inside]) as maps, torch.no_grad():
        image = torch.randn(1, 3, 32, 32)
        plain.net(image)
    assert torch.equal(plain.run(image, "fp32")[1][inside], maps[inside])


# ---- training
def test_a_run_that_stopped_ends_like_one_that_did_not_with_adapters_ema_and_accumulation(distilled, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    settings = (
        *("data.workers=1", "train.ema={decay: 0.9}", "train.accumulate=2", "train.precision=bf16", "train.clip=1"),
        "distill.adapter_lr_factor=2.0",
    )
    terms = "[channel_wise, {name: channel_wise, on: features.4, weight: 5}, {name: pair_wise, on: decoded}]"
    whole = train(distilled(*settings, terms=terms, name="whole"), quiet=True).dir
    cut = whole.parent / "cut"
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            train(distilled(*settings, "train.checkpoint_every=1", terms=terms, name="cut"), quiet=True)
    assert step_of(cut) == 3 or step_of(cut) == 2
    train(Config.load(cut / "config.yaml"), resume=cut, quiet=True)
    assert resume_campaign.differences(whole, cut) == []
    # what is kept: the student alone, and who taught it
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.partition(".")[0] for name in state["state_dict"]} == {"net", "criterion"}
    assert any(name.startswith("criterion.adapters.0.") for name in state["state_dict"])
    assert not any("teacher" in name for name in state["state_dict"])
    groups = state["optimizer_states"][0]["param_groups"]
    assert [group["base_lr"] for group in groups if group.get("too")] == [2e-2, 2e-2]
    student = load(whole)
    assert student.model.state_dict().keys() == create_model("unet", width=4, num_classes=7).state_dict().keys()
    assert f"distilled from unet {distilled().distill.teacher} (sha256 {state['teacher']}" in student.card.source


def test_another_teacher_or_other_terms_are_refused_on_resume_and_a_moved_one_is_not(
    distilled, write, teacher, monkeypatch, tmp_path
):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    asked, plain = [], Teacher.run
    monkeypatch.setattr(Teacher, "run", lambda self, *given: asked.append(len(given[0])) or plain(self, *given))
    run = train(distilled("train.steps=1"), quiet=True).dir
    assert asked == [2, 2]  # the two images that are tried, then once for the batch
    moved = shutil.copytree(teacher, tmp_path / "moved")
    other = write(width=6)

    def resume(*words: str):
        return CliRunner().invoke(app, ["distill", "--resume", str(run), "train.steps=2", "--quiet", *words])

    refused = resume("--teacher", str(other))
    assert refused.exit_code == 2
    assert "distill.teacher: the sha256 of its weights is" in refused.stderr
    assert "distill.terms" in resume("distill.terms=[pixel_wise]").stderr
    assert "which this run writes" in resume("--teacher", str(run / "model")).stderr
    assert resume("--teacher", str(moved)).exit_code == 0
    assert step_of(run) == 2


def test_train_and_distill_mean_the_same_and_a_dry_run_tells_who_teaches(distilled, teacher):
    config = distilled("train.batch=2")
    facts = dry_run(config)
    lines = "\n".join(facts.lines())
    assert f"teacher: unet ({teacher})" in lines
    assert "distill.channel_wise: logits, student 7 x 32 x 32, teacher 7 x 32 x 32" in lines
    assert "the teacher runs in its fast form, fp32" in lines
    words = [f"data.root={config.data.root}", "data.name=shapes", "data.workers=0", "model={name: unet, width: 4}",
             "transforms={crop: [32, 32]}", "train.device=cpu", "train.batch=2", "--dry-run", "--json"]  # fmt: skip
    losses = []
    for command in (["distill", "unet_shapes", "--teacher", str(teacher)],
                    ["train", "unet_shapes", f"distill.teacher={teacher}"]):  # fmt: skip
        result = CliRunner().invoke(app, [*command, *words])
        assert result.exit_code == 0, result.output
        losses.append(json.loads(result.stdout.splitlines()[-1])["loss"])
    assert losses[0] == losses[1]
    without = CliRunner().invoke(app, ["distill", "unet_shapes", *words])
    assert without.exit_code == 2
    assert "--teacher PATH" in without.stderr


# ---- what is refused
def test_a_teacher_of_other_classes_is_refused_with_their_names_unless_it_goes_by_numbers(distilled, write, classes):
    place = write(names=(*classes[:-1], "zebra"))
    text = refusal(distilled(at=place))
    for part in ("distill.teacher", f"without {classes[-1]}", "with zebra", "distill.classes=numbers"):
        assert part in text
    by_number = criterion_of(distilled("distill.classes=numbers", at=place))
    assert by_number.teacher.classes == tuple(range(len(classes)))
    fewer = write(names=classes[:-1])
    assert f"it has {len(classes) - 1} classes and not the student's {len(classes)}" in refusal(distilled(at=fewer))
    assert f"it has {len(classes) - 1} classes" in refusal(distilled("distill.classes=numbers", at=fewer))
    twice = write(names=(*reversed(classes), classes[0]))
    assert f"more than one class is called {classes[0]}" in refusal(distilled(at=twice))
    # maps that are no classes may be those of any teacher
    assert criterion_of(distilled(terms="[{name: channel_wise, on: features}]", at=fewer)).adapters


@pytest.mark.parametrize(
    ("fields", "card", "words", "parts"),
    [
        ({"width": 4, "in_channels": 1}, {"preprocessing": Preprocessing(mean=(0.5,), std=(0.2,))}, (),
         ("images of 1 channel,", "the student's have 3")),
        ({}, {"inference": InferenceMode(mode="slide", crop=(64, 64), stride=(32, 32))}, (),
         ("windows of 64x64", "of 32x32", "transforms.crop=[64, 64]")),
        ({}, {"preprocessing": replace(OWN, max_value=4095.0)}, (),
         ("full scale of the model is 4095", "distill.max_value")),
        ({}, {}, ("run.dir=HERE", "run.exist_ok=true"), ("which this run writes",)),
    ],
    ids=["channels", "windows", "values", "own run"],
)  # fmt: skip
def test_a_teacher_that_cannot_teach_this_student_is_refused_by_name(distilled, write, fields, card, words, parts):
    place = write(card=card, **fields)
    words = [word.replace("HERE", str(place.parent)) for word in words]
    text = refusal(distilled(*words, at=place))
    for part in ("distill.teacher", *parts):
        assert part in text


def test_a_teacher_of_objects_or_of_further_sources_is_refused_by_name(distilled, write, classes):
    assert "gives CentersAndOffsets; a teacher is a network of class maps" in refusal(
        distilled(at=write("center", width=4))
    )
    place = write("fc_siam", width=4, card={"preprocessing": OWN})
    assert "besides the image" in refusal(distilled(at=place))
    with pytest.raises(WeightsError, match="no such file or folder"):
        build_parts(distilled(at="nowhere/to/be/found/at.all"))


def test_a_student_of_objects_and_a_pretraining_are_refused_when_the_recipe_is_read(distilled):
    with pytest.raises(ConfigError, match="distillation is for networks of class maps, and center gives"):
        distilled(model={"name": "center", "width": 4})


def test_a_term_on_what_a_network_does_not_have_is_refused_with_what_it_has(distilled):
    text = refusal(distilled(terms="[{name: pair_wise, on: features.32}, {name: pair_wise, on: encoder.layr1}]"))
    assert "distill.terms.0.on" in text
    assert "the encoder of unet has maps at strides 1, 2, 4, 8, 16" in text
    assert "distill.terms.1.on" in text
    assert "unknown layer of unet" in text
    text = refusal(distilled(terms="[{name: channel_wise, on: classifier}]"))
    assert "classifier: what it gives are the logits, whose classes are found by name; write 'logits'" in text
    text = refusal(distilled(terms="[{name: pair_wise, on: features.4, teacher_on: encoder.nowhere}]"))
    assert "distill.terms.0.teacher_on" in text


def test_encoders_without_a_common_stride_are_refused_with_the_strides_of_both():
    ours, theirs = create_model("unet", width=4, num_classes=2), create_model("unet", width=4, num_classes=2)
    theirs.encoder.strides = (3, 6, 12, 24, 48)
    with pytest.raises(UsageError, match="no common feature: strides of the student's encoder 1, 2, 4, 8, 16, of the"):
        _common(ours, theirs)


def test_a_teacher_that_does_not_fit_the_memory_is_refused_with_numbers(distilled, monkeypatch):
    monkeypatch.setattr("segatlas.training.teacher.free_memory", lambda device: 1_000_000)
    text = refusal(distilled())
    for part in (
        "it does not fit the memory: at least 4 MB for its weights",
        "2 images of 32x32",
        "1 MB are free on cpu",
    ):
        assert part in text


def test_the_least_memory_is_that_of_the_weights_and_the_largest_layer():
    net = create_model("unet", width=8, num_classes=7)
    card = make_card(net, classes=[str(index) for index in range(7)])
    weights, maps = least_memory(card, (2, (32, 48)))
    assert weights == sum(t.numel() * t.itemsize * (2 if t.ndim == 4 else 1) for t in net.state_dict().values())
    assert maps == 2 * 32 * 48 * 4 * (16 + 8)  # the decoder's last block: 16 channels in, 8 out
    narrower = {**card.surgery, "classifier": (4, 7, 1)}
    assert least_memory(replace(card, surgery=narrower), (2, (32, 48)))[0] == weights - 2 * 4 * 7 * 4


def test_free_memory_is_read_from_the_machine_and_the_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:    2048 kB\n")
    assert _of_machine(meminfo) == 2048 * 1024
    assert _of_machine(tmp_path / "none") is None
    assert _of_container(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert _of_container(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_container(tmp_path) is None
