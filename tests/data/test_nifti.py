"""NIfTI volumes: slices keep the order of voxels, labels the affine, and what cannot be used is told with its file."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from fakes.lits import AFFINE, save_volume, volume
from fakes.shared import shared_data

from segatlas.data.formats.nifti import (
    decode_volume,
    read_header,
    read_slice,
    volume_in_memory,
    whole_numbers,
    windowed,
    write_labels,
)
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError, MissingExtraError
from segatlas.structures import VolumeSlices


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_slice_has_the_second_axis_left_as_rows_and_the_first_as_columns(tmp_path, axis, ending):
    values, _ = volume(0)
    path, slices = save_volume(tmp_path / f"v{ending}", values), VolumeSlices(axis=axis)
    header = read_header(path)
    whole = decode_volume(path.read_bytes(), slices, path)
    assert (header.shape, whole.dtype, header.slices(axis)) == (values.shape, np.int16, values.shape[axis])
    for index in range(values.shape[axis]):
        expected = values.take(index, axis).T
        assert np.array_equal(whole[index], expected)
        assert header.size(axis) == expected.shape
        if ending == ".nii":
            assert np.array_equal(read_slice(path, header, slices, index), expected)
    assert np.array_equal(volume_in_memory(path, slices), whole)


def test_a_flipped_axis_keeps_the_order_of_voxels(tmp_path):
    values, _ = volume(0)
    one, other = (save_volume(tmp_path / f"{sign}.nii", values, np.diag([sign, 1, 1, 1])) for sign in (1, -1))
    both = [read_slice(path, read_header(path), VolumeSlices(), 2) for path in (one, other)]
    assert np.array_equal(*both)


def test_stored_values_are_scaled_as_the_header_says(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    for kind, name in ((nibabel.Nifti1Image, "one.nii"), (nibabel.Nifti2Image, "two.nii.gz")):
        path = tmp_path / name
        kind(stored * 0.5 - 10, np.eye(4), image.header).to_filename(path)
        found = decode_volume(path.read_bytes(), VolumeSlices(), path)
        assert found.dtype == np.float32
        assert np.allclose(found, np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0))
        assert found[0, 0, 1] == pytest.approx(12 * 0.5 - 10, abs=0.01)
    swapped = save_volume(tmp_path / "big.nii", stored)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.Nifti1Image(stored, AFFINE, header).to_filename(swapped)
    assert np.array_equal(read_slice(swapped, read_header(swapped), VolumeSlices(), 1), stored[:, :, 1].T)


def test_the_window_maps_its_ends_to_0_and_1_and_cuts_what_lies_beyond():
    values = np.array([[-1024, -250, 0], [125, 250, 3000]], np.int16)
    found = windowed(values, VolumeSlices(), "a.nii")
    assert (found.shape, found.dtype) == ((2, 3, 1), np.float32)
    assert found[..., 0].ravel().tolist() == [0, 0, 0.5, 0.75, 1, 1]
    with pytest.raises(DataError, match=r"a.nii: 1 voxels of a slice are no numbers, the first at row 0, column 1"):
        windowed(np.array([[0.0, np.nan]]), VolumeSlices(), "a.nii")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_labels_are_written_with_affine_spacing_and_units_of_the_volume(tmp_path, ending):
    values, label = volume(0)
    source = save_volume(tmp_path / "v.nii.gz", values)
    written = nibabel.load(write_labels(tmp_path / f"labels{ending}", label, source))
    original = nibabel.load(source)
    assert np.array_equal(np.asarray(written.dataobj), label)
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(written.affine, original.affine)
    for name in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        assert np.array_equal(written.header[name], original.header[name]), name


def with_bytes(path, place, values):
    """Write a sound volume with some bytes of its header changed."""
    data = bytearray(save_volume(path, volume(0)[0]).read_bytes())
    data[place : place + values.nbytes] = values.tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_extensions_of_a_header_are_passed_over_and_kept_beside_the_labels(tmp_path, kind, ending):
    (values, label), path = volume(0), tmp_path / f"v{ending}"
    image = kind(values, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 3000))
    image.to_filename(path)
    assert np.array_equal(decode_volume(path.read_bytes(), VolumeSlices(), path)[2], values[:, :, 2].T)
    assert read_header(path).begin > 3000
    written = nibabel.load(write_labels(tmp_path / f"l{ending}", label, path))
    assert np.array_equal(np.asarray(written.dataobj), label)
    assert written.header.extensions.count("comment") == 1


def test_an_unused_rotation_that_means_nothing_is_kept_as_it_is(tmp_path):
    for wrong in (1.0, np.nan):
        source = with_bytes(tmp_path / "v.nii", 256, np.full(3, wrong, "<f4"))  # the quaternion; the sform counts
        written = nibabel.load(write_labels(tmp_path / "l.nii", volume(0)[1], source))
        assert np.array_equal(written.affine, nibabel.load(source).affine)
        assert np.array_equal(written.header["quatern_c"], np.float32(wrong), equal_nan=True)


def broken(path, kind):
    """Write a volume with one fault."""
    values, _ = volume(0)
    if kind == "no affine":
        return save_volume(path, values, None, sform_code=0, qform_code=0)
    if kind == "four axes":
        return save_volume(path, np.stack([values, values], axis=-1))
    if kind == "no volume":
        path.write_bytes(gzip.compress(b"hello" * 200))
        return path
    save_volume(path, values)
    data = bytearray(gzip.decompress(path.read_bytes()))
    if kind == "negative spacing":
        data[84:88] = np.float32(-0.7).tobytes()
    if kind == "flat":
        data[280:296] = bytes(16)
        data[252:256] = np.array([0, 1], "<i2").tobytes()
    if kind == "huge":
        data[42:48] = np.array([32767] * 3, "<i2").tobytes()
    if kind == "short":
        data = data[:-100]
    if kind == "pair":
        data[344:348] = b"ni1\0"
    if kind == "half a scale":
        data[112:120] = np.array([2, np.nan], "<f4").tobytes()
    if kind == "header as voxels":
        data[108:112] = np.float32(100).tobytes()
    path.write_bytes(gzip.compress(bytes(data)))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no affine", "has no affine: neither its sform nor its qform is set"),
        ("four axes", "has 4 axes (40 x 32 x 5 x 2); a volume of 3 is read"),
        ("negative spacing", "its voxels are 0.7, -0.7, 1.5 apart; spacings are above 0"),
        ("flat", "its affine is no map of space"),
        ("huge", "has 32767 x 32767 x 32767 voxels, above the limit of"),
        ("no volume", "is no NIfTI volume, or its header is damaged"),
        ("pair", "has its voxels in another file (.hdr and .img)"),
        ("half a scale", "its values are 2 times the stored ones plus nan; correct its header (scl_inter)"),
        ("header as voxels", "says that its voxels begin at byte 100; they begin at 352 or later"),
    ],
)
def test_a_header_that_cannot_be_used_is_told_with_its_file(tmp_path, kind, message):
    path = broken(tmp_path / "v.nii.gz", kind)
    for read in (read_header, read_shape, lambda file: decode_volume(file.read_bytes(), VolumeSlices(), file)):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)


def test_truncated_files_are_told(tmp_path):
    path = broken(tmp_path / "short.nii.gz", "short")
    with pytest.raises(
        DataError, match=r"short.nii.gz: is truncated: \d+ bytes, 13152 are needed for 40 x 32 x 5 voxels"
    ):
        decode_volume(path.read_bytes(), VolumeSlices(), path)
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(DataError, match=r"plain.nii: is truncated"):
        read_header(plain)
    cut = save_volume(tmp_path / "cut.nii.gz", volume(0)[0])
    cut.write_bytes(cut.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"cut.nii.gz: cannot be decoded, is the file truncated or damaged"):
        decode_volume(cut.read_bytes(), VolumeSlices(), cut)
    with pytest.raises(DataError, match=r"nothing.nii: no such file"):
        read_header(tmp_path / "nothing.nii")


def test_codes_are_whole_numbers():
    assert whole_numbers(np.array([[0.0, 2.0]], np.float32), "a", 0).tolist() == [[0, 2]]
    with pytest.raises(
        DataError, match=r"a: slice 3: 1 voxels hold no whole numbers, .* the first is 0.5 at row 0, column 1"
    ):
        whole_numbers(np.array([[0.0, 0.5]], np.float32), "a", 3)


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    path = save_volume(tmp_path / "v.nii", volume(0)[0])
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"reading NIfTI volumes needs nibabel .*segatlas\[medical\]"):
        read_header(path)


def test_a_real_volume_is_read_as_nibabel_reads_it():
    path = shared_data("samples/nifti_msd/imagesTr/case_001.nii.gz")
    header, array = read_header(path), np.asarray(nibabel.load(path).dataobj)
    assert (header.shape, header.spacing) == ((35, 51, 35), (1.0, 1.0, 1.0))
    assert np.array_equal(header.affine, nibabel.load(path).affine)
    assert np.array_equal(decode_volume(path.read_bytes(), VolumeSlices(axis=1), path)[20], array[:, 20].T)
