"""Predict, datasets and `data check` agree on which files of a folder are images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes import broken
from fakes.images import save_image
from fakes.model import make_model
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.cli.predict import plan_jobs
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.data.formats import read_image
from segatlas.data.formats.listing import images_of, is_several, list_images, walk_files
from segatlas.errors import DataError, UsageError

SPARSE = 40 * 2**30


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "net")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return broken.write_sound(tmp_path / "data")


def litter(folder: Path) -> None:
    """Write what systems and editors leave in a folder of images."""
    for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0\5\26\7 not an image")
    for name in ("__MACOSX", ".ipynb_checkpoints", ".git", "@eaDir"):
        broken.save(folder / name / "000.png", broken.image_of(50))


def names(jobs: list) -> list[str]:
    return [job.name for job in jobs]


def test_hidden_files_and_system_folders_are_skipped_by_all(root: Path, tmp_path: Path) -> None:
    images = root / "train" / "images"
    before = list(list_images(images))
    litter(images)
    litter(root / "train" / "masks")
    data = create_dataset(DataConfig(root=str(root)), "train")
    assert [data.key(index) for index in range(len(data))] == before
    assert names(plan_jobs([str(images)], tmp_path / "out")) == before
    assert names(plan_jobs([f"{images}/**/*"], tmp_path / "out")) == before
    assert names(plan_jobs([f"{images}/*.png"], tmp_path / "out")) == before
    assert examine(root).findings == ()


def test_endings_in_upper_case_are_images_to_all(root: Path, tmp_path: Path) -> None:
    for path in sorted(root.glob("train/*/*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert len(create_dataset(DataConfig(root=str(root)), "train")) == 6
    assert len(plan_jobs([str(root / "train/images")], tmp_path / "out")) == 6
    assert examine(root).ok


def test_files_with_other_endings_are_told_by_predict_and_check(root: Path, tmp_path: Path, model: Path) -> None:
    folder = root / "val/images"
    (folder / "notes.txt").write_text("hello")
    shutil.copy(folder / "100.png", folder / "other.gif")
    result = segatlas("predict", model, folder, "--out", tmp_path / "out", "--save", "mask", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["predicted"], record["not_read"]) == (2, [str(folder / "notes.txt"), str(folder / "other.gif")])
    assert "not read: 2 files with other endings (.gif, .txt)" in result.stderr
    assert [finding.kind for finding in examine(root).warnings] == ["not_read"]


def hostile(folder: Path, name: str) -> None:
    """Write one thing that is called like an image and is none."""
    path = folder / "zzz.png"
    if name == "sparse":
        with path.open("wb") as stream:
            stream.truncate(SPARSE)
    elif name == "broken_link":
        path.symlink_to(folder / "gone.png")
    elif name == "link_to_itself":
        path.symlink_to(path)
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"")


HOSTILE = {
    "sparse": "is 40.0 GiB, above the limit of",
    "broken_link": "is a link to",
    "link_to_itself": "cannot be read: Too many levels of symbolic links",
    "pipe": "is no regular file",
    "folder": "is a folder, expected an image file",
    "empty": "the file is empty",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_named_and_the_rest_goes_on(root: Path, tmp_path: Path, model: Path, name: str) -> None:
    folder = root / "val/images"
    hostile(folder, name)
    broken.save(root / "val/masks/zzz.png", broken.label_of(1))
    (root / "classes.txt").write_text("ground\ndisc\n")
    result = segatlas("predict", model, folder, "--out", tmp_path / "out", "--save", "mask", "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["predicted"] == 2
    assert [failed["source"] for failed in record["failed"]] == [str(folder / "zzz.png")]
    assert HOSTILE[name] in record["failed"][0]["error"]
    (finding,) = examine(root).errors
    assert (finding.files, finding.kind in ("unreadable", "too_large")) == ((folder / "zzz.png",), True)
    assert HOSTILE[name] in finding.details[0]
    result = segatlas("data", "stats", root, "--json")
    assert result.exit_code == 1
    assert HOSTILE[name] in json.loads(result.stdout)["splits"]["val"]["skipped"][0]


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    broken.save(tmp_path / "a/b/1.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    assert list(list_images(tmp_path)) == ["a/b/1"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    broken.save(tmp_path / "far/1.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "near").mkdir()
    (tmp_path / "near/folder").symlink_to(tmp_path / "far")
    (tmp_path / "near/2.png").symlink_to(tmp_path / "far/1.png")
    assert list(list_images(tmp_path / "near")) == ["2", "folder/1"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("segatlas.data.formats.listing.os.scandir", refuse)
    with pytest.raises(DataError, match=r"the folder cannot be read: Permission denied"):
        list(walk_files(tmp_path))


def test_a_folder_without_images_is_an_error_of_predict(tmp_path: Path) -> None:
    litter(tmp_path)
    with pytest.raises(UsageError, match="no images in"):
        plan_jobs([str(tmp_path)], tmp_path / "out")


def test_a_real_large_file_is_read_once_the_limit_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGATLAS_MAX_PIXELS", "16")
    broken.save(tmp_path / "a.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(DataError, match="above the limit of 16 pixels"):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("SEGATLAS_MAX_PIXELS", "25")
    assert read_image(tmp_path / "a.png").shape == (5, 5, 1)


def test_a_word_stands_for_a_file_of_its_name_before_it_is_a_glob(tmp_path):
    odd = tmp_path / "a[1].png"
    save_image(odd, np.zeros((3, 4, 3), np.uint8))
    save_image(tmp_path / "deep" / "a1.png", np.zeros((3, 4, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("")
    assert [is_several(word) for word in (odd, tmp_path, tmp_path / "a[2].png", tmp_path / "none.png")] == [
        *(False, True, True, False)
    ]
    assert images_of(odd) == ([(odd, "a[1]")], [])
    assert images_of(tmp_path).not_read == [tmp_path / "notes.txt"]
    assert [name for _, name in images_of(f"{tmp_path}/**/*.png").images] == ["a[1]", "deep/a1"]
    assert [name for _, name in images_of(tmp_path, without=tmp_path / "deep").images] == ["a[1]"]
    for word in (tmp_path / "none.png", tmp_path / "*.jpg"):
        with pytest.raises(UsageError, match=r"no (such file or folder: .*none|images in .*\.jpg)"):
            images_of(word)
