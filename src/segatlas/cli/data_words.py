"""How the commands of `segatlas data`, and others, name a dataset: a folder or a recipe, then keys."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.cli.common import load_recipe
from segatlas.errors import SegAtlasError, UsageError

if TYPE_CHECKING:
    from segatlas.recipe import Config

RECIPES_OF_FOLDERS = {"SemanticTarget": "unet_folder", "InstancesTarget": "mask_rcnn_folder"}
"""Plainest truth of a folder -> the recipe that is taken where the folder stands in a recipe's place."""


def load_data(words: Sequence[str] | None, config_file: Path | None = None) -> Config:
    """Load `ROOT|RECIPE [KEY=VALUE]...`; a folder's layout is recognised.

    Raises:
        UsageError: the first word is neither a folder nor a recipe.
        ConfigError: the recipe is faulty.
    """
    from segatlas.config import recipes
    from segatlas.data.checks import data_config
    from segatlas.recipe import Config

    words = list(words or ())
    if not words and config_file is None:
        raise UsageError("which dataset? give its folder or a recipe")
    first = words[0] if words else ""
    if Path(first).expanduser().is_dir() and first and config_file is None:
        data = data_config(Path(first).expanduser())
        return Config.load({"data": {"name": data.name, "root": data.root}}, *words[1:])
    is_recipe = first in recipes() or first.endswith((".yaml", ".yml"))
    if first and "=" not in first and not is_recipe and config_file is None:
        close = difflib.get_close_matches(first, recipes(), n=1)
        hint = f"; nearest recipe: {close[0]}" if close else ""
        what = "is a file" if Path(first).exists() else "no such folder, and no recipe of that name"
        raise UsageError(f"{first}: {what}{hint}")
    return load_recipe(words, config_file)


def with_recipe(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the words of a training in which a folder in a recipe's place has become a recipe and keys, and a line.

    The line says what was taken, or that a folder is called as a recipe is; it is empty where there is nothing to say.
    """
    from segatlas.config import recipes

    first = words[0] if words else ""
    folder = Path(first).expanduser()
    if not first or "=" in first or not folder.is_dir():
        return list(words), ""
    if first in recipes():
        return list(words), f"{first} is taken as the recipe of that name; for the folder write ./{first}"
    from segatlas.data import targets_of
    from segatlas.data.checks import data_config

    data = data_config(folder)
    try:
        truth = next(iter(targets_of(data, "train")), "")
    except SegAtlasError:  # training says it better
        truth = ""
    recipe = RECIPES_OF_FOLDERS.get(truth, RECIPES_OF_FOLDERS["SemanticTarget"])
    name = [f"data.name={data.name}"] if data.name != "folder" else []
    given = [recipe, f"data.root={json.dumps(data.root, ensure_ascii=False)}", *name]  # a folder may be called 7
    told = shlex.join([recipe, f"data.root={data.root}", *name])
    return [*given, *words[1:]], f"{first} is a folder; its recipe: {told}"
