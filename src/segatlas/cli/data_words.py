"""How the commands of `segatlas data`, and others, name a dataset: a folder or a recipe, then keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.cli.common import load_recipe
from segatlas.errors import UsageError

if TYPE_CHECKING:
    from segatlas.recipe import Config


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
