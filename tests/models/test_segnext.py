"""SegNeXt and its encoder: published sizes, what is drawn, the order of operations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.build.saving import save_pretrained
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.segnext import IMPORTER, recognise
from segatlas.conversion.renaming import rename_to_theirs
from segatlas.encoders.mscan import StripConv2d
from segatlas.errors import UsageError, WeightsError
from segatlas.hub.loading import load_pretrained

PUBLISHED = {"t": 4_263_414, "s": 13_932_886, "b": 27_636_310, "l": 48_926_550}
SMALL = {"encoder": "mscan_w8", "channels": 32, "patterns": 4}


def small(**fields):
    torch.manual_seed(0)
    return create_model("segnext", num_classes=3, **{**SMALL, **fields}).eval()


def image(count=1):
    return torch.randn(count, 3, 61, 93, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", PUBLISHED)
def test_variants_have_the_published_number_of_parameters_for_150_classes(size):
    net = build_empty(*make_config(f"segnext_{size}", {"num_classes": 150}))
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[size]


def test_evaluation_draws_nothing_and_images_of_a_batch_do_not_change_each_other():
    net, x = small(), image(2)
    with torch.no_grad():
        first, again = net(x).logits, net(x).logits
        alone = torch.cat([net(one[None]).logits for one in x])
    assert torch.equal(first, again)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-6)


def test_the_seed_says_with_which_patterns_evaluation_begins():
    nets = [small(patterns_seed=seed) for seed in (0, 3)]
    expected = torch.rand(1, 32, 4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(nets[1].hamburger.decomposition.start, expected)
    assert nets[0].state_dict().keys() == nets[1].state_dict().keys()
    assert not any("start" in name for name in nets[0].state_dict())


def test_a_saved_network_begins_with_the_same_patterns(tmp_path):
    net = small(patterns_seed=5)
    save_pretrained(net, tmp_path / "saved", classes="abc")
    again, _ = load_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again(image()).logits, net(image()).logits)


def test_maps_meet_the_first_convolution_before_they_are_upsampled():
    net = small().double()
    maps = net.encoder(image().double())[-3:]
    joined = torch.cat([F.interpolate(x, size=maps[0].shape[2:], mode="bilinear") for x in maps], dim=1)
    expected = net.align(net.hamburger(F.relu(net.squeeze(joined)))).relu()
    torch.testing.assert_close(net.decode(maps), expected)


def test_training_draws_other_patterns_each_time():
    net = small(dropout=0.0, encoder={"name": "mscan_w8", "drop_path": 0.0}).train()
    x = torch.rand(2, 32, 3, 4)
    part = net.hamburger.decomposition
    assert not torch.equal(part(x), part(x))


def test_a_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(UsageError, match="channels: got 48, expected a multiple of 32"):
        create_model("segnext", num_classes=3, encoder="mscan_w8", channels=48)


def file_of(settings=None, leave_out=""):
    architecture, config = make_config("segnext", {"num_classes": 3, **SMALL})
    theirs = rename_to_theirs(IMPORTER, config, dict(build_empty(architecture, config).state_dict()))
    kept = {name: tensor for name, tensor in theirs.items() if not leave_out or not name.startswith(leave_out)}
    return ForeignWeights(tensors=kept, settings={"model": settings or {}})


def test_settings_tell_the_patterns_and_a_file_without_has_the_published_16():
    assert recognise(file_of())["patterns"] == 16
    assert recognise(file_of({"decode_head": {"ham_kwargs": {"MD_R": 8}}}))["patterns"] == 8
    assert recognise(file_of({"backbone": {"drop_path_rate": 0.3}}))["encoder_options"] == {"drop_path": 0.3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decode_head": {"ham_kwargs": {"MD_S": 2}}}, r"ham_kwargs\.MD_S = 2: only 1 is supported"),
        ({"decode_head": {"norm_cfg": {"num_groups": 16}}}, r"num_groups = 16: only 32 is supported"),
        ({"backbone": {"mlp_ratios": [4, 4, 4, 4]}}, r"mlp_ratios = \[4, 4, 4, 4\]: only \[8, 8, 4, 4\] is supported"),
    ],
)
def test_forms_of_mmsegmentation_that_ours_does_not_have_are_refused(settings, message):
    with pytest.raises(WeightsError, match=message):
        recognise(file_of(settings))


def test_sizes_that_are_not_published_are_told_with_what_was_found():
    file = file_of()
    tensors = {
        name.replace("backbone.block4.0.", "backbone.block4.1."): tensor
        for name, tensor in file.tensors.items()
        if name.startswith("backbone.block4.")
    }
    with pytest.raises(WeightsError, match=r"an MSCAN of widths \[8, 16, 24, 32\] with \[1, 1, 1, 2\] blocks is none"):
        recognise(ForeignWeights(tensors={**file.tensors, **tensors}))


def test_a_file_of_the_authors_begins_the_encoder(tmp_path):
    torch.manual_seed(3)
    donor = create_model("segnext", num_classes=2, **SMALL)
    theirs = {
        name.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv."): tensor
        for name, tensor in donor.encoder.state_dict().items()
    }
    torch.save({"state_dict": {**theirs, "head.weight": torch.zeros(1000, 32)}}, tmp_path / "mscan.pth")
    net = create_model("segnext", num_classes=3, encoder_weights=str(tmp_path / "mscan.pth"), **SMALL)
    assert all(
        torch.equal(tensor, donor.encoder.state_dict()[name]) for name, tensor in net.encoder.state_dict().items()
    )


def test_a_strip_is_computed_in_float32_under_bf16():
    strip, x = StripConv2d(8, (1, 21)), torch.randn(1, 8, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = strip(x.bfloat16())
    assert torch.equal(given, strip(x.bfloat16().float()))
