from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.models.manet import ARCHITECTURE, FusingStep, PositionAttention


def test_variants_have_as_many_parameters_as_segmentation_models_pytorch():
    with shapes_only():
        net = create_model("manet_r34", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(31.81, abs=0.005)


def test_position_attention_shares_one_softmax_among_all_pairs_and_reads_its_result_in_memory_order():
    torch.manual_seed(0)
    block = PositionAttention(4, 2)
    x = torch.randn(1, 4, 2, 3)
    query, key, value = (conv(x)[0].flatten(1).detach() for conv in (block.query, block.key, block.value))
    pairs = torch.tensor([[float(query[:, i] @ key[:, j]) for j in range(6)] for i in range(6)]).exp()
    found = torch.stack([sum(pairs[i, j] / pairs.sum() * value[:, j] for j in range(6)) for i in range(6)])
    expected = block.out(x + found.reshape(1, 4, 2, 3))
    torch.testing.assert_close(block(x), expected)


def test_a_fusing_step_weights_the_coarse_map_by_the_averages_of_both_sides():
    torch.manual_seed(0)
    step = FusingStep(6, 4, 5, 2).eval()
    x, skip = torch.randn(2, 6, 3, 4), torch.randn(2, 4, 6, 8)
    narrow = F.interpolate(step.narrow(x), scale_factor=2.0, mode="nearest")
    gate = step.high_gate(narrow) + step.low_gate(skip)
    expected = step.conv2(step.conv1(torch.cat([narrow * gate, skip], dim=1)))
    torch.testing.assert_close(step(x, skip), expected, rtol=1e-5, atol=1e-6)


def test_steps_beyond_the_encoders_finest_map_double_alone():
    fields = {**ARCHITECTURE.tiny, "encoder": "mit_b0", "encoder_options": None}
    net = create_model("manet", num_classes=3, **fields).eval()
    assert [type(step).__name__ for step in net.decoder] == ["FusingStep"] * 3 + ["PlainDoubling"] * 2
    out = net(torch.randn(1, 3, 33, 65))
    assert (out.logits.shape, out.canvas) == ((1, 3, 64, 96), (64, 96))
