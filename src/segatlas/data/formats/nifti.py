"""Volumes in NIfTI files (.nii, .nii.gz): headers, slices, and label volumes written. The one file that needs nibabel.

A volume is an array of three axes as it is stored: nothing is turned or flipped by what the affine says, so that a
slice keeps the order of its voxels, and a label volume written beside it lies on the same voxels. Its slices are made
by `VolumeSlices`: along axis 2, voxel (i, j, k) is the pixel of column i and row j of slice k.

An uncompressed file is read slice by slice. Of a compressed one all before a slice has to be unpacked to reach it, so
it is unpacked whole: `decode_volume`, whose result the decoded store keeps; without one a process keeps the last
volume.
"""

from __future__ import annotations

import gzip
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from segatlas.data.formats.guards import (
    VOLUME_ENDINGS,
    check_file,
    check_voxels,
    decoding,
    is_volume_name,
    read_bytes,
)
from segatlas.errors import DataError, MissingExtraError
from segatlas.files import whole_file
from segatlas.structures.volume_slices import VolumeSlices

__all__ = ["VOLUME_ENDINGS", "VolumeHeader", "decode_volume", "is_volume_name", "read_header", "read_slice"]

_HEADER_BYTES = 540  # that of NIfTI-2, the longer one
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """What the header of a volume says, checked.

    shape: voxels along the three axes, as stored. spacing: of voxels along them, above 0, mostly in millimetres.
    affine: from voxel (i, j, k, 1) to a place in space, 4 rows of 4. dtype: of the stored values. slope, intercept: a
    value is slope x stored + intercept. begin: byte of the unpacked file at which the voxels begin.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0
    begin: int = 352

    @property
    def bytes_needed(self) -> int:
        """Bytes of the unpacked file up to its last voxel."""
        return self.begin + math.prod(self.shape) * self.dtype.itemsize

    def slices(self, axis: int) -> int:
        """Return the number of slices along an axis."""
        return self.shape[axis]

    def size(self, axis: int) -> tuple[int, int]:
        """Return the (rows, columns) of a slice along an axis."""
        columns, rows = (length for place, length in enumerate(self.shape) if place != axis)
        return rows, columns


def import_nibabel() -> ModuleType:
    """Return nibabel. MissingExtraError where it is not installed."""
    try:
        import nibabel
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nibabel":
            raise
        raise MissingExtraError("reading NIfTI volumes", "nibabel", "medical") from None
    module: ModuleType = nibabel
    return module


def read_header(path: str | Path) -> VolumeHeader:
    """Read the header of a volume; its voxels are not read.

    Raises:
        DataError: no such file, no NIfTI file, truncated; another number of axes than three; spacings that are not
            above 0; no affine, or one of which a volume has no extent.
        MissingExtraError: nibabel is not installed.
    """
    path = check_file(path, VOLUME_ENDINGS)
    import_nibabel()
    is_packed = path.suffix.lower() == ".gz"
    with decoding(path), gzip.open(path) if is_packed else path.open("rb") as stream:
        header = _parsed(stream.read(_HEADER_BYTES), path)
    if not is_packed:
        _refuse_shorter(path.stat().st_size, header, path)
    return header


def _parsed(begin: bytes, path: Path) -> VolumeHeader:
    """Check the beginning of an unpacked file and return its header."""
    nib = import_nibabel()
    kinds = {348: (nib.Nifti1Header, b"n+1\0"), 540: (nib.Nifti2Header, b"n+2\0")}
    size = next((s for order in ("little", "big") if (s := int.from_bytes(begin[:4], order)) in kinds), 0)
    if not size or len(begin) < size:
        raise DataError(f"is no NIfTI volume, or its header is damaged (it begins with {begin[:8]!r})", path)
    kind, magic = kinds[size]
    with decoding(path):
        header = kind.from_fileobj(io.BytesIO(begin[:size]), check=False)  # extensions behind it are left alone
        if bytes(header["magic"].tobytes())[:4] != magic:
            raise DataError("has its voxels in another file (.hdr and .img); save it as one .nii", path)
        dims = [int(length) for length in header["dim"]]
        dtype = header.get_data_dtype()
        voxels_at = int(header["vox_offset"])
    shape = _shape(dims, path)
    spacing = _spacing([float(value) for value in header["pixdim"][1:4]], path)
    if dtype.kind not in "iuf":
        raise DataError(f"holds values of the type {dtype}; whole numbers and floats are read", path)
    check_voxels(shape, path)
    if voxels_at < size + 4:
        raise DataError(f"says that its voxels begin at byte {voxels_at}; they begin at {size + 4} or later", path)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        slope, intercept = 1.0, 0.0  # so says the standard
    if not math.isfinite(intercept):
        told = f"its values are {slope:g} times the stored ones plus {intercept:g}; correct its header (scl_inter)"
        raise DataError(told, path)
    return VolumeHeader(
        shape=shape,
        spacing=spacing,
        affine=_affine(header, path),
        dtype=dtype,
        slope=slope,
        intercept=intercept,
        begin=voxels_at,
    )


def _refuse_shorter(found: int, header: VolumeHeader, path: Path) -> None:
    if found < header.bytes_needed:
        raise DataError(
            f"is truncated: {found} bytes, {header.bytes_needed} are needed for {_text(header.shape)} voxels", path
        )


def _shape(dims: list[int], path: Path) -> tuple[int, int, int]:
    count, lengths = dims[0], dims[1 : dims[0] + 1] if 1 <= dims[0] <= 7 else []
    if count != 3:
        found = f"has {count} axes ({_text(tuple(lengths))})" if lengths else f"says that it has {count} axes"
        raise DataError(f"{found}; a volume of 3 is read: save the one that is meant as a file of its own", path)
    if min(lengths) < 1:
        raise DataError(f"says that it has {_text(tuple(lengths))} voxels", path)
    return lengths[0], lengths[1], lengths[2]


def _spacing(values: list[float], path: Path) -> tuple[float, float, float]:
    if not all(math.isfinite(value) and value > 0 for value in values):
        told = ", ".join(f"{value:g}" for value in values)
        raise DataError(f"its voxels are {told} apart; spacings are above 0: correct its header (pixdim)", path)
    return values[0], values[1], values[2]


def _affine(header: Any, path: Path) -> tuple[tuple[float, ...], ...]:
    with decoding(path):
        codes = [int(header[name]) for name in ("sform_code", "qform_code")]
        if not any(codes):
            raise DataError(
                "has no affine: neither its sform nor its qform is set, so nothing says how its voxels lie in space; "
                "set one in its header",
                path,
            )
        affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-12:
        raise DataError("its affine is no map of space: not finite, or flat along an axis; correct its header", path)
    return tuple(tuple(float(value) for value in row) for row in affine)


def read_slice(path: str | Path, header: VolumeHeader, slices: VolumeSlices, index: int) -> np.ndarray:
    """Return a slice of an uncompressed volume, (rows, columns) of its values. DataError where it cannot be read."""
    with decoding(path):
        stored = np.memmap(path, header.dtype, "r", header.begin, header.shape, "F")
        place = tuple(index if axis == slices.axis else slice(None) for axis in range(3))
        return np.ascontiguousarray(_values(np.asarray(stored[place]), header).T)


def decode_volume(data: bytes, slices: VolumeSlices, path: str | Path) -> np.ndarray:
    """Return all slices of a file's bytes, (slices, rows, columns) of its values.

    Raises:
        DataError: as `read_header`, or its voxels cannot be unpacked: it is truncated or damaged.
    """
    path = Path(path)
    source = io.BytesIO(data)
    with decoding(path), gzip.GzipFile(fileobj=source) if data[:2] == _GZIP else source as stream:
        begin = stream.read(_HEADER_BYTES)
        header = _parsed(begin, path)
        content = begin + stream.read(max(0, header.bytes_needed - len(begin)))  # no more than the header says
        _refuse_shorter(len(content), header, path)
        stream.read(1)  # at the end a packed file's checksum is compared
    stored = np.frombuffer(content, header.dtype, math.prod(header.shape), header.begin).reshape(
        header.shape, order="F"
    )
    columns, rows = (axis for axis in range(3) if axis != slices.axis)
    return np.ascontiguousarray(_values(stored, header).transpose(slices.axis, rows, columns))


def volume_in_memory(path: Path, slices: VolumeSlices) -> np.ndarray:
    """Return what `decode_volume` makes of a file; the last one is kept while its file does not change."""
    stat = check_file(path, VOLUME_ENDINGS).stat()
    return _kept_volume(str(path), slices, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _kept_volume(path: str, slices: VolumeSlices, size: int, changed_ns: int) -> np.ndarray:
    array = decode_volume(read_bytes(path), slices, path)
    array.flags.writeable = False
    return array


def _values(stored: np.ndarray, header: VolumeHeader) -> np.ndarray:
    """Return the values of stored numbers in a type of this machine: whole ones as they are, all others as float32."""
    if (header.slope, header.intercept) != (1.0, 0.0):
        return (stored.astype(np.float64) * header.slope + header.intercept).astype(np.float32)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4:
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return stored.astype(np.float32)


def whole_numbers(values: np.ndarray, path: Path, index: int) -> np.ndarray:
    """Return the codes of a label's slice as integers. DataError where a value is no whole number."""
    if values.dtype.kind in "iu":
        return values
    codes = np.rint(values)
    bad = ~(codes == values)
    if bad.any():
        row, column = (int(place) for place in np.argwhere(bad)[0])
        text = f"slice {index}: {int(bad.sum())} voxels hold no whole numbers, which classes are; the first is "
        raise DataError(f"{text}{values[row, column]:g} at row {row}, column {column}", path)
    return codes.astype(np.int32)


def windowed(values: np.ndarray, slices: VolumeSlices, name: str | Path) -> np.ndarray:
    """Return (rows, columns, 1) float32 of 0..1 of the values of a slice. DataError where one is no number."""
    low, high = slices.window
    found = values.astype(np.float32)
    if not np.isfinite(found).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(found))[0])
        count = int((~np.isfinite(found)).sum())
        raise DataError(f"{count} voxels of a slice are no numbers, the first at row {row}, column {column}", name)
    shown: np.ndarray = (np.clip(found, low, high) - low) / np.float32(high - low)
    return shown[..., None]


def write_labels(path: str | Path, labels: np.ndarray, like: str | Path) -> Path:
    """Write a label volume (I, J, K) uint8 with the affine, spacing and units of another file, whole or not at all.

    Raises:
        DataError: the other file cannot be read any more, or this one cannot be written.
    """
    nib = import_nibabel()
    path = Path(path)
    with decoding(like):
        other = nib.load(like)
        header = other.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, 0
        header["descrip"] = b"labels"
        data = type(other)(labels, None, header).to_bytes()  # without an affine sform and qform stay as they are
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix.lower() == ".gz" else data)
    return path


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
