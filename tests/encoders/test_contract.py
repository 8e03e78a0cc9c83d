from __future__ import annotations

import pytest
import torch

from segatlas.build.network import shapes_only
from segatlas.encoders import ENCODERS
from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError

FAMILIES = [
    "resnet18",
    "resnet50d",
    "mobilenet_v2",
    "mit_b0",
    "hrnet_w8_small",
    "timm/resnet10t",
    "timm/vit_tiny_patch16_224",
]
ONE_OF_EACH = [
    "resnet18",
    "resnet18c",
    "resnet18d",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mit_b0",
    "hrnet_w8_small",
    "efficientnet-b0",
    "densenet121",
    "vgg11_bn",
    "twins_svt_w8",
]

INPUTS = ("cls_token", "reg_token", "pos_embed", "level_embed")
"""What transformers put beside the patches of an image: parameters of no module, as the image is."""

NAMED_BY_KIND = ("segatlas.encoders.poolformer", "segatlas.encoders.swin", "segatlas.encoders.twins")
"""Encoders whose published names begin with what a part is, not with the stage that it belongs to."""

FIRST = {module: name for name, module in reversed(ENCODERS.items())}.values()
each_encoder = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in (*FIRST, *ONE_OF_EACH) else [pytest.mark.slow]) for name in ENCODERS],
)
"""One of each file, and of each form of a file, in every run; the other sizes are slow tests."""


@each_encoder
def test_channels_and_strides_say_what_forward_gives(name):
    with shapes_only():
        encoder = create_encoder(name)
        features = encoder(torch.randn(1, 3, 64, 128))
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, -(-64 // s), -(-128 // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert list(encoder.strides) == sorted(encoder.strides)


@each_encoder
def test_stages_hold_every_parameter_once_in_depth_order(name):
    with shapes_only():
        encoder = create_encoder(name)
    staged = [p for stage in encoder.stages() for module in stage for p in module.parameters()]
    outside = {id(p) for module in encoder.outside_stages() for p in module.parameters()}
    own = [p for key, p in encoder.named_parameters() if key.rpartition(".")[2] not in INPUTS and id(p) not in outside]
    if ENCODERS[name] in NAMED_BY_KIND:  # in depth order are those of a kind
        kinds = {id(p): key.partition(".")[0] for key, p in encoder.named_parameters()}
        order = list(dict.fromkeys(kinds.values()))
        staged.sort(key=lambda p: order.index(kinds[id(p)]))
    assert list(map(id, staged)) == list(map(id, own))


SHALLOWER = ["resnet18", "mobilenet_v2", "mit_b0", "efficientnet-b0", "densenet121", "vgg11_bn", "timm/convnext_atto"]


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("name", SHALLOWER)
def test_a_shallower_encoder_has_the_finer_maps_and_no_parameter_that_they_do_not_need(name, levels):
    with shapes_only():
        whole, encoder = create_encoder(name), create_encoder(name, levels=levels)
        maps = encoder(torch.randn(1, 3, 64, 128))
        sum(m.sum() for m in maps).backward()
    kept = [stride for stride in whole.strides if stride <= 2**levels]
    assert list(encoder.strides) == kept
    assert encoder.channels == whole.channels[: len(kept)] == tuple(m.shape[1] for m in maps)
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
    assert encoder.state_dict().keys() <= whole.state_dict().keys()


def test_levels_out_of_range_are_refused():
    with pytest.raises(UsageError, match="levels = 7: expected 2 to 5, or null for all maps"):
        create_encoder("resnet18", levels=7)


def test_an_encoder_of_an_earlier_version_that_was_timms_is_timms():
    then = EncoderSpec.of("densenet121", drop_path=None)
    assert (then.name, EncoderSpec.of("densenet121").name) == ("timm/densenet121", "densenet121")
    assert EncoderSpec.of("resnet18d").name == "resnet18d"


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("in_channels", [1, 5])
def test_an_image_may_have_any_number_of_channels(name, in_channels):
    features = create_encoder(name, in_channels=in_channels).eval()(torch.randn(1, in_channels, 33, 47))
    assert all(f.isfinite().all() for f in features)


def step(name: str, *, checkpointing: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    encoder = create_encoder(name).train()
    encoder.gradient_checkpointing = checkpointing
    torch.manual_seed(1)
    features = encoder(torch.randn(2, 3, 64, 64))
    sum(f.square().mean() for f in features).backward()
    gradients = {key: p.grad for key, p in encoder.named_parameters() if p.grad is not None}
    return gradients, dict(encoder.named_buffers())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_changes_neither_gradients_nor_running_statistics(name):
    gradients, statistics = step(name, checkpointing=False)
    again, statistics_again = step(name, checkpointing=True)
    torch.testing.assert_close(again, gradients, rtol=0, atol=0)
    torch.testing.assert_close(statistics_again, statistics, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "hrnet_w8_small", "timm/resnet10t"])
def test_gradient_checkpointing_keeps_fewer_numbers_for_backward(name):
    def kept(checkpointing: bool) -> int:
        encoder = create_encoder(name).train()
        encoder.gradient_checkpointing = checkpointing
        storages: dict[int, int] = {}

        def remember(t: torch.Tensor) -> torch.Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda t: t):
            features = encoder(torch.randn(2, 3, 64, 64))
        weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
        assert features
        return sum(size for pointer, size in storages.items() if pointer not in weights)

    assert kept(True) < kept(False) / 2


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(UsageError, match="output_stride = 8: hrnet_w18 has its own only, expected null"):
        create_encoder("hrnet_w18", output_stride=8)
    with pytest.raises(UsageError, match=r"x = 1: unknown option of mobilenet_v2; known here: .*dilate_every_block"):
        create_encoder("mobilenet_v2", x=1)


def test_an_unknown_encoder_is_refused_with_the_nearest_names():
    with pytest.raises(UsageError, match=r"(?s)encoder 'resnet19'.*unknown encoder - did you mean 'resnet\d+'"):
        create_encoder("resnet19")


class Twice(PyramidEncoder):
    """An encoder with an output besides its maps."""

    channels, strides, extras = (3,), (1,), ("mean",)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.outputs(x)[0]

    def outputs(self, x: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        return [2 * x], {"mean": x.mean(dim=(2, 3))}

    def stages(self) -> list[list[torch.nn.Module]]:
        return []


def test_further_outputs_come_by_name_and_most_encoders_have_none():
    x = torch.randn(2, 3, 32, 32)
    encoder = Twice()
    maps, extras = encoder.outputs(x)
    assert tuple(extras) == encoder.extras
    assert torch.equal(maps[0], encoder(x)[0])
    plain = create_encoder("resnet18_w8").eval()
    maps, extras = plain.outputs(x)
    assert (len(maps), extras, plain.extras) == (len(plain.channels), {}, ())
