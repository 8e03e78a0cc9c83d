"""`data check` reads the image of the earlier date of `pairs` as well, and no copy is written that would lose it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.images import save_image
from fakes.pairs import write_pairs

from segatlas.config.schema import DataConfig
from segatlas.data.checks import examine, repair
from segatlas.data.checks.convert import to_folder
from segatlas.errors import DataError, UsageError


def test_an_earlier_image_that_cannot_be_read_or_lies_otherwise_is_an_error(tmp_path: Path):
    root = write_pairs(tmp_path / "pairs")
    assert examine(root).ok
    (root / "train" / "before" / "001.png").write_bytes(b"")
    save_image(root / "val" / "before" / "100.png", np.zeros((16, 16, 3), np.uint8))
    found = examine(root)
    assert [finding.kind for finding in found.errors] == ["unreadable", "source_mismatch"]
    assert [finding.files[0].name for finding in found.errors] == ["001.png", "100.png"]
    assert found.errors[1].details == ("before 16 x 16, image 48 x 32",)


def test_no_copy_is_written_that_would_lose_the_earlier_images(tmp_path: Path):
    root = write_pairs(tmp_path / "pairs")
    with pytest.raises(DataError, match="a copy holds images and masks alone, not: before"):
        repair(examine(root), tmp_path / "fixed")
    with pytest.raises(UsageError, match="further inputs \\(before\\)"):
        to_folder(DataConfig(name="pairs", root=str(root)), tmp_path / "folder")
    assert not (tmp_path / "fixed").exists()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", ["voc", "pairs", "shapes"])
def test_lists_are_no_advice_for_a_dataset_that_has_none(tmp_path: Path, name: str):
    (told,) = examine(DataConfig(name=name, root=str(tmp_path))).findings
    assert told.repair.startswith("lay it out as ")
    assert "data.lists" not in told.repair
