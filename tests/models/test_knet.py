"""segatlas.models.knet, and files of MMSegmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes.golden import hollow

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config, shapes_only
from segatlas.build.starting import start_from
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.knet import IMPORTER
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.inference.fast_form import fast_form
from segatlas.models.knet import ARCHITECTURE, FoldedStage
from segatlas.recipe import Config, aux_problems
from segatlas.structures import InputSpec

TINY = {"num_classes": 5, **ARCHITECTURE.tiny}
COUNTS = {
    "knet_fcn_r50": 62_810_508,
    "knet_pspnet_r50": 62_288_268,
    "knet_deeplabv3_r50": 81_425_804,
    "knet_upernet_r50": 79_728_012,
    "knet_upernet_swin_t": 73_153_766,
}
"""Parameters for 150 classes, the auxiliary head among them, as MMSegmentation's networks have them."""


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("variant", COUNTS)
def test_variants_have_the_published_number_of_parameters_for_150_classes(variant):
    with shapes_only():
        net = create_model(variant, num_classes=150, host={"aux": True})
    assert sum(p.numel() for p in net.parameters()) == COUNTS[variant]


def test_a_stage_is_that_of_loops_over_kernels_and_pixels():
    net = create_model("knet", **TINY).eval().double()
    stage = net.stages[0]
    x, kernels, logits = (torch.randn(2, *shape).double() for shape in ((8, 3, 4), (5, 8), (5, 3, 4)))
    with torch.no_grad():
        changed, classifier = stage(x, kernels, logits)
        found = classifier.logits()
        for n in range(2):
            pixels = stage.transform(x)[n].flatten(1).T
            claims = [torch.exp(p - p.logsumexp(0)) for p in logits[n].flatten(1).T]
            updated = []
            for k in range(5):
                gathered = sum(claim[k] * pixel for claim, pixel in zip(claims, pixels, strict=True))
                halves = zip(gathered.split(4), kernels[n, k].split(4), strict=True)
                updated.append(torch.cat([stage.update(*half) for half in halves]))
            rows = torch.stack(updated)
            q, k, v = (part.unflatten(1, (2, 4)) for part in stage.attention.qkv(rows).split(8, dim=1))
            heads = [(q[:, h] @ k[:, h].T / 2).softmax(1) @ v[:, h] for h in range(2)]
            rows = stage.attention_norm(rows + stage.attention.proj(torch.cat(heads, dim=1)))
            rows = stage.feed_forward_norm(rows + stage.feed_forward(rows))
            torch.testing.assert_close(changed[n], rows)
            applied = stage.mask(stage.mask_layers(rows))
            torch.testing.assert_close(found[n].flatten(1), torch.stack([pixels @ kernel for kernel in applied]))


def test_the_first_kernels_are_the_rows_of_the_hosts_classifier_and_the_first_logits_the_hosts():
    net = create_model("knet", **TINY).eval()
    given: list[Any] = []
    net.stages[0].register_forward_pre_hook(lambda _, args: given.extend(args))
    image = torch.randn(2, 3, 33, 47)
    with torch.no_grad():
        net(image)
        assert torch.equal(given[2], net.host(image).logits)
    assert all(torch.equal(kernels, net.host.classifier.weight[:, :, 0, 0]) for kernels in given[1])


def test_all_logits_are_given_while_training_and_those_of_the_last_stage_only_in_eval_mode():
    net, image = create_model("knet", **TINY), torch.randn(2, 3, 33, 47)
    out = net.train()(image)
    assert list(out.aux) == ["host", "stage1", "fcn"] == list(net.aux_names)
    assert {tuple(logits.shape) for logits in (out.logits, out.aux["host"], out.aux["stage1"])} == {(2, 5, 5, 6)}
    assert net.eval()(image).aux == {}


def test_the_fast_form_applies_the_convolution_to_kernels_in_place_of_the_map():
    net = create_model("knet", **TINY).eval().double()
    fast = fast_form(net, [InputSpec(channels=3)])
    assert all(isinstance(stage, FoldedStage) for stage in fast.stages)
    ran: list[str] = []
    fast.stages[0].stage.transform.register_forward_hook(lambda *_: ran.append("transform"))
    image = torch.randn(1, 3, 65, 97).double()
    with torch.no_grad():
        torch.testing.assert_close(fast(image).logits, net(image).logits)
    assert ran == []


def test_the_last_logits_are_float32_whatever_the_precision():
    net = create_model("knet", **TINY).eval()
    for form in (net, fast_form(net, [InputSpec(channels=3)], "bf16")):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert form(torch.randn(1, 3, 64, 64)).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"host": "unet"}, "host: unet has no map before a 1x1 classifier"),
        ({"host": {"name": "ocrnet", "encoder": "hrnet_w8_small"}}, "host: ocrnet has no map before a 1x1 classifier"),
        ({"host": {"name": "fcn_8s", "encoder": "resnet18_w8", "channels": 8}}, "host: fcn_skips has no map"),
        ({"host": {"name": "pspnet_r34_smp", "channels": 8}}, "host: pspnet has no map before a 1x1 classifier"),
        ({"host": None}, "host: knet needs a network to wrap, for example {name: fcn}"),
        ({"part_channels": 3}, "part_channels: got 3, expected a divisor of the host's 8"),
        ({"heads": 3}, "heads: got 3, expected a divisor of the host's 8"),
        ({"stages": 0}, "stages: got 0, expected 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_told(fields, told):
    with shapes_only(), pytest.raises(UsageError) as caught:
        create_model("knet", **{**TINY, **fields})
    assert told in str(caught.value)


def test_keys_of_a_host_lie_over_those_of_a_variant_unless_they_name_another():
    _, config = make_config("knet_fcn_r50", {"num_classes": 3, "host": {"aux": True}})
    assert (config.host.name, config.host.config.encoder.name, config.host.config.aux) == ("fcn", "resnet50c", True)
    _, config = make_config("knet_fcn_r50", {"num_classes": 3, "host": {"name": "pspnet", "encoder": "resnet18c"}})
    assert (config.host.name, config.host.config.encoder.name) == ("pspnet", "resnet18c")


def test_it_starts_from_a_finished_host_of_another_class_count(tmp_path):
    host = create_model("fcn", num_classes=7, encoder="resnet18_w8", channels=8, aux=True)
    sa.save_pretrained(host, tmp_path / "host", classes="abcdefg")
    net = create_model("knet", **TINY)
    report = start_from(net, tmp_path / "host")
    assert {name for name in report.replaced if "classifier" not in name} == set()
    assert torch.equal(net.host.encoder.conv1.weight, host.encoder.conv1.weight)


def test_with_a_frozen_host_losses_see_the_stages_and_the_hosts_classifier_but_not_its_auxiliary_head():
    net = create_model("knet", **TINY)
    config = Config.load("knet_ade20k")
    frozen = config.model_copy(update={"train": config.train.model_copy(update={"freeze_host": True})})
    assert [problem.key for problem in aux_problems(config, net)] == ["losses.3.on"]  # two stages, the recipe has three
    assert [problem.key for problem in aux_problems(frozen, net)] == ["losses.3.on", "losses.4.on"]


# ---- files of MMSegmentation
def file_of(settings: dict[str, Any] | None = None, **fields: Any) -> ForeignWeights:
    """Return the file of a small network, with settings beside it."""
    host = {"name": "fcn", "encoder": "resnet18c", "channels": 16}
    architecture, config = make_config("knet", {**TINY, "host": host, **fields})
    theirs = rename_to_theirs(IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))
    return ForeignWeights(tensors=theirs, settings={"model": {"decode_head": settings}} if settings else {})


def stages(**settings: Any) -> dict[str, Any]:
    """Return settings of a head with two stages alike."""
    return {"kernel_update_head": [settings, settings]}


def test_a_file_tells_its_host_and_its_stages():
    settings = {**stages(num_heads=2), "kernel_generate_head": {"align_corners": True}}
    found = IMPORTER.recognise(file_of(settings))
    assert found is not None
    host = found["host"]
    assert (host["name"], host["channels"], host["align_corners"], host["aux"]) == ("fcn", 16, True, False)
    assert {key: found[key] for key in found if key != "host"} == {
        **{key: value for key, value in TINY.items() if key != "host"},
        "in_channels": 3,
        "kernel_layers": 1,
    }


def test_what_a_file_does_not_tell_is_noted_under_its_own_name():
    file = file_of()
    IMPORTER.recognise(file)
    assert any(note.startswith("model.decode_head.kernel_generate_head.align_corners = False") for note in file.notes)
    assert any(note.startswith("model.decode_head.kernel_update_head.0.num_heads = 8") for note in file.notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (stages(conv_kernel_size=3), r"kernel_update_head.0.conv_kernel_size = 3: only 1 is supported"),
        (stages(with_ffn=False), r"with_ffn = False: only True is supported"),
        (stages(kernel_updator_cfg={"gate_norm_act": True}), r"gate_norm_act = True: only False is supported"),
        ({"kernel_update_head": [{"num_heads": 2}, {"num_heads": 4}]}, r"stages with \[2, 4\] attention heads"),
    ],
)
def test_stages_that_ours_cannot_be_are_refused(settings, message):
    with pytest.raises(WeightsError, match=message):
        IMPORTER.recognise(file_of(settings))


def test_kernels_changed_through_another_width_and_strange_hosts_are_refused():
    file = file_of()
    name = "decode_head.kernel_update_head.0.kernel_update_conv.fc_layer.weight"
    with pytest.raises(WeightsError, match="kernels of 4 channels changed through 8 to 4; only one count"):
        IMPORTER.recognise(replace(file, tensors={**file.tensors, name: torch.empty(4, 8)}))
    strange = {"decode_head.kernel_generate_head.strange.weight": torch.empty(1)}
    with pytest.raises(WeightsError, match="a K-Net around a head of the parts conv_cat, conv_seg, convs, strange"):
        IMPORTER.recognise(replace(file, tensors={**file.tensors, **strange}))
    assert IMPORTER.recognise(replace(file, tensors={"decode_head.conv_seg.weight": torch.empty(1)})) is None


def test_a_host_that_mmsegmentation_has_no_file_of_is_not_written():
    with pytest.raises(WeightsError, match="a K-Net around gcnet: it can be written around deeplabv3, fcn, pspnet"):
        file_of(host={"name": "gcnet", "encoder": "resnet18c", "channels": 16})


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path):
    net = create_model("knet", **{**TINY, "host": {"name": "fcn", "encoder": "resnet18c", "channels": 8}})
    theirs = rename_to_theirs(IMPORTER, net.config, net.state_dict())
    name = "decode_head.kernel_update_head.1.fc_mask.bias"
    torch.save({"state_dict": {key: t for key, t in theirs.items() if key != name}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"stages\.1\.mask\.bias"):
        sa.convert(tmp_path / "a.pth", out=tmp_path / "a")
    torch.save({"state_dict": {**theirs, name.replace("bias", "more"): torch.zeros(1)}}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"stages\.1\.mask\.more"):
        sa.convert(tmp_path / "b.pth", out=tmp_path / "b")
    assert not (tmp_path / "a").exists()
