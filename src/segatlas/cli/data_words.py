"""How the commands of `segatlas data`, and others, name a dataset: a folder or a recipe, then keys."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.cli.common import load_recipe
from segatlas.errors import SegAtlasError, UsageError
from segatlas.files import near_paths
from segatlas.printable import shell_words

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
        raise _neither_folder_nor_recipe(first)
    return load_recipe(words, config_file)


def _neither_folder_nor_recipe(word: str) -> UsageError:
    """Return what is said of a first word that means nothing, with folders and recipes that are called nearly so."""
    from segatlas.config import recipes

    what = "is a file" if Path(word).exists() else "no such folder, and no recipe of that name"
    folders = [str(path) for path in near_paths(word) if path.is_dir()]
    near = difflib.get_close_matches(word, recipes(), n=3)
    hint = f"; folder called nearly so: {', '.join(folders)}" if folders else ""
    hint += f"; nearest recipe: {', '.join(near)}" if near else ""
    return UsageError(f"{word}: {what}{hint or '; `segatlas config schema --recipes` lists the recipes'}")


def with_recipe(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the words of a training in which a folder in a recipe's place has become a recipe and keys, and a line.

    The line says what was taken, or that a folder is called as a recipe is; it is empty where there is nothing to say.

    Raises:
        UsageError: the first word is no folder, no recipe and no file.
    """
    from segatlas.config import recipes

    first = words[0] if words else ""
    folder = Path(first).expanduser()
    if not first or "=" in first:
        return list(words), ""
    if not folder.is_dir():
        if first not in recipes() and not first.endswith((".yaml", ".yml", ".py", ".json")) and not folder.exists():
            raise _neither_folder_nor_recipe(first)
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
    recipe, network = _network_of(words[1:], recipe)
    more = ([f"data.name={data.name}"] if data.name != "folder" else []) + network
    given = [recipe, f"data.root={json.dumps(data.root, ensure_ascii=False)}", *more]  # a folder may be called 7
    told = shell_words([recipe, f"data.root={data.root}", *more])
    return [*given, *words[1:]], f"{first} is a folder; its recipe: {told}"


def _network_of(words: Sequence[str], recipe: str) -> tuple[str, list[str]]:
    """Return recipe and words whose network is that of `model.start_from`, so that its weights fit.

    Nothing changes where a word names the network, and where weights alone do not say what network they are of.
    """
    starts = [word.partition("=")[2] for word in words if word.startswith("model.start_from=")]
    if not starts or any(word.startswith("model.name=") for word in words):
        return recipe, []
    from segatlas.build.card_keys import network_words
    from segatlas.checkpoint.model_folder import read_card
    from segatlas.config import recipes
    from segatlas.config.encoder_keys import dotted_fields
    from segatlas.hub.loading import find_start
    from segatlas.recipe import Config

    try:
        place = find_start(starts[-1])
        if place.is_file() and place.suffix != ".ckpt":
            return recipe, []
        card = read_card(place)
    except SegAtlasError:  # training says it better
        return recipe, []
    own = f"{card.architecture}_folder"
    recipe = own if own in recipes() else recipe
    stated = dotted_fields(Config.load(recipe).model.architecture_fields())
    return recipe, network_words(card, tuple(stated))
