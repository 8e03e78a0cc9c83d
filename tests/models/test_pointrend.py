from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import ConfigError
from segatlas.models.pointrend import ARCHITECTURE, pixel_centres, sample, uncertainty
from segatlas.recipe import Config


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


def tiny(**fields):
    net = create_model("pointrend", **{"num_classes": 5, **ARCHITECTURE.tiny, **fields})
    for parameter in net.point_head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


def test_it_has_the_published_number_of_parameters_for_150_classes():
    with shapes_only():
        net = create_model("pointrend", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(28.89, abs=0.005)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_prediction_replaces_the_least_certain_pixels_of_each_upsampling_one_by_one(align_corners, size):
    net = tiny(align_corners=align_corners).eval().double()
    with torch.no_grad():
        pyramid = net.pyramid(net.encoder(torch.randn(1, 3, *size).double()))
        coarse = net.classifier(net.head(pyramid)) * 30
        logits = coarse
        for _ in range(2):
            height, width = 2 * logits.shape[2], 2 * logits.shape[3]
            logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=align_corners)
            ordered = logits[0].sort(dim=0).values
            doubt = (ordered[-1] - ordered[-2]).flatten()
            refined = logits.clone()
            for place in doubt.argsort()[:64].tolist():
                y, x = divmod(place, width)
                grid = torch.tensor([[[[2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1]]]]).double()
                fine = F.grid_sample(pyramid[0], grid, align_corners=align_corners)[..., 0]
                rough = F.grid_sample(coarse, grid, align_corners=align_corners)[..., 0]
                refined[0, :, y, x] = net.point_head(fine, rough)[0, :, 0]
            logits = refined
        expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
        got = net.refine(pyramid[0], coarse, size)
    assert not torch.allclose(got, F.interpolate(coarse, size=size, mode="bilinear", align_corners=align_corners))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_prediction_leaves_at_the_images_size_and_training_at_stride_4():
    net, x = tiny(), torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        assert net.eval()(x).logits.shape == (2, 5, 65, 97)
        assert net.train()(x).logits.shape == (2, 5, 17, 25)


def test_training_points_follow_torchs_seed_and_hold_three_quarters_of_uncertain_ones():
    net = tiny(train_points=32).train()
    coarse = torch.zeros(2, 5, 16, 16)
    coarse[:, 0] = torch.linspace(8, 0, 16)  # certain on the left, in doubt on the right
    torch.manual_seed(5)
    points = net.training_points(coarse)
    torch.manual_seed(5)
    assert torch.equal(net.training_points(coarse), points)
    assert points.shape == (2, 32, 2)
    assert ((points >= 0) & (points <= 1)).all()
    torch.manual_seed(5)
    drawn = torch.rand(2, 96, 2)
    doubt = uncertainty(sample(coarse, drawn, align_corners=False)).sort(dim=1, descending=True).values
    assert torch.equal(uncertainty(sample(coarse, points[:, :24], align_corners=False)), doubt[:, :24])
    assert points[:, :24, 0].mean() > 0.75
    assert torch.equal(points[:, 24:], torch.rand(2, 8, 2))


def test_the_points_logits_are_those_of_the_point_head_at_these_points():
    net, x = tiny().train(), torch.randn(2, 3, 64, 64)
    out = net(x)
    points, pyramid = out.aux["points"].points, net.pyramid(net.encoder(x))
    fine = sample(pyramid[0], points, align_corners=False)
    coarse = sample(net.classifier(net.head(pyramid)), points, align_corners=False)
    torch.testing.assert_close(out.aux["points"].logits, net.point_head(fine, coarse), rtol=1e-4, atol=1e-5)
    assert tiny(aux=False).train()(x).aux == {}


def test_sampling_at_the_centres_of_all_pixels_gives_the_map():
    x = torch.randn(2, 3, 4, 6)
    points = pixel_centres(torch.arange(24).expand(2, -1), 4, 6)
    torch.testing.assert_close(sample(x, points, align_corners=False), x.flatten(2), rtol=1e-4, atol=1e-5)


def test_two_equal_best_classes_are_the_least_certain():
    logits = torch.tensor([[[3.0, 5.0], [3.0, 1.0], [0.0, 4.5]]])
    torch.testing.assert_close(uncertainty(logits), torch.tensor([[0.0, -0.5]]))


def test_a_training_without_a_loss_on_the_points_is_refused():
    told = r"learns from a loss on aux\.points alone, and there is none: add \{name: point_cross_entropy, on: aux"
    with pytest.raises(ConfigError, match=told):
        Config.load("unet_shapes", "model.name=pointrend").check_network()
    losses = "losses=[cross_entropy_dice, {name: point_cross_entropy, on: aux.points}]"
    Config.load("unet_shapes", "model.name=pointrend", losses).check_network()
