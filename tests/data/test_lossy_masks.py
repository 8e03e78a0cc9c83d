"""Masks compressed with loss: known by their content in every format, refused, and taken where that is asked for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes.folder import write_folder
from fakes.voc import write_voc
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.formats.masks import read_mask
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError
from segatlas.recipe import Config

LABELS = np.kron(np.array([[0, 1, 2], [2, 0, 1]], np.uint8), np.ones((16, 16), np.uint8))
STEP = 100
ACCEPT = "data.accept=[lossy_mask]"


def webp(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.stack([values] * 3, axis=-1)).save(stream, "WEBP", **options)
    return stream.getvalue()


def jpeg(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=100)
    return stream.getvalue()


def jpeg_in_tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF", compression="jpeg", quality=100)
    return stream.getvalue()


def chunks(data: bytes) -> bytes:
    return data[12:]


def riff(content: bytes) -> bytes:
    return b"RIFF" + (4 + len(content)).to_bytes(4, "little") + b"WEBP" + content


def with_profile(data: bytes) -> bytes:
    """Put a colour profile of 9,000 bytes before the pixels of a plain WebP."""
    size = (len(LABELS[0]) - 1).to_bytes(3, "little") + (len(LABELS) - 1).to_bytes(3, "little")
    extended = b"VP8X" + (10).to_bytes(4, "little") + b"\x20\0\0\0" + size
    return riff(extended + b"ICCP" + (9000).to_bytes(4, "little") + bytes(9000) + chunks(data))


def one_frame(data: bytes) -> bytes:
    """Make a plain WebP the only frame of an animation."""
    size = (len(LABELS[0]) - 1).to_bytes(3, "little") + (len(LABELS) - 1).to_bytes(3, "little")
    extended = b"VP8X" + (10).to_bytes(4, "little") + b"\x02\0\0\0" + size
    frame = bytes(6) + size + bytes(4) + chunks(data)
    return riff(
        extended + b"ANIM" + (6).to_bytes(4, "little") + bytes(6) + b"ANMF" + len(frame).to_bytes(4, "little") + frame
    )


LOSSY: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "JPEG": (".jpg", jpeg),
    "JPEG called PNG": (".png", jpeg),
    "JPEG in TIFF": (".tif", jpeg_in_tiff),
    "WebP": (".webp", lambda values: webp(values, quality=100)),
    "WebP with a long profile": (".webp", lambda values: with_profile(webp(values, quality=100))),
    "WebP animation of one frame": (".webp", lambda values: one_frame(webp(values, quality=100))),
}
LOSSLESS: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "WebP": (".webp", lambda values: webp(values, lossless=True)),
    "WebP with a long profile": (".webp", lambda values: with_profile(webp(values, lossless=True))),
    "WebP animation of one frame": (".webp", lambda values: one_frame(webp(values, lossless=True))),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_a_mask_compressed_with_loss_is_known_by_header_and_decoder_and_refused(tmp_path: Path, kind: str) -> None:
    ending, encode = LOSSY[kind]
    path = tmp_path / f"a{ending}"
    path.write_bytes(encode(LABELS * STEP))
    assert read_shape(path).lossy
    with pytest.raises(DataError, match=r"is a mask compressed with loss .* data\.accept=\[lossy_mask\]"):
        read_mask(path)
    assert np.abs(read_mask(path, lossy=True).astype(int) - LABELS * STEP).max() <= 8


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_mask_compressed_without_loss_is_read_as_it_was_written(tmp_path: Path, kind: str) -> None:
    ending, encode = LOSSLESS[kind]
    path = tmp_path / f"a{ending}"
    path.write_bytes(encode(LABELS * STEP))
    assert not read_shape(path).lossy
    assert np.array_equal(read_mask(path), LABELS * STEP)


def rewritten(root: Path, ending: str, encode: Callable[[np.ndarray], bytes], values: np.ndarray) -> Path:
    """Write a folder of images whose masks all hold `values`."""
    write_folder(root, counts={"train": 4, "val": 2}, size=LABELS.shape)
    for path in root.glob("*/masks/*.png"):
        path.unlink()
        path.with_suffix(ending).write_bytes(encode(values))
    return root


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


IN_FOLDERS = ("JPEG", "JPEG in TIFF", "WebP")


@pytest.mark.parametrize("kind", IN_FOLDERS)
def test_lossy_masks_pass_check_and_loading_where_they_are_accepted_and_only_there(tmp_path: Path, kind: str) -> None:
    ending, encode = LOSSY[kind]
    root = rewritten(tmp_path / "set", ending, encode, LABELS * STEP)
    codes = np.unique(read_mask(next(root.glob("train/masks/*")), lossy=True)).tolist()
    table = ", ".join(f"{code}: {round(code / STEP)}" for code in codes)
    keys = ("data.classes=[a, b, c]", f"data.label_map={{{table}}}")
    refused = segatlas("data", "check", root, *keys, "--json")
    assert refused.exit_code == 1
    assert [finding["kind"] for finding in json.loads(refused.stdout)["findings"]] == ["lossy_mask"]
    with pytest.raises(DataError, match="compressed with loss"):
        create_dataset(Config.load({"data": {"root": str(root)}}, *keys).data, "train").load(0)
    taken = segatlas("data", "check", root, *keys, ACCEPT, "--json")
    assert taken.exit_code == 0, taken.output
    found = json.loads(taken.stdout)["findings"]
    assert [(finding["kind"], finding["severity"]) for finding in found] == [("lossy_mask", "warning")]
    data = create_dataset(Config.load({"data": {"root": str(root)}}, *keys, ACCEPT).data, "train")
    assert np.array_equal(data.load(0).label, LABELS)


@pytest.mark.parametrize("kind", IN_FOLDERS)
def test_classes_of_accepted_lossy_masks_are_counted_and_their_black_and_white_is_told(tmp_path: Path, kind: str):
    ending, encode = LOSSY[kind]
    root = rewritten(tmp_path / "set", ending, encode, np.minimum(LABELS, 1))
    cfg = DataConfig(root=str(root), accept=("lossy_mask",))
    assert len(create_dataset(cfg, "train").classes) == 2
    for path in root.glob("*/masks/*"):
        path.write_bytes(encode(np.minimum(LABELS, 1) * 255))
    with pytest.raises(DataError, match="hold only 0 and 255"):
        create_dataset(cfg, "train")


def test_check_tells_values_of_accepted_lossy_masks_that_training_would_refuse(tmp_path: Path) -> None:
    root = rewritten(tmp_path / "set", ".jpg", jpeg, LABELS * STEP)
    keys = ("data.classes=[a, b, c]", "data.label_map={0: 0, 100: 1}", ACCEPT)
    result = segatlas("data", "check", root, *keys, "--json")
    assert result.exit_code == 1
    assert "label_out_of_range" in [finding["kind"] for finding in json.loads(result.stdout)["findings"]]
    data = create_dataset(Config.load({"data": {"root": str(root)}}, *keys).data, "train")
    with pytest.raises(DataError, match="label 200"):
        data.load(0)


def test_a_published_data_set_takes_lossy_masks_too_where_they_are_accepted(tmp_path: Path) -> None:
    write_voc(tmp_path)
    for path in tmp_path.rglob("SegmentationClass/*.png"):
        shape = np.array(Image.open(path)).shape
        path.unlink()
        path.with_suffix(".jpg").write_bytes(jpeg(np.full(shape, 7, np.uint8)))
    with pytest.raises(DataError, match="compressed with loss"):
        create_dataset(DataConfig(name="voc", root=str(tmp_path)), "train").load(0)
    accepted = DataConfig(name="voc", root=str(tmp_path), accept=("lossy_mask",))
    assert set(create_dataset(accepted, "train").load(0).label.ravel()) == {7}
