"""One zip of masks with the names that a test server asks for."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from segatlas.errors import UsageError
from segatlas.files import whole_file

CITYSCAPES_NAME = re.compile(r"[a-z-]+_\d{6}_\d{6}_leftImg8bit")
"""CITY_SEQUENCE_FRAME_leftImg8bit: the server finds a prediction by the three parts at its beginning."""
CITYSCAPES_TEST = 1525
"""Images of Cityscapes' test set."""
_DATE = (1980, 1, 1, 0, 0, 0)


def names_in_zip(sources: Mapping[Path, Path]) -> dict[Path, str]:
    """Return mask file -> its name in the zip: that of the image, with .png, without folders.

    Args:
        sources: mask file -> image file.

    Raises:
        UsageError: an image that is not called as Cityscapes' are, or two of one name.
    """
    names: dict[str, Path] = {}
    for mask, image in sources.items():
        if not CITYSCAPES_NAME.fullmatch(image.stem):
            raise UsageError(
                f"--zip: {image.name} is not called as images of Cityscapes are, such as "
                "berlin_000000_000019_leftImg8bit.png: the server would not find its prediction"
            )
        if (other := names.setdefault(f"{image.stem}.png", mask)) != mask:
            raise UsageError(f"--zip: {image.name} comes twice: {other} and {mask} would have one name")
    return {mask: name for name, mask in names.items()}


def write_zip(names: Mapping[Path, str], path: Path) -> None:
    """Write files into a zip, by name; the same files give the same zip. An existing one is replaced in one step."""
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for file, name in sorted(names.items(), key=lambda pair: pair[1]):
            archive.writestr(zipfile.ZipInfo(name, _DATE), file.read_bytes())
