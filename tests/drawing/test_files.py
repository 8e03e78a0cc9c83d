import io

import numpy as np
import pytest
from PIL import Image

from segatlas.drawing import png_bytes, save_image
from segatlas.errors import DataError

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_png_bytes_hold_the_image_exactly():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(IMAGE)))), IMAGE)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
def test_the_ending_decides_the_format_and_nothing_else_is_left_behind(tmp_path, ending):
    path = save_image(IMAGE, tmp_path / f"a{ending}")
    with Image.open(path) as file:
        assert file.size == (7, 5)
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_ending_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="no image format"):
        save_image(IMAGE, tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(DataError, match=r"a\.png: cannot be written: No space left"):
        save_image(IMAGE, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
