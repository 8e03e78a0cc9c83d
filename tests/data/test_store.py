from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.cityscapes import write_cityscapes
from fakes.folder import write_folder
from fakes.images import blocks, image_of, save_codes
from fakes.shared import shared_data
from PIL import Image

from segatlas import files
from segatlas.config.schema import DataConfig
from segatlas.config.transforms import PhotometricConfig, TransformsConfig
from segatlas.data import create_dataset
from segatlas.data.formats.images import read_image
from segatlas.data.formats.masks import LabelRule
from segatlas.data.store import Store, default_folder, entries
from segatlas.data.store import store as store_module
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline
from segatlas.errors import DataError

SIZE = (40, 56)
LONG_AGO = 1_600_000_000


class Decoder:
    """Decodes by `read_image` and counts how often it was asked."""

    def __init__(self, path: Path, result: np.ndarray | None = None):
        self.path, self.result, self.calls = path, result, 0

    def __call__(self, content: bytes) -> np.ndarray:
        self.calls += 1
        return read_image(self.path) if self.result is None else self.result


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_of(blocks(seed, range(5), SIZE), seed)).save(path)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for settled at once, as if written long ago, and for large enough to note their hash."""
    monkeypatch.setattr(store_module, "SETTLED_NS", 0)
    monkeypatch.setattr(store_module, "WORTH_NOTING", 0)


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.glob("entries/*/*") if path.is_file()]


def open_store(folder: Path, **fields: object) -> Store:
    return Store(folder, **{"reserve": 0, **fields})


# ---- identical pixels
def save_tiff(path: Path, array: np.ndarray) -> None:
    import tifffile

    tifffile.imwrite(path, array)


FORMATS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "rgb png": (".png", lambda path, rgb: Image.fromarray(rgb).save(path)),
    "rgb jpeg": (".jpg", lambda path, rgb: Image.fromarray(rgb).save(path)),
    "grey png": (".png", lambda path, rgb: Image.fromarray(rgb[..., 0]).save(path)),
    "16-bit png": (".png", lambda path, rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(path)),
    "palette png": (".png", lambda path, rgb: Image.fromarray(rgb).quantize(16).save(path)),
    "rgba png": (".png", lambda path, rgb: Image.fromarray(rgb).convert("RGBA").save(path)),
    "8-bit tiff": (".tif", lambda path, rgb: Image.fromarray(rgb).save(path)),
    "16-bit tiff": (".tif", lambda path, rgb: save_tiff(path, rgb.astype(np.uint16) * 200)),
    "float tiff": (".tif", lambda path, rgb: save_tiff(path, rgb[..., 0].astype(np.float32) / 7)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_kept_image_has_the_pixels_of_the_decoded_one(tmp_path: Path, name: str) -> None:
    ending, save = FORMATS[name]
    path = tmp_path / f"image{ending}"
    save(path, image_of(blocks(3, range(5), SIZE), 3))
    expected = read_image(path)
    for _ in range(2):
        found = open_store(tmp_path / "store").array(path, "image", lambda content: read_image(path))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        assert not found.flags.writeable


@pytest.mark.parametrize("depth", ["8", "16", "palette"])
def test_a_kept_label_equals_the_decoded_one(tmp_path: Path, depth: str) -> None:
    codes = blocks(1, range(5), SIZE)
    if depth == "16":
        Image.fromarray((codes * 300).astype(np.uint16)).save(tmp_path / "mask.png")
    else:
        save_codes(tmp_path / "mask.png", codes, [(i, 9, 9) for i in range(5)] if depth == "palette" else None)
    step = 300 if depth == "16" else 1
    rule = LabelRule(num_classes=5, label_map={step * code: 4 - code for code in range(5)})
    path = tmp_path / "mask.png"
    for _ in range(2):
        label = open_store(tmp_path / "store").array(path, rule.text, lambda content: rule.decode(content, path))
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, 4 - codes)


def test_real_street_images_come_back_bit_by_bit(tmp_path: Path) -> None:
    cfg = DataConfig(name="cityscapes", root=str(shared_data("samples/cityscapes")))
    plain, fills, reads = (
        create_dataset(cfg, "train", store=store)
        for store in (None, open_store(tmp_path), open_store(tmp_path, fill=False))
    )
    expected = plain.load(0)
    for data in (fills, reads):
        np.testing.assert_array_equal(data.load(0).image, expected.image)
        np.testing.assert_array_equal(data.load(0).label, expected.label)


def test_a_window_of_a_kept_image_is_a_slice_of_the_whole(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    found = open_store(tmp_path / "store").array(path, "image", Decoder(path))
    np.testing.assert_array_equal(found[7:19, 3:30], read_image(path)[7:19, 3:30])
    assert np.shares_memory(found[7:19, 3:30], found)


def test_samples_are_the_same_with_and_without_a_store(tmp_path: Path) -> None:
    cfg = DataConfig(name="cityscapes", root=str(write_cityscapes(tmp_path / "data")))
    transforms = TransformsConfig(scale=(0.5, 2), crop=(24, 40), class_balance=0.7, photometric=PhotometricConfig())
    pipeline = Pipeline.from_config(transforms, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 255.0, 3)
    stores = (None, open_store(tmp_path / "store"), open_store(tmp_path / "store"))
    streams = [SampleStream(create_dataset(cfg, "train", store=store), pipeline, 5) for store in stores]
    for address in [(epoch, index) for epoch in range(3) for index in range(3)]:
        first, *others = (stream[address] for stream in streams)
        for other in others:
            np.testing.assert_array_equal(first.image, other.image)
            np.testing.assert_array_equal(first.label, other.label)


# ---- built once, for what was asked
def test_a_file_is_decoded_once_by_all_that_share_a_folder(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    decode = Decoder(path)
    for _ in range(3):
        store = open_store(tmp_path / "store")
        store.array(path, "image", decode)
        store.array(path, "image", decode)
    assert decode.calls == 1


def test_an_unchanged_file_is_served_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path = image(tmp_path / "a.png")
    expected = open_store(tmp_path / "store").array(path, "image", Decoder(path))
    monkeypatch.delattr(store_module, "read_bytes")
    np.testing.assert_array_equal(open_store(tmp_path / "store").array(path, "image", Decoder(path)), expected)


def test_a_small_file_is_read_once_in_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SETTLED_NS", 0)
    path = image(tmp_path / "a.png")
    store = open_store(tmp_path / "store")
    expected = store.array(path, "image", Decoder(path))
    assert not list((tmp_path / "store" / "sources").glob("*/*"))
    monkeypatch.delattr(store_module, "read_bytes")
    np.testing.assert_array_equal(store.array(path, "image", Decoder(path)), expected)


def test_a_copied_data_set_is_recognised_by_content(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    copy = tmp_path / "elsewhere.png"
    shutil.copyfile(path, copy)
    decode = Decoder(copy)
    np.testing.assert_array_equal(open_store(tmp_path / "store").array(copy, "image", decode), read_image(path))
    assert decode.calls == 0


@pytest.mark.parametrize("same_size_and_time", [False, True])
def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_size_and_time: bool) -> None:
    settle(monkeypatch)
    path = tmp_path / "a.bmp"  # of one size whatever it shows
    image(path, 1)
    store = open_store(tmp_path / "store")
    before = store.array(path, "image", Decoder(path)).copy()
    image(path, 2)
    if not same_size_and_time:
        os.utime(path)
    for reader in (store, open_store(tmp_path / "store")):
        found = reader.array(path, "image", Decoder(path))
        np.testing.assert_array_equal(found, read_image(path))
        assert not np.array_equal(found, before)


def test_a_file_written_a_moment_ago_is_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(store_module, "SETTLED_NS", 3600 * 10**9)
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    assert kept(tmp_path / "store")
    assert not list((tmp_path / "store" / "sources").glob("*/*"))


def test_another_class_mapping_is_another_entry(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", counts={"train": 1, "val": 1})
    labels = []
    for target in (0, 1):
        cfg = DataConfig(root=str(root), classes=("a", "b", "c"), label_map={0: target, 1: 1, 2: 2})
        for _ in range(2):
            store = open_store(tmp_path / "store")
            label = create_dataset(cfg, "train", store=store).load(0).label
            np.testing.assert_array_equal(label, create_dataset(cfg, "train").load(0).label)
        labels.append(label)
    assert not np.array_equal(*labels)


@pytest.mark.parametrize(
    "other",
    [
        {"num_classes": 4},
        {"label_map": {0: 0, 1: 2}},
        {"label_map": None},
        {"ignore": (254,)},
        {"label_map": None, "colors": {(0, 0, 0): 0}},
    ],
)
def test_the_text_of_a_label_rule_tells_rules_apart(other: dict[str, object]) -> None:
    rule = {"num_classes": 3, "label_map": {0: 0, 1: 1}}
    assert LabelRule(**rule).text != LabelRule(**rule | other).text
    assert LabelRule(**rule).text == LabelRule(num_classes=3, label_map={1: 1, 0: 0}).text


def test_other_channels_are_another_entry(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", counts={"train": 1, "val": 1})
    shapes = {
        create_dataset(DataConfig(root=str(root), channels=channels), "train", store=open_store(tmp_path / "s"))
        .load(0)
        .image.shape[2]
        for channels in (1, 3)
    }
    assert shapes == {1, 3}


def test_what_the_decoder_raises_is_passed_on_and_nothing_is_kept(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", counts={"train": 1, "val": 1})
    (mask,) = (root / "train" / "masks").iterdir()
    save_codes(mask, np.full(SIZE, 99))
    cfg = DataConfig(root=str(root), classes=("a", "b", "c"))
    for _ in range(2):
        with pytest.raises(DataError, match="label 99"):
            create_dataset(cfg, "train", store=open_store(tmp_path / "store")).load(0)
    assert len(kept(tmp_path / "store")) == 1  # the image


def test_a_missing_file_is_the_same_error_as_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_store(tmp_path / "store").array(tmp_path / "none.png", "image", Decoder(tmp_path))


# ---- several at once
def build(folder: str, path: str, barrier: object, results: object) -> None:
    barrier.wait()
    found = open_store(Path(folder)).array(Path(path), "image", Decoder(Path(path)))
    results.put(int(found.sum()))


def test_two_processes_that_build_one_entry_both_get_it(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=build, args=(str(tmp_path / "store"), str(path), barrier, results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sums == [int(read_image(path).sum())] * 2
    assert len(kept(tmp_path / "store")) == 1


def test_threads_that_build_the_same_entries_all_get_them(tmp_path: Path) -> None:
    paths = [image(tmp_path / f"{seed}.png", seed) for seed in range(4)]
    store, wrong = open_store(tmp_path / "store"), []

    def work() -> None:
        for path in paths * 3:
            if not np.array_equal(store.array(path, "image", Decoder(path)), read_image(path)):
                wrong.append(path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(kept(tmp_path / "store")) == 4


def test_a_writer_killed_halfway_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.png")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(entries.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(tmp_path / "store").array(path, "image", Decoder(path))
    assert kept(tmp_path / "store") == []
    np.testing.assert_array_equal(open_store(tmp_path / "store").array(path, "image", Decoder(path)), read_image(path))


def test_half_written_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "entries" / "a"
    folder.mkdir(parents=True)
    with files.whole_file(folder / "x") as new:
        mine = new.name
        dead = folder / mine.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
        dead.write_bytes(b"half")
        open_store(tmp_path / "store").prepare()
        assert [path.name for path in folder.iterdir()] == [mine]


def test_where_images_are_kept_is_told_on_a_terminal_when_the_store_is_first_made(tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO", "segatlas"):
        for _ in range(2):
            open_store(tmp_path / "store").prepare()
    first, second = (record for record in caplog.records if "images are kept in" in record.getMessage())
    assert not hasattr(first, "on_terminal")
    assert second.on_terminal == ""


# ---- damage
def cut(content: bytearray) -> None:
    del content[-100:]


def cut_to_header(content: bytearray) -> None:
    del content[30:]


def empty(content: bytearray) -> None:
    content.clear()


def flip_a_bit(content: bytearray) -> None:
    content[1000] ^= 4


def flip_the_last_byte(content: bytearray) -> None:
    content[-1] ^= 1


def zero_a_page(content: bytearray) -> None:
    content[1024:3072] = bytes(2048)


def other_shape(content: bytearray) -> None:
    content[24], content[32] = content[32], content[24]


@pytest.mark.parametrize(
    "damage", [cut, cut_to_header, empty, flip_a_bit, flip_the_last_byte, zero_a_page, other_shape]
)
def test_a_damaged_entry_is_decoded_anew_and_replaced(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    (entry,) = kept(tmp_path / "store")
    sound = entry.read_bytes()
    content = bytearray(sound)
    damage(content)
    assert content != sound
    entry.write_bytes(content)
    decode = Decoder(path)
    np.testing.assert_array_equal(open_store(tmp_path / "store").array(path, "image", decode), read_image(path))
    assert decode.calls == 1
    assert entry.read_bytes() == sound


def test_a_checksum_is_compared_once_by_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    calls, original = [], entries._checksum
    monkeypatch.setattr(entries, "_checksum", lambda values: calls.append(1) or original(values))
    store = open_store(tmp_path / "store")
    for _ in range(3):
        store.array(path, "image", Decoder(path))
    assert len(calls) == 1


@pytest.mark.parametrize("shape", [(3,), (5, 7), (5, 7, 3), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_entry_keeps_shape_type_and_values(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    entries.write_entry(str(tmp_path / "x"), array)
    found = entries.open_entry(str(tmp_path / "x"), prove=True)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


# ---- where nothing can be kept
def assert_decodes_with_one_notice(folder: Path, source: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    paths = [image(source / f"{seed}.png", seed) for seed in range(3)]
    store = Store(folder)
    with caplog.at_level(logging.WARNING):
        for path in paths:
            np.testing.assert_array_equal(store.array(path, "image", Decoder(path)), read_image(path))
    notices = [record.getMessage() for record in caplog.records]
    assert len(notices) == 1
    assert reason in notices[0]
    assert str(folder) in notices[0]


def test_a_short_disk_means_decoding_with_one_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "free_space", lambda folder: (9 * 10**9, 100 * 10**9))
    assert_decodes_with_one_notice(tmp_path / "store", tmp_path, caplog, "9.0 GB are free there, 10.0 are left alone")
    assert not (tmp_path / "store").exists()


def test_the_reserve_is_a_tenth_of_the_disk_and_at_most_20_gb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(tmp_path / "a.png")
    for free, total, fits in ((21, 1000, True), (19, 1000, False), (11, 100, True), (9, 100, False)):
        monkeypatch.setattr(store_module, "free_space", lambda _, f=free, t=total: (f * 10**9, t * 10**9))
        folder = tmp_path / f"{free} of {total}"
        Store(folder).array(path, "image", Decoder(path))
        assert bool(kept(folder)) == fits


def test_space_that_comes_free_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = Store(tmp_path / "store", reserve=100), image(tmp_path / "a.png")
    free = iter([0, 10**9, 10**9])
    monkeypatch.setattr(store_module, "free_space", lambda folder: (next(free), 10**12))
    store.array(path, "image", Decoder(path))
    assert not kept(tmp_path / "store")
    store.array(path, "image", Decoder(path))
    assert kept(tmp_path / "store")


def test_a_folder_that_cannot_be_written_means_decoding_with_one_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    assert_decodes_with_one_notice(blocked / "store", tmp_path, caplog, "it cannot be written")


def test_a_disk_that_fills_up_in_a_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries.os, "replace", full)
    assert_decodes_with_one_notice(tmp_path / "store", tmp_path, caplog, "No space left on device")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_store_that_only_serves_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    path = image(tmp_path / "a.png")
    open_store(tmp_path / "store", fill=False).array(path, "image", Decoder(path))
    assert not (tmp_path / "store").exists()
    open_store(tmp_path / "store").array(path, "image", Decoder(path))
    decode = Decoder(path)
    open_store(tmp_path / "store", fill=False).array(path, "image", decode)
    assert decode.calls == 0


# ---- upkeep and choice of the folder
def test_clear_removes_what_is_kept_and_nothing_else(tmp_path: Path) -> None:
    folder, path = tmp_path / "store", image(tmp_path / "a.png")
    store = open_store(folder)
    expected = store.array(path, "image", Decoder(path))
    mapped = open_store(folder).array(path, "image", Decoder(path))
    (folder / "notes.txt").write_text("mine")
    usage = open_store(folder).usage()
    assert usage.entries == 1
    assert usage.bytes == expected.nbytes + 64
    assert open_store(folder).clear() == usage
    assert kept(folder) == []
    assert (folder / "notes.txt").exists()
    np.testing.assert_array_equal(mapped, expected)
    np.testing.assert_array_equal(store.array(path, "image", Decoder(path)), expected)
    assert len(kept(folder)) == 1


def test_clear_leaves_a_folder_alone_that_is_no_store(tmp_path: Path) -> None:
    precious = tmp_path / "entries" / "a" / "precious"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    assert open_store(tmp_path).clear().entries == 0
    assert precious.exists()


def test_the_recipe_decides_before_the_environment_and_that_before_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGATLAS_STORE", str(tmp_path / "env"))
    assert Store.of(DataConfig(store=str(tmp_path / "own"))).folder == tmp_path / "own"
    assert Store.of(DataConfig()).folder == tmp_path / "env"
    assert Store.of(DataConfig(store="off")) is None
    monkeypatch.setenv("SEGATLAS_STORE", "off")
    assert Store.of(DataConfig()) is None
    monkeypatch.delenv("SEGATLAS_STORE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache" / "segatlas" / "store"
