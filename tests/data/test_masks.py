from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from fakes.images import raw_png, save_codes
from fakes.shared import shared_data
from PIL import Image

from segatlas import structures
from segatlas.data.formats import masks
from segatlas.data.formats.masks import label_counts, read_mask, translate, write_color_mask, write_mask
from segatlas.data.formats.palettes import voc_palette
from segatlas.data.formats.rle import encode_rle
from segatlas.errors import DataError

RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 256, (6, 9)).astype(np.uint8)
TABLE = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 200, 7): 255}


def color_mask(path: Path, codes: np.ndarray, table: dict) -> Path:
    colors = {code: color for color, code in table.items()}
    image = np.array([[colors[int(code)] for code in row] for row in codes], np.uint8)
    Image.fromarray(image).save(path)
    return path


def test_ignore_is_the_same_number_as_in_structures():
    assert masks.IGNORE == structures.IGNORE


def test_palette_indices_are_kept(tmp_path):
    save_codes(tmp_path / "a.png", CODES, palette=[(i, 255 - i, 7) for i in range(256)])
    assert np.array_equal(read_mask(tmp_path / "a.png"), CODES)


def test_palette_of_four_bits_is_kept(tmp_path):
    image = Image.fromarray((CODES % 12).astype(np.uint8))
    image.putpalette([value for i in range(12) for value in (20 * i, 0, 9)])
    image.save(tmp_path / "a.png", bits=4)
    assert np.array_equal(read_mask(tmp_path / "a.png"), CODES % 12)


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".pgm", ".webp"])
def test_8_bit_values_are_kept(tmp_path, ending):
    options = {"lossless": True} if ending == ".webp" else {}
    Image.fromarray(CODES).save(tmp_path / f"a{ending}", **options)
    raw = read_mask(tmp_path / f"a{ending}")
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, CODES)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bit_values_are_kept(tmp_path, ending):
    codes = CODES.astype(np.uint16) * 257
    Image.fromarray(codes).save(tmp_path / f"a{ending}")
    raw = read_mask(tmp_path / f"a{ending}")
    assert raw.dtype == np.uint16
    assert np.array_equal(raw, codes)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_wide_integers_come_as_int32(tmp_path, dtype):
    codes = CODES.astype(dtype) * 100
    tifffile.imwrite(tmp_path / "a.tif", codes)
    raw = read_mask(tmp_path / "a.tif")
    assert raw.dtype == np.int32
    assert np.array_equal(raw, codes.astype(np.int32))


def test_1_bit_values_are_0_and_1(tmp_path):
    Image.fromarray(CODES > 100).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), CODES > 100)


@pytest.mark.parametrize(("depth", "row"), [(2, bytes([0b00011011])), (4, bytes([0x01, 0x23]))])
def test_grey_values_of_2_and_4_bits_are_not_spread(tmp_path, depth, row):
    (tmp_path / "a.png").write_bytes(raw_png([row], 4, depth, 0))
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


def test_grey_stored_as_rgb_or_with_alpha_is_read_as_grey(tmp_path):
    Image.fromarray(np.dstack([CODES] * 3)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([CODES] * 3 + [CODES[::-1]])).save(tmp_path / "rgba.png")
    Image.fromarray(np.dstack([CODES, CODES[::-1]])).save(tmp_path / "la.png")
    for name in ("rgb", "rgba", "la"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), CODES)


def test_colour_mask_without_table_is_an_error_that_suggests_one(tmp_path):
    path = color_mask(tmp_path / "a.png", np.array([[0, 1], [1, 255]]), TABLE)
    with pytest.raises(DataError, match=r"a colour mask with 3 colours \('0,0,0', .*data\.label_colors=\{'0,0,0': 0"):
        read_mask(path)


def test_colour_mask_is_read_by_table(tmp_path):
    codes = RNG.choice([0, 1, 255], (6, 9))
    raw = read_mask(color_mask(tmp_path / "a.png", codes, TABLE), TABLE)
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, codes)


def test_palette_mask_is_read_as_colours_where_a_table_is_given(tmp_path):
    save_codes(tmp_path / "a.png", np.array([[0, 1, 2]]), palette=[(128, 0, 0), (0, 0, 0), (0, 200, 7)])
    assert read_mask(tmp_path / "a.png", TABLE).tolist() == [[1, 0, 255]]


def test_large_codes_of_a_colour_table_are_kept(tmp_path):
    path = color_mask(tmp_path / "a.png", np.array([[0, 1]]), TABLE)
    assert read_mask(path, {(0, 0, 0): 1000, (128, 0, 0): 2}).tolist() == [[1000, 2]]


def test_unknown_colour_is_named_with_count_and_place(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    image[1, 3] = image[2, 0] = (127, 0, 0)
    image[3, 4] = (9, 9, 9)
    Image.fromarray(image).save(tmp_path / "a.png")
    message = (
        r"a\.png: colour \(127, 0, 0\) is not in the table of 3 colours: 2 pixel\(s\), first at row 1, column 3; "
        r"the nearest in the table is \(128, 0, 0\); 1 further unknown"
    )
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "a.png", TABLE)


def test_numbers_cannot_be_read_by_a_colour_table(tmp_path):
    Image.fromarray(CODES.astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="mask of numbers"):
        read_mask(tmp_path / "a.png", TABLE)


def test_fractions_are_no_codes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 3), 0.5, np.float32))
    with pytest.raises(DataError, match="fractions"):
        read_mask(tmp_path / "a.tif")


def test_many_channels_are_no_mask(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 3, 6), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"6 channel\(s\) of uint8 are not a mask"):
        read_mask(tmp_path / "a.tif")


def test_bad_files_are_named(tmp_path):
    save_codes(tmp_path / "a.png", RNG.integers(0, 255, (64, 64)))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b\.png: no such file; the nearest name there is a\.png"):
        read_mask(tmp_path / "b.png")


def test_real_palette_masks_keep_their_indices():
    assert set(np.unique(read_mask(shared_data("camvid/trainannot/0001TP_006690.png")))) <= set(range(12))
    folder = shared_data("samples/voc/VOCdevkit/VOC2012/SegmentationClass")
    assert np.unique(read_mask(folder / "2008_002536.png")).tolist() == [0, 12, 17, 255]


def test_real_colour_mask_agrees_with_its_label_ids():
    from segatlas.data.datasets.cityscapes import LABELS

    folder = shared_data("samples/cityscapes/gtFine/train/aachen")
    stem = "aachen_000000_000019_gtFine"
    colors = {color: index for index, (_, train_id, color) in enumerate(LABELS) if train_id != 255} | {(0, 0, 0): 0}
    by_color = read_mask(folder / f"{stem}_color.png", colors)
    by_id = read_mask(folder / f"{stem}_labelIds.png")
    agree = by_color == np.where(np.isin(by_id, list(colors.values())), by_id, 0)
    assert agree.all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_translate_agrees_with_a_slow_loop(dtype):
    label_map = {3: 0, 7: 1, 200: 2, 9: 255}
    raw = RNG.choice([3, 7, 200, 9, 254, 255], (6, 9)).astype(dtype)
    labels = translate(raw, 3, label_map=label_map, ignore=(254, 255))
    slow = [[label_map.get(int(code), 255) for code in row] for row in raw]
    assert labels.dtype == np.uint8
    assert labels.tolist() == slow


def test_without_a_map_codes_are_indices_and_255_is_ignored():
    raw = np.array([[0, 1, 2, 255]], np.uint8)
    assert translate(raw, 3).tolist() == [[0, 1, 2, 255]]


def test_map_wins_over_ignore():
    assert translate(np.array([[0, 255]], np.uint8), 2, label_map={0: 0, 255: 1}).tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_label_out_of_range_is_named_with_its_count(dtype):
    raw = np.array([[0, 1, 89], [89, 255, 90]], dtype)
    message = (
        r"street\.png: label 89 \(2 pixels\), 90 \(1 pixels\) in a set of 2 classes; expected 0\.\.1, or 255 for "
        r"ignore; run `segatlas data check`"
    )
    with pytest.raises(DataError, match=message):
        translate(raw, 2, path="street.png")


def test_code_that_the_map_lacks_is_an_error():
    with pytest.raises(DataError, match=r"label 5 \(1 pixels\).*expected a value of the label map \(0, 255\)"):
        translate(np.array([[0, 5]], np.uint8), 2, label_map={0: 0, 255: 1})


def test_negative_codes_are_out_of_range():
    with pytest.raises(DataError, match=r"label -1 \(1 pixels\)"):
        translate(np.array([[0, -1]], np.int32), 2)


def test_jpeg_mask_out_of_range_says_why(tmp_path):
    Image.fromarray(np.kron(CODES[:4, :4] > 128, np.ones((5, 5))).astype(np.uint8) * 255).save(tmp_path / "a.jpg")
    raw = read_mask(tmp_path / "a.jpg", lossy=True)
    with pytest.raises(DataError, match="JPEG smears labels"):
        translate(raw, 2, path=tmp_path / "a.jpg")


def test_map_to_a_class_that_is_not_there_is_an_error():
    with pytest.raises(DataError, match=r"label map sends 4 to 2; expected 0\.\.1 or 255"):
        translate(np.zeros((2, 2), np.uint8), 2, label_map={0: 0, 4: 2})


def test_more_than_255_classes_are_an_error():
    with pytest.raises(DataError, match="256 classes"):
        translate(np.zeros((2, 2), np.uint8), 256)


def test_label_counts_agree_with_a_loop():
    for raw in (CODES, CODES.astype(np.uint16) * 200, CODES.astype(np.int32) - 100):
        assert label_counts(raw) == {int(code): int((raw == code).sum()) for code in np.unique(raw)}


def test_written_mask_comes_back_with_its_palette(tmp_path):
    codes = np.array([[0, 1], [2, 255]], np.uint8)
    write_mask(tmp_path / "new" / "a.png", codes, palette=[(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == "P"
        assert np.asarray(image.convert("RGB"))[1, 0].tolist() == [7, 8, 9]
    assert np.array_equal(read_mask(tmp_path / "new" / "a.png"), codes)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_mask_above_255_is_written_with_16_bits(tmp_path):
    codes = np.array([[0, 65535]], np.int32)
    write_mask(tmp_path / "a.png", codes)
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 65535]]


@pytest.mark.parametrize("array", [np.array([[-1]]), np.array([[65536]]), np.zeros((2, 2)), np.zeros(3, np.uint8)])
def test_what_is_no_mask_is_not_written(tmp_path, array):
    with pytest.raises(DataError, match=r"expected \(H, W\) integers"):
        write_mask(tmp_path / "a.png", array)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_mask(tmp_path / "a.png", CODES)

    def full_disk(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        write_mask(tmp_path / "a.png", CODES // 2)
    assert np.array_equal(read_mask(tmp_path / "a.png"), CODES)
    assert len(list(tmp_path.iterdir())) == 1


def test_colour_mask_is_written_with_the_palette(tmp_path):
    write_color_mask(tmp_path / "a.png", np.array([[0, 1, 255]], np.uint8), [(1, 2, 3), (4, 5, 6)], (9, 9, 9))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[1, 2, 3], [4, 5, 6], [9, 9, 9]]]
    with pytest.raises(DataError, match=r"values 0\.\.1 or 255"):
        write_color_mask(tmp_path / "b.png", np.array([[2]], np.uint8), [(1, 2, 3), (4, 5, 6)])


def test_voc_palette_has_the_published_colours():
    palette = voc_palette(256)
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[20] == (0, 64, 128)
    assert palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256


def test_rle_agrees_with_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    for mask in (CODES > 90, CODES >= 0, CODES < 0, np.ones((1, 1), bool)):
        code = encode_rle(mask)
        assert sum(code["counts"]) == mask.size
        assert np.array_equal(coco.decode(coco.frPyObjects(code, *mask.shape)), mask)
