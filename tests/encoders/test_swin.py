from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.encoders.spec import create_encoder
from segatlas.encoders.swin import APART, WindowLayout, distances
from segatlas.errors import UsageError

COUNTS = {  # the authors' classifiers without their last layer, and norms of the first three maps
    "swin_tiny": 27_519_354 + 2 * 96 * 7,
    "swin_small": 48_837_258 + 2 * 96 * 7,
    "swin_base": 86_743_224 + 2 * 128 * 7,
    "swin_large": 194_995_476 + 2 * 192 * 7,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_those_of_the_authors(name):
    with torch.device("meta"):
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == COUNTS[name]


def by_tokens(attn, x, shift):
    """Attention in moved windows of one map (h, w, D), written out token by token; each sees those of its region."""
    p, heads = attn.window, attn.heads
    h, w, width = x.shape
    rows, columns = (-(-side // p) * p for side in (h, w))
    whole = F.pad(x, (0, 0, 0, columns - w, 0, rows - h))
    q, k, v = attn.qkv(whole).chunk(3, dim=-1)
    out = torch.zeros_like(whole)

    def cell(place, side):  # window and place in it on the moved map, and whether it came there from the other border
        moved = (place - shift) % side
        return moved // p, moved % p, place < shift

    for y in range(h):
        for z in range(w):
            (wy, py, cy), (wz, pz, cz) = cell(y, rows), cell(z, columns)
            keys = [
                (a, b)
                for a in range(rows)
                for b in range(columns)
                if (cell(a, rows)[0], cell(b, columns)[0]) == (wy, wz)
            ]
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                products = []
                for a, b in keys:
                    (_, pa, ca), (_, pb, cb) = cell(a, rows), cell(b, columns)
                    row = (py - pa + p - 1) * (2 * p - 1) + pz - pb + p - 1
                    bias = attn.relative_position_bias_table[row, head]
                    apart = 0.0 if (ca, cb) == (cy, cz) else APART
                    products.append(q[y, z, part] @ k[a, b, part] / (width // heads) ** 0.5 + bias + apart)
                weights = torch.stack(products).softmax(dim=0)
                out[y, z, part] = sum(weight * v[a, b, part] for weight, (a, b) in zip(weights, keys, strict=True))
    return attn.proj(out[:h, :w])


@pytest.mark.parametrize(("size", "shift"), [((5, 7), 0), ((5, 7), 1), ((3, 2), 1), ((6, 3), 1)])
def test_attention_in_windows_equals_that_of_each_token_written_out(size, shift):
    torch.manual_seed(0)
    attn = create_encoder("swin_w8", window=3).layers[1].blocks[0].attn.eval()
    nn.init.normal_(attn.relative_position_bias_table)
    nn.init.normal_(attn.qkv.bias)  # tokens of padding have keys and values, too
    maps = torch.randn(2, *size, 16)
    with torch.no_grad():
        found = attn(maps, WindowLayout.of(maps.shape, 3, shift, maps.device))
        expected = torch.stack([by_tokens(attn, one, shift) for one in maps])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_row_of_a_table_tells_how_far_the_query_is_below_and_right_of_the_key():
    index = distances(3, torch.device("cpu"))
    assert index[0, 0] == 12  # of 25, the middle
    assert index[8, 0] == 24  # two rows below, two columns to the right
    assert index[0, 8] == 0
    assert len(index.unique()) == 25


@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1)])
def test_maps_have_the_size_of_the_image_over_the_stride_rounded_up(size):
    encoder = create_encoder("swin_w8").eval()
    maps = encoder(torch.randn(1, 3, *size))
    for x, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert x.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_checkpointed_stages_give_the_same_gradients():
    torch.manual_seed(0)
    encoder = create_encoder("swin_w8", drop_path=0.0, window=3).train()
    x = torch.randn(2, 3, 32, 40)
    found = []
    for checkpointing in (False, True):
        encoder.gradient_checkpointing = checkpointing
        encoder.zero_grad()
        sum(m.square().sum() for m in encoder(x)).backward()
        found.append([p.grad.clone() for p in encoder.parameters()])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(UsageError, match="window = 1: expected 2 or more tokens"):
        create_encoder("swin_w8", window=1)
