"""MultiSource beyond the contracts: what is there and what is missing, alignment, switches, what training gets."""

from __future__ import annotations

import math

import pytest
import torch

from segatlas.build.network import create_model
from segatlas.criteria import build
from segatlas.errors import UsageError
from segatlas.layers.tps import pixel_points, warped
from segatlas.losses import LOSSES
from segatlas.models.multisource import ARCHITECTURE, Seen, laid_over
from segatlas.structures import Inputs, samples_of

K = 3
SIZE = (40, 64)


def make(**fields):
    torch.manual_seed(0)
    net = create_model("multisource", num_classes=K, in_channels=3, **{**ARCHITECTURE.tiny, **fields})
    if net.aligner is not None:
        for head in net.aligner.heads:
            torch.nn.init.normal_(head.weight, std=2.0)
    return net.eval()


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def inputs():
    draw = torch.Generator().manual_seed(1)
    prior = torch.randint(0, K, (2, 5, 8), generator=draw, dtype=torch.uint8).repeat_interleave(8, 1)
    return Inputs(
        torch.randn(2, 3, *SIZE, generator=draw),
        {"prior": prior.repeat_interleave(8, 2)},
        {"prior": torch.tensor([True, True])},
    )


def logits(net, inputs):
    with torch.no_grad():
        return net(inputs).logits


def with_prior(inputs, prior, *flags):
    present = {"prior": torch.tensor(flags)} if flags else {}
    return Inputs(inputs.image, {"prior": prior}, present)


def test_a_missing_source_is_the_same_however_it_is_told(net, inputs):
    prior = inputs.sources["prior"]
    alone = logits(net, inputs.image)
    assert torch.equal(logits(net, Inputs(inputs.image)), alone)
    assert torch.equal(logits(net, with_prior(inputs, prior, False, False)), alone)
    assert torch.equal(logits(net, with_prior(inputs, torch.full_like(prior, 255))), alone)
    assert (logits(net, inputs) - alone).abs().max() > 1e-3 * alone.abs().max()


def test_flags_are_of_each_sample_and_nothing_of_a_missing_source_gets_through(inputs):
    exact, precise = make().double(), inputs._replace(image=inputs.image.double())
    mixed = logits(exact, with_prior(precise, inputs.sources["prior"], True, False))
    torch.testing.assert_close(mixed[:1], logits(exact, samples_of(precise, slice(1))))
    torch.testing.assert_close(mixed[1:], logits(exact, precise.image[1:]))
    other = make(label_sources=(), map_sources=("pose",), map_channels=(2,))
    pose = torch.full((2, 2, *SIZE), math.nan)
    found = logits(other, Inputs(inputs.image, {"pose": pose}, {"pose": torch.tensor([False, False])}))
    assert torch.equal(found, logits(other, inputs.image))


def test_source_dropout_takes_sources_away_in_training_alone(inputs):
    net = make(source_dropout=0.5)
    kept = 0
    torch.manual_seed(0)
    net.train()
    for _ in range(12):
        weights = net(inputs).aux["bending"]
        kept += int((weights.abs().sum((1, 2)) > 0).sum())
    assert 4 <= kept <= 20  # of 24
    assert torch.equal(logits(net.eval(), inputs), logits(net, inputs))


def test_the_first_step_begins_with_the_identity(inputs):
    torch.manual_seed(0)
    net = create_model("multisource", num_classes=K, in_channels=3, **ARCHITECTURE.tiny).eval()
    with torch.no_grad():
        seen = net.look(inputs)
    flow = pixel_points((16, 16), seen.alignment.flow)
    torch.testing.assert_close(seen.alignment.flow, flow.expand(2, -1, -1, -1), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.warped_prior, seen.prior, rtol=0, atol=1e-3)


def test_the_source_is_warped_by_the_blend_of_its_splines(net, inputs):
    with torch.no_grad():
        seen = net.look(inputs)
    assert isinstance(seen, Seen)
    found = seen.alignment
    assert (found.flow - pixel_points((16, 16), found.flow)).abs().max() > 1e-2
    assert found.keypoints.shape == found.source_keypoints.shape == (2, 2, 4, 2)
    torch.testing.assert_close(found.fractions.sum(1), torch.ones(2, 16, 16))
    torch.testing.assert_close(seen.warped_prior, warped(seen.prior, found.flow))
    torch.testing.assert_close(laid_over(seen.prior, found), seen.warped_prior)
    assert found.at((4, 4)).shape == (2, 4, 4, 2)


def test_each_loss_of_the_recipe_takes_what_training_gives_and_reaches_its_part(inputs):
    net = make().train()
    terms = [
        LOSSES["cross_entropy"](),
        LOSSES["dice"](),
        LOSSES["cross_entropy"](on="aux.stride8", weight=0.4),
        LOSSES["cross_entropy"](on="aux.encoder8"),
        LOSSES["cross_entropy"](on="aux.warped_prior", weight=0.5),
        LOSSES["keypoint_equivariance"](weight=10.0),
        LOSSES["bending"](weight=0.01),
    ]
    labels = inputs.sources["prior"]
    total, parts = build("SemanticLogits", terms)(net(inputs), labels)
    assert list(parts) == [
        "cross_entropy", "dice", "aux.stride8.cross_entropy", "aux.encoder8.cross_entropy",
        "aux.warped_prior.cross_entropy",
        "aux.equivariance.keypoint_equivariance", "aux.bending.bending",
    ]  # fmt: skip
    assert all(value > 0 for value in parts.values())
    total.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("fusion", ["two_encoders", "source_only"])
def test_layer_norms_of_an_encoder_make_no_huge_gradients_of_a_sample_without_a_source(inputs, fusion):
    net, largest = make(fusion=fusion, encoder="swin_w8").train(), []
    labels = inputs.sources["prior"]
    for flags in ((True, True), (True, False)):
        out = net(with_prior(inputs, labels, *flags))
        cost = LOSSES["cross_entropy"]()(out.logits, labels, out.canvas)
        cost = cost + sum(aux.square().mean() for name, aux in out.aux.items() if name != "warped_prior")
        encoder = net.source_encoder or net.encoder
        grads = torch.autograd.grad(cost, [*encoder.parameters()], allow_unused=True)
        largest.append(max(grad.abs().max().item() for grad in grads if grad is not None))
    assert 0 < largest[1] < 20 * largest[0]  # it was a million times as large


def test_the_encoders_own_logits_see_the_image_alone(inputs):
    net = make().train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        out, other = (net(with_prior(inputs, inputs.sources["prior"].roll(n, 2))) for n in (0, 9))
    assert out.aux["encoder8"].shape == (2, K, 8, 8)
    assert torch.equal(out.aux["encoder8"], other.aux["encoder8"])
    assert not torch.equal(out.aux["stride8"], other.aux["stride8"])


def test_without_a_source_the_losses_of_the_alignment_are_nothing(inputs):
    aux = make().train()(inputs.image).aux
    assert not aux["bending"].any()
    assert not aux["equivariance"].any()
    assert aux["warped_prior"].log_softmax(1).sub(-math.log(K)).abs().max() < 1e-5  # no class is likelier


def test_what_training_gets_follows_the_switches():
    assert make().aux_names == ("stride8", "encoder8", "warped_prior", "bending", "equivariance")
    assert make(equivariance=False, source_classes=4).aux_names == ("stride8", "encoder8", "bending")
    assert make(align=False).aux_names == make(fusion="concatenate").aux_names == ("stride8", "encoder8")
    assert make(aux=False).aux_names == ()


def test_parts_that_are_switched_off_are_not_there():
    whole = {name.split(".")[0] for name in make().state_dict()}
    assert {"aligner", "co_attention", "source_encoder", "source_laterals"} <= whole
    assert not any(name.startswith("aligner") for name in make(align=False).state_dict())
    assert not any(name.startswith("co_attention") for name in make(coattention=()).state_dict())
    assert not any("gamma" in name for name in make(spade=False).state_dict())
    single = {name.split(".")[0] for name in make(fusion="image_only").state_dict()}
    assert whole - single == {"aligner", "co_attention", "source_encoder", "source_laterals", "source_levels"} & whole


def test_an_image_only_network_takes_no_source_and_a_concatenating_one_does(inputs):
    assert [spec.name for spec in make(fusion="image_only").config.source_specs()] == []
    plain, joined = make(fusion="image_only"), make(fusion="concatenate")
    assert torch.equal(logits(plain, inputs), logits(plain, inputs.image))
    assert not torch.equal(logits(joined, inputs), logits(joined, inputs.image))
    only = make(fusion="source_only")
    assert torch.equal(logits(only, inputs), logits(only, inputs._replace(image=inputs.image * 2)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_sources": ("a",), "image_sources": ("a",)}, "each name once"),
        ({"label_sources": ("image",)}, "none that is 'image'"),
        ({"label_sources": ()}, "without a source"),
        ({"map_sources": ("pose",)}, "map_channels"),
        ({"source_classes": 300}, "1 to 255"),
        ({"coattention": (32, 4)}, "strides of 32, 16, 8"),
        ({"source_dropout": 1.0}, "less than 1"),
        ({"keypoints": 1}, "keypoints: got 1, expected 2 or more"),
        ({"encoder": {"name": "resnet18_w8", "output_stride": 8}}, "also needed: \\[16, 32\\]"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        make(**fields)


def test_sources_that_are_not_what_the_network_takes_are_refused(net, inputs):
    prior = inputs.sources["prior"]
    with pytest.raises(UsageError, match=r"source 'prior' \(label\) has shape \(2, 40, 60\), expected \(2, 40, 64\)"):
        net(with_prior(inputs, prior[..., :60]))
    with pytest.raises(UsageError, match=r"'prior' has code 3, expected 0..2, or 255.*source_classes"):
        net(with_prior(inputs, prior + 1))
    assert net(with_prior(inputs, prior + 1, False, False)).logits.isfinite().all()
    with pytest.raises(UsageError, match=r"'prior' has code -1, expected 0..2, or 255"):
        net(with_prior(inputs, torch.full(prior.shape, -1)))
    with pytest.raises(UsageError, match=r"'prior' is of torch\.float32 with fractions; codes are whole numbers"):
        net(with_prior(inputs, prior * 0.5))
    with pytest.raises(UsageError, match=r"'prior': present has shape \(1,\), expected \(2,\), a flag for each sample"):
        net(with_prior(inputs, prior, True))
    other = make(label_sources=(), map_sources=("pose",), map_channels=(2,))
    for wrong in (math.nan, math.inf):
        with pytest.raises(UsageError, match="'pose' has NaN or infinite values in a sample that has it"):
            other(Inputs(inputs.image, {"pose": torch.full((2, 2, *SIZE), wrong)}))


def test_a_mask_may_have_other_classes_than_the_network(inputs):
    net = make(source_classes=7)
    assert logits(net, with_prior(inputs, inputs.sources["prior"] + 4)).shape == (2, K, 64, 64)


@pytest.mark.slow
def test_training_aligns_a_prior_that_was_shifted():
    torch.manual_seed(0)
    net = create_model("multisource", num_classes=2, **{**ARCHITECTURE.tiny, "channels": 8, "aux": True}).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    loss = LOSSES["cross_entropy"](on="aux.warped_prior")
    costs = []
    for _ in range(120):
        labels = torch.zeros(4, 64, 64, dtype=torch.uint8)
        for index in range(4):
            top, left = torch.randint(8, 24, (2,)).tolist()
            labels[index, top : top + 28, left : left + 28] = 1
        prior = torch.roll(labels, 6, dims=2)
        image = labels.unsqueeze(1).float().expand(-1, 3, -1, -1) + 0.1 * torch.randn(4, 3, 64, 64)
        output = net(Inputs(image, {"prior": prior}))
        cost = loss(output.aux["warped_prior"], labels)
        (cost + LOSSES["cross_entropy"]()(output.logits, labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
        costs.append(cost.item())
    assert sum(costs[-10:]) < 0.7 * sum(costs[:10])
