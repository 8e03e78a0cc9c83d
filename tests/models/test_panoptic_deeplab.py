"""Panoptic-DeepLab's decoders and heads against the authors' numbers; sizes and windows of its image pooling."""

from __future__ import annotations

import re

import pytest
import torch
from fakes.golden import digest, filled

from segatlas.build.network import build_network, make_config
from segatlas.errors import UsageError
from segatlas.models.panoptic_deeplab import ARCHITECTURE

THEIRS = {
    "semantic": {
        "shape": [1, 19, 32, 48],
        "mean": 0.0274014090832,
        "std": 0.10380984607,
        "absmax": 0.278116708877,
        "at": {
            "7919": 0.148703107047,
            "15838": -0.056579572479,
            "23757": 0.114702892029,
            "2492": 0.165943109525,
            "10411": 0.078154578456,
            "18330": -0.0777476758875,
            "26249": -0.0657485934319,
            "4984": 0.0199976517173,
        },
    },
    "center": {
        "shape": [1, 1, 32, 48],
        "mean": 0.088666229644,
        "std": 0.0607180724405,
        "absmax": 0.291241723183,
        "at": {
            "239": -0.0400527168138,
            "478": 0.0263811259211,
            "717": -0.0084408321973,
            "956": 0.0620854283195,
            "1195": 0.0411775503083,
            "1434": 0.117349179956,
            "137": 0.166173060397,
            "376": 0.0253795528005,
        },
    },
    "offset": {
        "shape": [1, 2, 32, 48],
        "mean": -0.0432257837231,
        "std": 0.120488133508,
        "absmax": 0.298983048969,
        "at": {
            "1775": 0.077816759047,
            "478": -0.0693087512867,
            "2253": 0.0835696243242,
            "956": -0.109908741763,
            "2731": 0.0539089846974,
            "1434": -0.147210791216,
            "137": -0.142394915672,
            "1912": 0.0594138161928,
        },
    },
}
"""Digests of what the authors' decoder gives on an encoder's maps by the rule of golden digests."""

NAMES = (
    (r"(\w+)_decoder\.aspp\.branches\.(\d)\.(conv|bn)", r"\1_decoder.aspp.convs.\2.\3"),
    (r"(\w+)_decoder\.aspp\.pool\.0", r"\1_decoder.aspp.convs.4.aspp_pooling.1"),
    (r"(\w+)_decoder\.aspp\.fuse", r"\1_decoder.aspp.project"),
    (r"(\w+)_decoder\.low", r"\1_decoder.project"),
    (r"(\w+)_decoder\.join\.(\d)", r"\1_decoder.fuse.\2.0"),
    (r"semantic_head\.", r"semantic_head.classifier.semantic.0.0."),
    (r"classifier\.", r"semantic_head.classifier.semantic.1."),
    (r"(center|offset)s\.first", r"instance_head.classifier.\1.0.0"),
    (r"(center|offset)s\.last", r"instance_head.classifier.\1.1"),
)
"""Our names -> theirs."""

WITHIN = (("depthwise_bn", "0.1"), ("depthwise", "0.0"), ("pointwise", "1"))


def their_name(name: str) -> str:
    """Return what the authors call a tensor."""
    for ours, theirs in NAMES:
        name, done = re.subn(f"^{ours}", theirs, name)
        if done:
            break
    separable = ".fuse." in name or "head.classifier" in name
    for ours, theirs in WITHIN:
        name = name.replace(f".{ours}.", f".{theirs}.")
    if separable:
        return name.replace(".bn.", ".2.")
    return name.replace(".conv.", ".0.").replace(".bn.", ".1.")


def maps() -> list[torch.Tensor]:
    """Return an encoder's maps of stem and layers; phase k is that of the k-th from the last."""
    found = []
    for phase, shape in enumerate(((2048, 4, 6), (1024, 8, 12), (512, 16, 24), (256, 32, 48))):
        i = torch.arange(shape[0] * shape[1] * shape[2], dtype=torch.float64)
        found.append((torch.sin(0.013 * i + phase) + 0.5 * torch.sin(0.37 * i)).reshape(1, *shape))
    return [torch.zeros(0), *found[::-1]]


@torch.no_grad()
def test_decoders_and_heads_give_the_authors_numbers():
    net = build_network(*make_config("panoptic_deeplab_r50", {"num_classes": 19})).double().eval()
    own = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("encoder.")}
    assert len(own) == 212
    assert sum(p.numel() for name, p in net.named_parameters() if name in own) == 31_800_838
    state = {
        name: filled(their_name(name), tuple(tensor.shape)) if tensor.is_floating_point() else tensor
        for name, tensor in own.items()
    }
    net.load_state_dict(state, strict=False)
    features = maps()
    instances = net.instance_decoder([features[level] for level in net.levels])
    given = {
        "semantic": net.classifier(net.decode(features)),
        "center": net.centers(instances),
        "offset": net.offsets(instances),
    }
    for name, expected in THEIRS.items():
        found = digest(given[name])
        assert found["shape"] == expected["shape"]
        values = [found[key] for key in ("mean", "std", "absmax")] + list(found["at"].values())
        wanted = [expected[key] for key in ("mean", "std", "absmax")] + list(expected["at"].values())
        assert values == pytest.approx(wanted, abs=1e-6 * expected["absmax"]), name


def network(**fields):
    torch.manual_seed(0)
    return build_network(*make_config("panoptic_deeplab", {"num_classes": 3, **ARCHITECTURE.tiny, **fields})).eval()


@torch.no_grad()
def test_windows_that_fit_are_averaged_and_else_the_whole_image():
    plain, windowed = network(), network(pool_window=(64, 64))
    windowed.load_state_dict(plain.state_dict())
    draw = torch.Generator().manual_seed(1)
    for size, same in (((64, 64), True), ((64, 128), False), ((70, 128), True)):
        image = torch.randn(1, 3, *size, generator=draw)
        one, other = plain(image).semantic, windowed(image).semantic
        assert torch.allclose(one, other, atol=1e-6) == same, size


@torch.no_grad()
def test_outputs_cover_the_image_and_offsets_are_in_its_pixels():
    net = network()
    image = torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(2))
    output = net(image)
    assert output.canvas == (65, 97)
    assert output.semantic.shape == (2, 3, 17, 25)
    instances = net.instance_decoder([net.encoder(image)[level] for level in net.levels])
    assert torch.equal(output.offsets, 4 * net.offsets(instances))


def test_an_encoder_without_the_maps_is_refused():
    with pytest.raises(UsageError, match=r"low_channels: 3 finer maps are those at strides \[16, 8, 4\]"):
        network(output_stride=8)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"center_window": 4}, "center_window: got 4, expected an odd number"),
        ({"low_channels": (4,)}, r"low_channels and instance_low_channels: got \(4,\) and \(4, 4, 4\)"),
        ({"stuff_classes": (7,)}, r"stuff_classes: got \(7,\), expected some of 0 to 2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, text):
    with pytest.raises(UsageError, match=text):
        network(**fields)
