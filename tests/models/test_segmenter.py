from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.encoders.contract import Tokens
from segatlas.errors import UsageError
from segatlas.models.segmenter import ARCHITECTURE

PUBLISHED = {"t": 6713196, "s": 26033580, "b": 102496812, "l": 333233452, "s_linear": 22040982}
"""Parameters of MMSegmentation's networks. They have no bias of patches, which their files have."""


@pytest.mark.parametrize("size", PUBLISHED)
def test_variants_have_the_published_number_of_parameters_for_150_classes(size):
    with shapes_only():
        net = create_model(f"segmenter_{size}", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[size] + net.encoder.width


def literal_mask_decoder(net, patches, grid):
    """The paper's mask decoder with torch's own transformer layers."""
    decoder, last = net.decoder, net.classifier
    width, heads = decoder.project.in_features, decoder.blocks[0].attn.heads
    classes = decoder.class_tokens.expand(len(patches), -1, -1)
    x = torch.cat([decoder.project(patches), classes], dim=1)
    for block in decoder.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
        ).eval()
        ours = block.state_dict()
        names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj."}
        names |= {"linear1.": "mlp.fc1.", "linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
        layer.load_state_dict({a + kind: ours[b + kind] for a, b in names.items() for kind in ("weight", "bias")})
        x = layer(x)
    x = decoder.norm(x)
    count = last.num_classes
    towards = F.normalize(last.project_classes(x[:, -count:]), dim=-1)
    masks = F.normalize(last.project_patches(x[:, :-count]), dim=-1) @ towards.mT
    return last.norm(masks).mT.reshape(len(patches), count, *grid)


def test_the_mask_decoder_is_the_papers_whatever_the_order_of_its_tokens():
    torch.manual_seed(0)
    net = create_model("segmenter", num_classes=7, heads=2, **{**ARCHITECTURE.tiny, "layers": 2}).eval()
    for parameter in (*net.decoder.parameters(), *net.classifier.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    patches, grid = torch.randn(2, 12, 32), (3, 4)
    with torch.no_grad():
        got = net.decode(Tokens((patches,), (), grid))
        torch.testing.assert_close(got, literal_mask_decoder(net, patches, grid), rtol=1e-4, atol=1e-4)


def test_no_layers_are_the_linear_decoder_and_less_than_none_are_refused():
    net = create_model("segmenter", num_classes=3, **{**ARCHITECTURE.tiny, "layers": 0}).eval()
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = net.classifier(net.encoder(image).maps()[0])
        assert torch.equal(net(image).logits, expected)
    with pytest.raises(UsageError, match="layers: got -1, expected 0 or more"):
        create_model("segmenter", num_classes=3, **{**ARCHITECTURE.tiny, "layers": -1})


def test_logits_have_the_stride_of_a_patch_and_are_stretched_over_images_of_other_sizes():
    net = create_model("segmenter", num_classes=3, **ARCHITECTURE.tiny).eval()
    with torch.no_grad():
        out = net(torch.randn(1, 3, 33, 47))
    assert out.logits.shape == (1, 3, 3, 3)
    assert out.canvas == (33, 47)
