"""What the commands of `segatlas explain` share: how they name a model, an output, and how they load and write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli import completion
from segatlas.cli.common import aux_paths

if TYPE_CHECKING:
    import numpy as np

    from segatlas.inference import Predictor

MODEL_HELP = "Run folder, model folder, checkpoint, published name or hub id."
ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP, autocompletion=completion.models)]
ImageArgument = Annotated[Path, typer.Argument(help="The image file.")]
ClassOption = Annotated[
    list[str] | None, typer.Option("--class", metavar="NAME", help="A class, by name or number; may be repeated.")
]
AuxOption = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]FILE", help="A further input of the model; may be repeated.")
]
ScoreOption = Annotated[float | None, typer.Option(help="Objects of a lower score are left out.")]
OutOption = Annotated[Path, typer.Option("--out", help="The image file to write (.png, .jpg, .webp or .tif).")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file where it is there.")]


def load_model(
    model: str,
    *,
    device: str = "auto",
    offline: bool = False,
    commercial_ok: bool = False,
    score: float | None = None,
) -> Predictor:
    """Return the model's Predictor. score: objects of a lower one are left out."""
    from segatlas.inference import load

    objects = None if score is None else {"score": score}
    return load(model, device=device, offline=offline, commercial_ok=commercial_ok, objects=objects)


def read_aux(words: Sequence[str] | None) -> dict[str, Any] | None:
    """Return the further inputs that --aux names, see `named_aux`; None where it names none.

    Raises:
        UsageError: not NAME=FILE, a name twice, no such file.
    """
    from segatlas.errors import UsageError

    named = aux_paths(words or (), "NAME=FILE")
    for name, path in named.items():
        if not path.is_file():
            raise UsageError(f"--aux {name}{'=' if name else ''}{path}: no such file")
    return {name: str(path) for name, path in named.items()} or None


def check_image(image: Path) -> None:
    """Refuse an image that is not there, before a model is loaded. UsageError."""
    from segatlas.errors import UsageError
    from segatlas.printable import printable

    if not image.is_file():
        raise UsageError(
            f"{printable(image)}: {'is a folder, expected an image' if image.is_dir() else 'no such file'}"
        )


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a file to write that is there already, has no image's ending, or whose folder nobody may write in.

    Called before a model is loaded, so that nobody waits for a message.

    Raises:
        UsageError: as said.
    """
    from PIL import Image

    from segatlas.errors import UsageError
    from segatlas.files import require_writable
    from segatlas.printable import printable

    Image.init()
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise UsageError(f"--out: {printable(out)} is no image's name; use .png, .jpg, .webp or .tif")
    if out.is_dir():
        raise UsageError(f"--out: {printable(out)} is a folder, expected the file to write")
    if out.exists() and not overwrite:
        raise UsageError(f"--out: {printable(out)} is there already; --overwrite replaces it")
    require_writable(out.parent, error=UsageError)


def write_figure(figure: np.ndarray, out: Path, *, json_line: bool, quiet: bool = False, **facts: Any) -> None:
    """Write an image (H, W, 3) uint8 and say where; `facts` go into the line of --json."""
    from segatlas.cli.common import human, print_json_line
    from segatlas.drawing import save_image
    from segatlas.printable import printable

    save_image(figure, out)
    if not quiet:
        height, width = figure.shape[:2]
        human(json_line=json_line).print(f"{printable(out)}: {width} x {height} pixels", markup=False)
    if json_line:
        print_json_line({"out": str(out), **facts})
