"""The tool that draws the image on top of the README does so with any model of shapes."""

from __future__ import annotations

import numpy as np
from fakes.model import make_model
from PIL import Image

import readme_image


def test_a_row_of_images_stands_above_what_was_found_in_them(tmp_path, capsys):
    out = tmp_path / "images" / "top.png"
    assert readme_image.main([str(make_model(tmp_path / "net")), "--out", str(out), "--columns", "2"]) == 0
    sheet = np.asarray(Image.open(out).convert("RGB"))
    height, width = readme_image.SIZE
    gap = readme_image.GAP
    assert sheet.shape[1] == 2 * width + 3 * gap
    assert sheet.shape[0] > 2 * height + 3 * gap  # the legend
    first = sheet[gap : gap + height, gap : gap + width].astype(int)
    assert np.abs(first - readme_image.draw_scene(0, "test", 0, size=(height, width)).image).mean() < 12  # 256 colours
    assert f"{width * 2 + 3 * gap}x" in capsys.readouterr().out
