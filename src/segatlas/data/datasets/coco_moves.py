"""What to type so that COCO's files in the layout of a tool are read: `SPLIT/instances.json` beside `SPLIT/images/`.

That form, of the two that are read, needs no file for val: a part of train is then held out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segatlas.data.datasets.listing import SPLITS
from segatlas.data.formats.listing import is_image_name

FORM = (
    "COCO's files are read as train/instances.json beside the images in train/images/, likewise val and test; without "
    "a val, a part of train is held out"
)
_OTHER_SPLITS = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
_FILE_NAME = re.compile(r'"file_name"\s*:\s*"((?:[^"\\]|\\.)*)"')


def moves(root: Path, files: Sequence[tuple[Path, str]], folders: Sequence[Path]) -> str:
    """Return the commands that lay a folder out so, a line a split; "" where it is not clear what belongs together.

    Args:
        root: the folder.
        files: COCO's files in it, each with its text or the begin of that.
        folders: those below the root.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for path, text in files:
        images = _folder_of_images(text, root, (path.parent, root, *folders))
        split = _split_of(path, images, alone=len(files) == 1)
        if images is None or split is None or split in found:
            return ""
        found[split] = path, images
    if len({images for _, images in found.values()}) < len(found):
        return ""
    return "\n".join(" && ".join(_steps(root, split, *found[split])) for split in SPLITS if split in found)


def _folder_of_images(text: str, root: Path, folders: Sequence[Path]) -> Path | None:
    """Return the folder from which the first image is named that a file lists, never the root if that has a folder."""
    match = _FILE_NAME.search(text)
    if match is None:
        return None
    listed = PurePosixPath(match[1].replace("\\/", "/").replace("\\\\", "/"))
    for folder in folders:
        if (folder / listed).is_file():
            return root / listed.parts[0] if folder == root and len(listed.parts) > 1 else folder
        if (folder / listed.name).is_file():
            return folder
    return None


def _split_of(path: Path, images: Path | None, *, alone: bool) -> str | None:
    """Return the split that the name of a file or of its folder says; train of a file that is alone."""
    for name in (path.stem.rpartition("_")[2], path.parent.name, "" if images is None else images.name):
        split = _OTHER_SPLITS.get(name.lower(), name.lower())
        if split in SPLITS:
            return split
    return "train" if alone else None


def _steps(root: Path, split: str, file: Path, images: Path) -> Iterator[str]:
    """Yield the commands for one split."""
    home = root / split
    place, now = home / "images", file
    if images == root:  # only its images go, all else stays
        endings = sorted({path.suffix for path in root.iterdir() if is_image_name(path)})
        yield f"mkdir -p {_word(place)}"
        yield f"mv {' '.join(f'{_word(root)}/*{_word(ending)}' for ending in endings)} {_word(place)}"
    elif images != place:
        now = place / file.relative_to(images) if file.is_relative_to(images) else file
        if images == home:
            aside = root / f"images-of-{split}"
            yield f"mv {_word(images)} {_word(aside)}"
            images = aside
        yield f"mkdir -p {_word(home)}"
        yield f"mv {_word(images)} {_word(place)}"
    yield f"mv {_word(now)} {_word(home / 'instances.json')}"


def _word(path: Path | str) -> str:
    return shlex.quote(str(path))
