"""Text files that are not UTF-8 are named, with the byte at fault, by every command that reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.camvid import write_camvid
from fakes.voc import write_voc

LATIN = "stra\u00dfe\nhaus\n".encode("latin-1")
UTF_16 = "road\nhouse\n".encode("utf-16")
BAD = {
    "latin": (LATIN, "byte 0xdf at offset 4"),
    "utf_16": (UTF_16, "it seems to be UTF-16"),
    "binary": (b"\x00\x01\x02", "byte 0x00 at offset 0"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_a_class_file_that_is_not_utf_8_is_named_with_its_byte(segatlas, train, folder, name: str, kind: str) -> None:
    content, told = BAD[kind]
    path = folder / name
    path.write_bytes(content)
    result = segatlas("data", "check", folder, "--json")
    assert result.exit_code == 1
    finding = json.loads(result.stdout)["findings"][0]
    assert (finding["kind"], finding["files"]) == ("classes_file", [str(path)])
    assert told in finding["fault"]
    for result in (train(folder, "--dry-run"), segatlas("data", "stats", folder)):
        assert result.exit_code == 1
        assert f"error: {path}: is not text in UTF-8" in result.stderr
        assert told in result.stderr


def test_a_class_file_with_a_byte_order_mark_is_read(segatlas, folder) -> None:
    (folder / "classes.txt").write_bytes("\ufeffstraße\r\nhaus\r\ntür\r\n".encode())
    result = segatlas("data", "check", folder, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["classes"] == ["straße", "haus", "tür"]


def lists(root: Path) -> dict[str, tuple[str, Path]]:
    """Write a set of each layout that has lists; return their names and lists."""
    write_camvid(root / "camvid", layout="original")
    (root / "camvid/train.txt").write_text("0001TP_006690\n")
    write_voc(root / "voc")
    return {
        "camvid": ("camvid", root / "camvid/train.txt"),
        "voc": ("voc", next((root / "voc").rglob("ImageSets/Segmentation/train.txt"))),
    }


@pytest.mark.parametrize("name", ["camvid", "voc"])
def test_a_list_of_a_named_set_that_is_not_utf_8_is_named(segatlas, train, tmp_path, name: str) -> None:
    kind, path = lists(tmp_path / "sets")[name]
    path.write_bytes(LATIN)
    root = tmp_path / "sets" / name
    result = segatlas("data", "check", root, f"data.name={kind}", "--json")
    assert result.exit_code == 1
    findings = {finding["kind"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["list"]["files"] == [str(path)]
    result = train(root, f"data.name={kind}", "--dry-run")
    assert result.exit_code == 1
    assert f"error: {path}: is not text in UTF-8 (byte 0xdf at offset 4)" in result.stderr


def test_a_list_of_pairs_that_is_not_utf_8_is_named(segatlas, train, folder) -> None:
    path = folder / "train.csv"
    path.write_bytes(LATIN)
    assert segatlas("data", "check", folder, "data.lists={train: train.csv}").exit_code == 1
    result = train(folder, "data.lists={train: train.csv}", "--dry-run")
    assert result.exit_code == 1
    assert f"error: {path}: is not text in UTF-8" in result.stderr


@pytest.mark.parametrize("kind", BAD)
def test_a_recipe_that_is_not_utf_8_is_a_config_error_with_its_byte(segatlas, tmp_path, kind: str) -> None:
    content, told = BAD[kind]
    (tmp_path / "a.yaml").write_bytes(content)
    result = segatlas("config", "check", tmp_path / "a.yaml")
    assert result.exit_code == 2
    assert "a.yaml" in result.stderr
    assert told in result.stderr
