import pytest

from segatlas.bench.settings import parse_precisions, parse_size
from segatlas.errors import UsageError


def test_a_size_is_height_x_width():
    assert parse_size("512x1024") == (512, 1024)
    for text in ("512", "0x4", "4x", "ax4", "1x2x3", "-1x4"):
        with pytest.raises(UsageError, match="expected HxW"):
            parse_size(text)


def test_precisions_are_a_list_each_once():
    assert parse_precisions("bf16, fp32,bf16") == ("bf16", "fp32")
    for text in ("", "fp16", "fp32,"):
        with pytest.raises(UsageError, match="--precision"):
            parse_precisions(text)
