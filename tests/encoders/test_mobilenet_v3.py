"""segatlas.encoders.mobilenet_v3."""

from __future__ import annotations

import pytest
import torch
import torchvision

from segatlas.encoders.spec import create_encoder


@pytest.mark.parametrize(("output_stride", "dilated"), [(32, False), (16, True)])
def test_the_numbers_are_torchvisions(output_stride, dilated):
    torch.manual_seed(0)
    theirs = torchvision.models.mobilenet_v3_large(weights=None, dilated=dilated).eval()
    ours = create_encoder("mobilenet_v3_large", output_stride=output_stride).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if k.startswith("features.")})
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        maps = ours(x)
        assert torch.equal(maps[-1], theirs.features(x))
        assert torch.equal(maps[2], theirs.features[:5](x))
    assert tuple(m.shape[1] for m in maps) == ours.channels
    assert ours.strides == (2, 4, 8, 16, output_stride)
