from __future__ import annotations

import pytest
import torch

from segatlas.build.network import create_model, shapes_only
from segatlas.models.semantic_fpn import ARCHITECTURE


def test_it_has_the_published_number_of_parameters_for_150_classes():
    with shapes_only():
        net = create_model("semantic_fpn", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(28.51, abs=0.005)


ON_POOLFORMER = {"s12": 15_669_846, "s24": 25_143_638, "s36": 34_617_430, "m36": 59_778_006, "m48": 77_078_934}


@pytest.mark.parametrize("size", ON_POOLFORMER)
def test_variants_on_poolformer_have_exactly_mmsegmentations_number_of_parameters(size):
    with shapes_only():
        net = create_model(f"semantic_fpn_poolformer_{size}", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) == ON_POOLFORMER[size]


def test_logits_leave_at_stride_4():
    net = create_model("semantic_fpn", num_classes=3, **ARCHITECTURE.tiny).eval()
    with torch.no_grad():
        out = net(torch.randn(1, 3, 65, 97))
    assert out.logits.shape == (1, 3, 17, 25)
    assert out.canvas == (65, 97)


def test_a_dilated_encoder_needs_fewer_upsamplings():
    net = create_model("semantic_fpn", num_classes=3, output_stride=8, **ARCHITECTURE.tiny).eval()
    assert net.head.steps == [0, 1, 1, 1]
    with torch.no_grad():
        assert net(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 17, 25)


ON_TWINS = {  # parameters for 150 classes: MMSegmentation's networks, counted
    "semantic_fpn_twins_pcpvt_s": 27_858_838,
    "semantic_fpn_twins_pcpvt_b": 47_581_078,
    "semantic_fpn_twins_pcpvt_l": 64_742_294,
    "semantic_fpn_twins_svt_s": 27_798_934,
    "semantic_fpn_twins_svt_b": 59_676_438,
    "semantic_fpn_twins_svt_l": 102_744_214,
}


@pytest.mark.parametrize("name", ON_TWINS)
def test_variants_on_twins_have_exactly_mmsegmentations_number_of_parameters(name):
    with shapes_only():
        net = create_model(name, num_classes=150)
    assert sum(p.numel() for p in net.parameters()) == ON_TWINS[name]
