"""What every architecture promises, checked on tiny variants of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from segatlas.build.network import build_network, make_config
from segatlas.inference.fast_form import fast_form
from segatlas.models import ARCHITECTURES
from segatlas.models.architecture import Architecture
from segatlas.models.deeplabv3 import SMP as DEEPLABV3_SMP
from segatlas.models.deeplabv3plus import SMP as DEEPLABV3PLUS_SMP
from segatlas.models.pspnet import SMP as PSPNET_SMP
from segatlas.models.reading import load_architecture
from segatlas.models.upernet import SMP as UPERNET_SMP
from segatlas.structures import Inputs, InputSpec, maps_of, noise_inputs
from segatlas.testing import check_model

K = 5
# Besides each architecture's own tiny variant: forms whose graphs differ: (architecture, fields).
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, dict(load_architecture(name).tiny)) for name in ARCHITECTURES},
    "unet-aux": ("unet", {"width": 4, "aux": True, "dropout": 0.1}),
    "unet-resnet18": ("unet", {"encoder": "resnet18", "decoder_channels": (16, 8, 4, 4, 4)}),
    "unet-resnet18-short": ("unet", {"encoder": "resnet18", "decoder_channels": (16, 8, 8), "aux": True}),
    "unet-mobilenet_v2": ("unet", {"encoder": "mobilenet_v2", "decoder_channels": (8, 8, 8, 4, 4)}),
    "unet-mit_b0": ("unet", {"encoder": "mit_b0", "decoder_channels": (8, 8, 8, 4, 4)}),
    "deeplabv3-smp": ("deeplabv3", {**DEEPLABV3_SMP, "encoder": "resnet18_w8", "channels": 8}),
    "deeplabv3plus-smp": ("deeplabv3plus", {**DEEPLABV3PLUS_SMP, "encoder": "resnet18_w8", "channels": 8}),
    "pspnet-smp": ("pspnet", {**PSPNET_SMP, "encoder": "resnet18_w8", "channels": 8, "inner_upsampling": 8}),
    "upernet-smp": ("upernet", {**UPERNET_SMP, "encoder": "resnet18_w8", "channels": 8}),
    "fpn-cat": ("fpn", {**load_architecture("fpn").tiny, "merge": "cat", "inner_upsampling": 1, "aux": False}),
    "unetplusplus-scse": (
        "unetplusplus",
        {
            "encoder": {"name": "resnet18_w8", "levels": 3},
            "decoder_channels": (48, 48, 48),  # three channels within a gate: one alone may be dead at the start
            "attention": "scse",
            "aux": False,
        },
    ),
    "pspnet-mobilenet_v2_320": ("pspnet", {"encoder": "mobilenet_v2_320", "channels": 8}),
    "segformer-smp": ("segformer", {"decoder_channels": 8, "logits_align_corners": True, "presence_classes": 3}),
    "segformer-resnet18": ("segformer", {"encoder": "resnet18", "decoder_channels": 8, "aux": True}),
    "fcn-hrnet": (
        "fcn",
        {**load_architecture("fcn").variants["fcn_hr18"], "encoder": "hrnet_w8_small", "channels": 16},
    ),
    "ocrnet-resnet18": (
        "ocrnet",
        {"encoder": "resnet18_w8", "output_stride": 8, "levels": 1, "channels": 16, "key_channels": 8, "dropout": 0.1},
    ),
    **{
        f"nonlocal_net-{mode}": ("nonlocal_net", {"encoder": "resnet18_w8", "channels": 8, "mode": mode})
        for mode in ("gaussian", "dot_product", "concatenation")
    },
    "fc_siam-conc": ("fc_siam", {"width": 4, "fusion": "both"}),
    "fc_siam-early": ("fc_siam", {"width": 4, "fusion": "early"}),
    "segmenter-linear": ("segmenter", {"encoder": {"name": "vit_w32", "depth": 1}, "layers": 0}),
    "setr-naive": (
        "setr",
        {"encoder": {"name": "vit_w32", "depth": 1, "final_norm": False}, "blocks": (0,), "channels": 8, "aux": False},
    ),
    "setr-mla": (
        "setr",
        {**load_architecture("setr").tiny, "decoder": "mla", "branch_channels": 4, "scale": 4, "aux": True},
    ),
    "dpt-smp": ("dpt", {**load_architecture("dpt").tiny, "coarsest_unit": True, "doubled_logits": True, "aux": False}),
    "espnet-c": ("espnet", {"widths": (8, 12, 16), "blocks": (1, 1), "decoder": False}),
    "espnet-image_in_skip": (
        "espnet",
        {"widths": (8, 12, 16), "blocks": (0, 1), "channels": 7, "image_in_skip": True},
    ),
    "temperature-fc_siam": ("temperature", {"host": {"name": "fc_siam", "width": 4}}),
    "linear-patch14": (
        "linear",
        {"encoder": "eva02_tiny_patch14_224", "encoder_options": {"depth": 1}},
    ),
    "upernet-vit": (
        "upernet",
        {"encoder": {"name": "vit_w32", "image_size": (64, 64)}, "channels": 8, "neck": "resize", "aux_level": 1},
    ),
    "upernet-mae": (
        "upernet",
        {
            "encoder": {"name": "vit_w32", "image_size": (64, 64), "relative_positions": True, "layer_scale": 1.0},
            "channels": 8,
            "neck": "deconvolve",
            "aux": True,
        },
    ),
    "upernet-beit": (
        "upernet",
        {
            "encoder": {
                "name": "vit_w32",
                "image_size": (64, 64),
                "absolute_positions": False,
                "relative_positions": True,
                "key_bias": False,
                "layer_scale": 0.1,
                "final_norm": False,
            },
            "channels": 8,
            "neck": "deconvolve",
            "aux": True,
        },
    ),
    "upernet-swin": ("upernet", {"encoder": "swin_w8", "channels": 8, "aux": True, "aux_channels": 8}),
    "semask_fpn-whole": (
        "semask_fpn",
        {"encoder": {"name": "swin_w8", "drop_path": 0.0}, "channels": 8, "windowed": False, "aux": True},
    ),
    "semantic_fpn-twins": (
        "semantic_fpn",
        {"encoder": "twins_pcpvt_w8", "neck_channels": 8, "channels": 8, "aux": True, "aux_channels": 8},
    ),
    "upernet-twins": ("upernet", {"encoder": "twins_svt_w8", "channels": 8, "aux": True, "aux_channels": 8}),
    "upernet-convnext": (
        "upernet",
        {"encoder": "convnext_atto", "norm_maps": True, "channels": 8, "aux": True, "aux_channels": 8},
    ),
    "gcnet-mul": ("gcnet", {"encoder": "resnet18_w8", "channels": 8, "channel_mul": True}),
    "upernet-vit_adapter": (
        "upernet",
        {"encoder": "vit_adapter_w32", "channels": 8, "aux": True, "aux_channels": 8},
    ),
    **{
        f"multisource-{case}": ("multisource", {**load_architecture("multisource").tiny, **fields})
        for case, fields in {
            "concatenate": {"fusion": "concatenate"},
            "image_only": {"fusion": "image_only", "stride": 2, "aux": False},
            "source_only": {"fusion": "source_only"},
            "unaligned": {"align": False, "stride": 4},
            "joined": {"coattention": (), "spade": False, "spade_norm": "instance"},
            "maps": {"label_sources": (), "image_sources": ("before",), "map_sources": ("pose",), "map_channels": (2,)},
            "mit_b0": {"encoder": "mit_b0", "equivariance": False},
        }.items()
    },
    "kfvton_seg-plain": ("kfvton_seg", {"width": 4, "plain_head": True}),
    "psanet-collect": (
        "psanet",
        {"encoder": "resnet18_w8", "channels": 8, "mask_size": (4, 5), "distribute": False, "softmax": False},
    ),
}
# Architectures whose logits are more than classifier(decode(features)); each says in its own test what they are.
REFINED: set[str] = {
    "dpt",
    "fc_siam",
    "fcn_skips",
    "icnet",
    "kfvton_seg",
    "linear",
    "lmffnet",
    "lraspp",
    "multisource",
    "pointrend",
    "segmenter",
    "semask_fpn",
    "setr",
}


MAGNIFIED = {"unetplusplus-scse"}
"""Cases whose random weights magnify rounding, to 3e-5 of the largest logit: predicted in the plain form."""

CHEAPER = {"ocrnet": "ocrnet-resnet18"}
"""Architecture -> the case for every run where its own tiny variant takes several times as long; that one is slow."""

EXPORTED = ("linear", "center")
"""Architectures whose program is exported in every run, which takes seconds; that of the others is a slow test."""


BY_CONTENT = {name for name, entry in ARCHITECTURES.items() if entry.output == "DetectedMasks"}
"""Architectures that no program is exported of: how many boxes they keep follows from the image."""


def marked(cases: Iterable[str], names: Iterable[str] = ARCHITECTURES) -> list[Any]:
    """Return cases for a parameter: one of each of `names` is for every run, the others are slow tests."""
    shown = {CHEAPER.get(name, name) for name in names}
    return [pytest.param(case, marks=[] if case in shown else [pytest.mark.slow]) for case in cases]


each_case = pytest.mark.parametrize("case", marked(CASES))
each_semantic_case = pytest.mark.parametrize(
    "case", marked(case for case, (name, _) in CASES.items() if ARCHITECTURES[name].output == "SemanticLogits")
)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def config_of(case: str, **fields: Any) -> tuple[Architecture, Any]:
    name, own = CASES[case]
    return make_config(name, {"num_classes": K, **own, **fields})


def make(case: str, **fields: Any) -> torch.nn.Module:
    return build_network(*config_of(case, **fields))


def takes(case: str, channels: int = 3) -> tuple[InputSpec, ...]:
    architecture, config = config_of(case, in_channels=channels)
    return architecture.inputs(config)


def noise(case: str, count: int, *size: int, channels: int = 3) -> torch.Tensor | Inputs:
    """Return an image of noise, with the sources that the network needs."""
    image = torch.randn(count, channels, *size)
    further = noise_inputs(takes(case, channels), size, count=count, seed=1)
    return further._replace(image=image).given()


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


SKIPPED = {"upernet-convnext": ("stride",)}
"""Rules that a published form breaks: ConvNeXt's patches leave a remainder of the image out, and its maps are stretched
over it."""


@each_case
def test_a_network_keeps_the_rules_of_all(case):
    name, fields = CASES[case]
    check_model(load_architecture(name), fields, skip=SKIPPED.get(case, ()))


@each_case
def test_the_fast_form_gives_the_numbers_of_the_network(case):
    name, fields = CASES[case]
    check_model(load_architecture(name), fields, only=("fast_form_same",))


@each_semantic_case
def test_what_predicts_is_taught_by_losses_on_the_output_or_the_table_says_by_which(case):
    net = make(case).train()
    inputs = noise(case, 2, 64, 64)
    net(inputs).logits.square().mean().backward()
    others = [tensor for tensor in net.parameters() if tensor.grad is None]
    net.eval()
    with torch.no_grad():
        before = net(inputs).logits
        for tensor in others:
            tensor.add_(torch.randn_like(tensor))
        after = net(inputs).logits
    assert torch.equal(before, after) != bool(ARCHITECTURES[CASES[case][0]].needs.taught_by)


PROGRAMS = [case for case, (name, _) in CASES.items() if name not in BY_CONTENT]


@pytest.mark.parametrize("case", marked(PROGRAMS, EXPORTED))
def test_the_exported_program_gives_the_numbers_of_the_network(case):
    name, fields = CASES[case]
    check_model(load_architecture(name), fields, only=("exports",))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case in EXPORTED else [pytest.mark.slow]) for case in CASES],
)
def test_an_exported_program_takes_any_batch_height_and_width(case):
    name, fields = CASES[case]
    check_model(load_architecture(name), fields, only=("exports_dynamic",))


@each_semantic_case
def test_training_gives_the_auxiliary_logits_that_the_config_asks_for(case):
    out = make(case).train()(noise(case, 2, 65, 129))
    if "aux" in CASES[case][1]:
        assert bool(out.aux) == CASES[case][1]["aux"]
    if "fcn" in out.aux:
        assert out.aux["fcn"].shape[:2] == (2, K)


@each_semantic_case
def test_the_fast_form_is_another_network_unless_order_is_kept_and_finite_in_bf16(case):
    net, x = make(case).eval(), noise(case, 1, 65, 129)
    fast, low = fast_form(net, takes(case)), fast_form(net, takes(case), "bf16")
    keeps_order = any(getattr(module, "keeps_order", False) for module in net.modules())
    assert (fast is net) == (keeps_order or case in MAGNIFIED)
    assert low is not net
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = low(x).logits
    assert rounded.isfinite().all()
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize("case", ["unet", "segformer", "pointrend", "fc_siam"])
def test_a_program_exported_for_inputs_equals_the_network(case):
    net, x = make(case).eval(), noise(case, 1, 33, 47)
    whole = x if isinstance(x, Inputs) else Inputs(x)
    program = torch.export.export(net, (whole,)).module()
    with torch.no_grad():
        alone, exported = net(x), program(whole)
    for name, found in maps_of(alone).items():
        assert relative(getattr(exported, name), found) <= 1e-5


@pytest.mark.parametrize(
    "case",
    marked(
        case
        for case, (name, _) in CASES.items()
        if ARCHITECTURES[name].output == "SemanticLogits"
        and ARCHITECTURES[name].needs.host is None
        and name not in REFINED
        and CASES[case][1].get("inner_upsampling", 1) == 1
    ),
)
def test_encoder_decode_and_classifier_make_the_logits(case):
    net, x = make(case).eval(), noise(case, 1, 64, 96)
    with torch.no_grad():
        features = net.encoder(x)
        logits = net.classifier(net.decode(features))
        assert torch.equal(logits, net(x).logits)
    assert tuple(f.shape[1] for f in features) == net.encoder.channels
    assert tuple((64 // f.shape[2]) for f in features) == net.encoder.strides


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_unknown_config_key_is_refused(name):
    config = load_architecture(name).config
    checked = checked_dataclass(config, config=ConfigDict(extra="forbid"), frozen=True, kw_only=True)
    with pytest.raises(ValidationError, match="no_such_key"):
        checked(num_classes=K, no_such_key=1)
    assert checked(num_classes=K).num_classes == K
