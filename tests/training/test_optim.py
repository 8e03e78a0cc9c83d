import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.config.schema import OptimizerConfig
from segatlas.errors import UsageError
from segatlas.training.optim import build_optimizer, fuse_steps, parameter_groups
from segatlas.training.rmsprop import RMSProp


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def stages(self) -> list[list[nn.Module]]:
        return [[self.stem], [self.deep]]

    def outside_stages(self) -> list[nn.Module]:
        return []


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.norm, self.classifier = Encoder(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)


def settings_of(net: nn.Module, groups: list[dict], parameter: nn.Parameter) -> tuple[float, float]:
    found = [group for group in groups if any(p is parameter for p in group["params"])]
    assert len(found) == 1
    return found[0]["lr"], found[0]["weight_decay"]


def test_norms_and_biases_get_no_decay():
    net = Net()
    groups = parameter_groups(net, OptimizerConfig(weight_decay=0.1), 1e-3)
    assert settings_of(net, groups, net.classifier.weight) == (1e-3, 0.1)
    assert settings_of(net, groups, net.classifier.bias) == (1e-3, 0.0)
    assert settings_of(net, groups, net.norm.weight) == (1e-3, 0.0)


def test_parameters_that_are_named_get_no_decay_and_a_name_of_none_is_refused():
    net = create_model("linear", num_classes=2, encoder={"name": "vit_w32", "depth": 1})
    groups = parameter_groups(net, OptimizerConfig(weight_decay=0.1, no_decay=("pos_embed", "cls_token")), 1e-3)
    assert settings_of(net, groups, net.encoder.pos_embed) == (1e-3, 0.0)
    assert settings_of(net, groups, net.encoder.cls_token) == (1e-3, 0.0)
    assert settings_of(net, groups, net.encoder.blocks[0].mlp.fc1.weight) == (1e-3, 0.1)
    with pytest.raises(UsageError, match="no_decay: no parameter of the network is called 'pos_embd'"):
        parameter_groups(net, OptimizerConfig(no_decay=("pos_embd",)), 1e-3)


def test_a_word_with_a_star_is_a_pattern_of_whole_names():
    net = create_model("segformer", num_classes=2, encoder="mit_b0", decoder_channels=16)
    patterns = ("encoder.block*norm*", "encoder.patch_embed*norm*")
    groups = parameter_groups(net, OptimizerConfig(weight_decay=0.1, decay_norms=True, no_decay=patterns), 1e-3)
    decays = {name: settings_of(net, groups, parameter)[1] for name, parameter in net.named_parameters()}
    spared = {name for name, decay in decays.items() if decay == 0}
    assert {"encoder.block1.0.norm1.weight", "encoder.block1.0.attn.norm.bias"} <= spared
    assert "encoder.patch_embed1.norm.weight" in spared
    assert not {"encoder.norm1.weight", "encoder.block1.0.mlp.fc1.bias", "decoder.fuse.bn.weight"} & spared
    with pytest.raises(UsageError, match=r"no_decay: no parameter of the network is called 'encoder\.\*nrm'"):
        parameter_groups(net, OptimizerConfig(no_decay=("encoder.*nrm",)), 1e-3)


def test_parameters_that_are_named_get_a_learning_rate_of_their_own_and_a_name_of_none_is_refused():
    net = Net()
    config = OptimizerConfig(encoder_lr_factor=0.1, lr_factors={"norm": 0.5, "deep": 2.0})
    groups = parameter_groups(net, config, 1.0)
    rates = [
        settings_of(net, groups, m.weight)[0] for m in (net.classifier, net.norm, net.encoder.deep, net.encoder.stem)
    ]
    assert rates == pytest.approx([1.0, 0.5, 2.0, 0.1])
    with pytest.raises(UsageError, match="lr_factors: no parameter of the network is called 'nrm'"):
        parameter_groups(net, OptimizerConfig(lr_factors={"nrm": 0.5}), 1.0)


def test_decay_norms_gives_all_the_same_decay():
    net = Net()
    groups = parameter_groups(net, OptimizerConfig(weight_decay=0.1, decay_norms=True), 1e-3)
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_norms_of_the_encoder_can_be_spared_where_all_else_decays():
    net = Net()
    net.encoder.norm = nn.LayerNorm(4)
    groups = parameter_groups(net, OptimizerConfig(weight_decay=0.1, decay_norms=True, decay_encoder_norms=False), 1.0)
    decays = {name: settings_of(net, groups, parameter)[1] for name, parameter in net.named_parameters()}
    assert {name for name, decay in decays.items() if decay == 0} == {"encoder.norm.weight", "encoder.norm.bias"}
    assert decays["norm.bias"] == decays["encoder.stem.bias"] == 0.1


def test_layer_decay_lowers_the_rate_towards_the_stem():
    net = Net()
    groups = parameter_groups(net, OptimizerConfig(encoder_lr_factor=0.1, layer_decay=0.5), 1.0)
    rates = [settings_of(net, groups, m.weight)[0] for m in (net.classifier, net.encoder.deep, net.encoder.stem)]
    assert rates == pytest.approx([1.0, 0.05, 0.025])


def test_layer_decay_takes_each_block_of_a_plain_transformer_for_a_layer_and_its_positions_for_the_input():
    net = create_model("linear", num_classes=2, encoder="test_vit", encoder_options={"depth": 3})
    groups = parameter_groups(net, OptimizerConfig(layer_decay=0.5), 1.0)
    model = net.encoder.model
    layers = [model.norm.weight, *(block.mlp.fc1.weight for block in reversed(model.blocks))]
    before = [model.patch_embed.proj.weight, model.cls_token, model.pos_embed]
    rates = [settings_of(net, groups, p)[0] for p in (net.classifier.weight, *layers, *before)]
    assert rates == pytest.approx([1.0, 0.5, 0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0625])


def test_the_encoder_has_groups_of_its_own_where_they_are_asked_for():
    net = Net()
    apart = parameter_groups(net, OptimizerConfig(), 1.0, encoder_apart=True)
    inside = {id(parameter) for parameter in net.encoder.parameters()}
    assert {group["of_encoder"] for group in apart} == {True, False}
    assert all((id(p) in inside) == group["of_encoder"] for group in apart for p in group["params"])
    assert not any(group["of_encoder"] for group in parameter_groups(net, OptimizerConfig(), 1.0))


def test_every_trainable_parameter_is_in_exactly_one_group_and_frozen_ones_in_none():
    net = Net()
    net.encoder.stem.requires_grad_(False)
    groups = parameter_groups(net, OptimizerConfig(layer_decay=0.9), 1e-3)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("rmsprop", RMSProp)],
)
def test_the_recipe_names_the_optimiser(name, kind):
    optimizer = build_optimizer(Net(), OptimizerConfig(name=name), 0.01)
    assert type(optimizer) is kind


class Convolutions(nn.Module):
    def __init__(self, layout: torch.memory_format):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.layers.to(memory_format=layout)

    def forward(self, x):
        return self.layers(x)


def stepped(name, layout, state_layout, *, fused):
    """Return the weights after a few steps, the state laid out anew in between, and which groups were fused."""
    net = Convolutions(layout)
    optimizer = build_optimizer(net, OptimizerConfig(name=name), 0.01)
    images = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    told = []
    for step in range(4):
        optimizer.zero_grad()
        net(images.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        if step == 2:
            for parameter, kept in optimizer.state.items():
                for key, value in kept.items():
                    if isinstance(value, torch.Tensor) and value.ndim == 4:
                        kept[key] = value.contiguous(memory_format=state_layout)
                        assert kept[key].shape == parameter.shape
        if fused:
            fuse_steps(optimizer)
        told.append([group["fused"] for group in optimizer.param_groups])
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()]), told


LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("state_layout", LAYOUTS)
def test_fused_steps_are_those_of_torch_and_a_state_in_another_order_is_not_fused(name, layout, state_layout):
    expected, _ = stepped(name, layout, state_layout, fused=False)
    found, told = stepped(name, layout, state_layout, fused=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert all(all(groups) for groups in told[:2])
    assert all(told[2]) == (layout == state_layout)


def test_parameters_with_gaps_in_memory_other_devices_and_our_own_optimiser_are_not_fused():
    whole = torch.zeros(4, 6)
    gaps = nn.Parameter(whole[:, :3])
    gaps.grad = torch.zeros(4, 3)
    elsewhere = nn.Parameter(torch.zeros(3, device="meta"))
    elsewhere.grad = torch.zeros(3, device="meta")
    half = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    half.grad = torch.zeros(3, dtype=torch.bfloat16)
    without = nn.Parameter(torch.zeros(3))
    later = {"params": [without, nn.Parameter(torch.zeros(4, 6)[:, :3])]}  # gaps in what has no gradient yet
    optimizer = torch.optim.AdamW([*({"params": [one]} for one in (gaps, elsewhere, half)), later])
    fuse_steps(optimizer)
    # None and not False: on a GPU torch then steps all parameters at once.
    assert [group["fused"] for group in optimizer.param_groups] == [None] * 4
    own = RMSProp([without], lr=0.1)
    fuse_steps(own)
    assert "fused" not in own.param_groups[0]
