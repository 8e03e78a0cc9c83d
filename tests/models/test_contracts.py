"""What every architecture promises, checked on tiny variants of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from safetensors.torch import load, save

from segatlas.build.network import build_network, make_config
from segatlas.inference.fast_form import fast_form
from segatlas.models import ARCHITECTURES
from segatlas.models.architecture import Architecture
from segatlas.models.deeplabv3plus import SMP as DEEPLABV3PLUS_SMP
from segatlas.models.reading import load_architecture
from segatlas.structures import Inputs, InputSpec, PointLogits, SemanticLogits, changed, maps_of, noise_inputs

K = 5
# Besides each architecture's own tiny variant: forms whose graphs differ: (architecture, fields).
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, dict(load_architecture(name).tiny)) for name in ARCHITECTURES},
    "unet-aux": ("unet", {"width": 4, "aux": True, "dropout": 0.1}),
    "unet-resnet18": ("unet", {"encoder": "resnet18", "decoder_channels": (16, 8, 4, 4, 4)}),
    "unet-resnet18-short": ("unet", {"encoder": "resnet18", "decoder_channels": (16, 8, 8), "aux": True}),
    "unet-mobilenet_v2": ("unet", {"encoder": "mobilenet_v2", "decoder_channels": (8, 8, 8, 4, 4)}),
    "unet-mit_b0": ("unet", {"encoder": "mit_b0", "decoder_channels": (8, 8, 8, 4, 4)}),
    "deeplabv3plus-smp": ("deeplabv3plus", {**DEEPLABV3PLUS_SMP, "encoder": "resnet18_w8", "channels": 8}),
    "pspnet-mobilenet_v2_320": ("pspnet", {"encoder": "mobilenet_v2_320", "channels": 8}),
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
    "temperature-fc_siam": ("temperature", {"host": {"name": "fc_siam", "width": 4}}),
    "linear-patch14": (
        "linear",
        {"encoder": "eva02_tiny_patch14_224", "encoder_options": {"depth": 1}},
    ),
    "gcnet-mul": ("gcnet", {"encoder": "resnet18_w8", "channels": 8, "channel_mul": True}),
    "psanet-collect": (
        "psanet",
        {"encoder": "resnet18_w8", "channels": 8, "mask_size": (4, 5), "distribute": False, "softmax": False},
    ),
}
STRIDES = (1, 2, 4, 8, 14, 16, 32)
# Architectures whose logits are more than classifier(decode(features)); each says in its own test what they are.
REFINED: set[str] = {
    "fc_siam",
    "linear",
    "lraspp",
    "pointrend",
    "temperature",
}
each_case = pytest.mark.parametrize("case", CASES)
each_semantic_case = pytest.mark.parametrize(
    "case", [case for case, (name, _) in CASES.items() if ARCHITECTURES[name].output == "SemanticLogits"]
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


def part(inputs: torch.Tensor | Inputs, *samples: int) -> torch.Tensor | Inputs:
    return changed(inputs, lambda maps: maps[list(samples)])


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def shapes_at_strides(canvas: tuple[int, int]) -> list[tuple[int, int]]:
    return [(-(-canvas[0] // stride), -(-canvas[1] // stride)) for stride in STRIDES]


@each_semantic_case
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (65, 129)])
def test_any_image_size_gives_logits_over_a_canvas_that_holds_the_image(case, size):
    net = make(case).eval()
    with torch.no_grad():
        out = net(noise(case, 1, *size))
    assert isinstance(out, SemanticLogits)
    assert all(0 <= c - s < 32 for c, s in zip(out.canvas, size, strict=True))
    assert out.logits.shape[:2] == (1, K)
    assert out.logits.shape[2:] in shapes_at_strides(out.canvas)
    assert out.aux == {}
    assert out.logits.isfinite().all()


@each_case
def test_every_parameter_gets_a_finite_gradient_and_every_weight_a_nonzero_one(case):
    net = make(case).train()
    for parameter in net.parameters():
        if not parameter.any():  # what begins at zero, so that its block begins as nothing, stops gradients there
            torch.nn.init.normal_(parameter, std=0.1)
    out = net(noise(case, 2, 65, 129))
    auxiliary = [x.logits if isinstance(x, PointLogits) else x for x in out.aux.values()]
    sum(x.square().mean() for x in (*maps_of(out).values(), *auxiliary)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.ndim == 1 or parameter.grad.any(), name


@each_semantic_case
def test_training_gives_the_auxiliary_logits_that_the_config_asks_for(case):
    out = make(case).train()(noise(case, 2, 65, 129))
    if "aux" in CASES[case][1]:
        assert bool(out.aux) == CASES[case][1]["aux"]
    if "fcn" in out.aux:
        assert out.aux["fcn"].shape[:2] == (2, K)


@each_case
def test_one_image_trains(case):
    out = make(case).train()(noise(case, 1, 65, 129))
    assert all(x.isfinite().all() for x in maps_of(out).values())


@each_case
def test_eval_is_deterministic_and_an_image_does_not_depend_on_its_batch(case):
    net, x = make(case).eval(), noise(case, 2, 33, 47)
    with torch.no_grad():
        both, again, first, second = (maps_of(net(given)) for given in (x, x, part(x, 0), part(x, 1)))
    for name, found in both.items():
        assert torch.equal(found, again[name])
        assert relative(torch.cat([first[name], second[name]]), found) <= 1e-5


@each_case
def test_bf16_autocast_is_finite(case):
    net = make(case).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(x.isfinite().all() for x in maps_of(net(noise(case, 1, 33, 47))).values())


@each_semantic_case
def test_the_fast_form_gives_the_same_numbers_in_fp32_and_finite_ones_in_bf16(case):
    net, x = make(case).eval(), noise(case, 1, 65, 129)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.25)
    fast, low = fast_form(net, takes(case)), fast_form(net, takes(case), "bf16")
    keeps_order = any(getattr(module, "keeps_order", False) for module in net.modules())
    assert (fast is net) == keeps_order
    assert low is not net
    with torch.inference_mode():
        plain, quick = net(x).logits, fast(x).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = low(x).logits
        exact, doubled = net.double(), changed(x, torch.Tensor.double)
        truth = exact(doubled).logits
        assert relative(fast_form(exact, takes(case))(doubled).logits, truth) <= 1e-10
    # In float32 it may round as much as 1e-5, or, in a network that magnifies rounding, twice as much as the plain one.
    assert relative(quick.double(), truth) <= max(1e-5, 2 * relative(plain.double(), truth))
    assert rounded.isfinite().all()
    assert rounded.dtype == torch.float32


@each_case
def test_saved_weights_give_the_same_numbers_in_another_network(case):
    net, other, x = make(case), make(case), noise(case, 1, 33, 47)
    other.load_state_dict(load(save(net.state_dict())), strict=True)
    with torch.no_grad():
        ours, theirs = maps_of(net.eval()(x)), maps_of(other.eval()(x))
    assert all(torch.equal(found, theirs[name]) for name, found in ours.items())


@each_case
def test_inputs_give_what_the_image_alone_gives(case):
    net, x = make(case).eval(), noise(case, 1, 33, 47)
    whole = x if isinstance(x, Inputs) else Inputs(x)
    program = (
        torch.export.export(net, (whole,)).module() if case in ("unet", "segformer", "pointrend", "fc_siam") else net
    )
    with torch.no_grad():
        alone, given, exported = net(x), net(whole), program(whole)
    assert given.canvas == alone.canvas
    for name, found in maps_of(alone).items():
        assert torch.equal(maps_of(given)[name], found)
        assert relative(getattr(exported, name), found) <= 1e-5


@each_case
def test_the_exported_program_equals_the_network(case):
    net, x = make(case).eval(), noise(case, 1, 33, 47)
    program = torch.export.export(net, (x,)).module()
    with torch.no_grad():
        ours, exported = net(x), program(x)
    assert isinstance(ours, load_architecture(CASES[case][0]).output)
    for name, found in maps_of(ours).items():
        assert relative(getattr(exported, name), found) <= 1e-5
    assert tuple(exported.canvas) == tuple(ours.canvas)
    assert tuple(exported.resample) == tuple(ours.resample)


@each_semantic_case
@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 2), (5, 19)])
def test_any_number_of_channels_and_classes(case, in_channels, num_classes):
    net = make(case, in_channels=in_channels, num_classes=num_classes).eval()
    with torch.no_grad():
        assert net(noise(case, 1, 33, 47, channels=in_channels)).logits.shape[1] == num_classes


@pytest.mark.parametrize(
    "case",
    [
        case
        for case, (name, _) in CASES.items()
        if name not in REFINED and ARCHITECTURES[name].output == "SemanticLogits"
    ],
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
