"""segatlas.models.fastfcn."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.fastfcn import ContextEncoding

HEADS = ("psp", "aspp", "enc")


@pytest.mark.parametrize(
    ("head", "trained", "used"), [("psp", 68.81e6, 66.41e6), ("aspp", 87.95e6, 85.55e6), ("enc", 55.80e6, 53.40e6)]
)
def test_parameters_are_those_of_the_published_networks(head, trained, used):
    def count(**fields):
        net = build_empty(*make_config(f"fastfcn_{head}", {"num_classes": 150, **fields}))
        return sum(parameter.numel() for parameter in net.parameters())

    assert count(aux=True) == pytest.approx(trained, abs=5e3)
    assert count() == pytest.approx(used, abs=5e3)


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_at_stride_8_and_only_context_encoding_tells_which_classes_occur(head):
    fields = {"num_classes": 5, "encoder": "resnet18_w8", "jpu_channels": 8, "channels": 8, "codes": 4, "head": head}
    architecture, config = make_config("fastfcn", fields)
    out = architecture.build(config).train()(torch.randn(2, 3, 64, 96))
    assert out.logits.shape == (2, 5, 8, 12)
    assert {name: tuple(x.shape) for name, x in out.aux.items()} == ({"presence": (2, 5)} if head == "enc" else {})


def test_the_description_is_the_weighted_sum_of_differences_to_the_code_words():
    torch.manual_seed(0)
    head = ContextEncoding(6, 5, codes=3).double().eval()
    x = torch.randn(2, 5, 4, 7, dtype=torch.float64)
    pixels = head.project(x).flatten(2).transpose(1, 2)
    difference = pixels.unsqueeze(2) - head.codewords  # (N, P, M, D)
    weight = (head.scale * difference.square().sum(3)).softmax(2)
    residual = (weight.unsqueeze(3) * difference).sum(1)
    expected = head.norm(residual).relu().mean(1)
    assert torch.allclose(head.describe(x), expected, atol=1e-10)
