"""A linear classifier over the tokens of a plain vision transformer."""

from __future__ import annotations

import pytest
import torch

import segatlas as sa
from segatlas.errors import UsageError


def tiny(**fields) -> torch.nn.Module:
    torch.manual_seed(0)
    own = {"encoder": "test_vit", "encoder_options": {"depth": 3}, "blocks": 2, "num_classes": 4}
    return sa.create_model("linear", **{**own, **fields}).eval()


def test_the_logits_are_one_matrix_product_of_the_normed_tokens_of_the_last_blocks():
    net = tiny()
    torch.nn.init.normal_(net.classifier.bias)
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        tokens = torch.cat(net.encoder(x, at=(1, 2)).patches, dim=2)  # (N, h * w, B * D)
        normed = (tokens - net.norm.running_mean) / (net.norm.running_var + net.norm.eps).sqrt()
        expected = normed @ net.classifier.weight.flatten(1).T + net.classifier.bias
        out = net(x)
    torch.testing.assert_close(out.logits.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(net.classifier(net.decode(net.encoder(x, at=net.at))), out.logits)
    assert out.canvas == (32, 48)


@pytest.mark.parametrize(("encoder", "patch"), [("test_vit", 16), ("eva02_tiny_patch14_224", 14)])
def test_an_image_that_is_no_whole_number_of_patches_is_padded_right_and_bottom_and_the_canvas_says_so(encoder, patch):
    net = tiny(encoder=encoder, encoder_options={"depth": 1}, blocks=1)
    x = torch.randn(1, 3, 2 * patch - 5, 3 * patch - 1)
    with torch.no_grad():
        out = net(x)
        whole = net(torch.nn.functional.pad(x, (0, 1, 0, 5)))
    assert out.canvas == (2 * patch, 3 * patch)
    assert out.logits.shape == (1, 4, 2, 3)
    assert torch.equal(out.logits, whole.logits)


def test_more_blocks_than_the_encoder_has_are_refused():
    with pytest.raises(UsageError, match="blocks: got 4, but test_vit has 3"):
        tiny(blocks=4)
    with pytest.raises(UsageError, match="blocks: got 0, expected 1 or more"):
        tiny(blocks=0)
