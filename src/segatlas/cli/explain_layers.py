"""`segatlas explain layers`: the names of a network's layers, which other commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    JsonOption,
    OfflineOption,
    print_json_line,
    say,
)
from segatlas.cli.explain_common import ModelArgument, load_model


def layers(
    model: ModelArgument,
    pattern: Annotated[str, typer.Argument(help="Shell pattern of names, such as 'encoder.*'.")] = "*",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the layers of a model by name, with their kind, as `--layer` takes them."""
    from fnmatch import fnmatchcase

    from segatlas.explain.layers import find_layer, layer_names

    network = load_model(model, device="cpu", offline=offline, commercial_ok=commercial_ok).model
    kinds = {name: type(find_layer(network, name)).__name__ for name in layer_names(network)}
    found = {name: kind for name, kind in kinds.items() if fnmatchcase(name, pattern)}
    if json_line:
        print_json_line([{"name": name, "kind": kind} for name, kind in found.items()])
        return
    width = max(map(len, found), default=0)
    say(*(f"{name:<{width}}  {kind}" for name, kind in found.items()))
    if not found:
        say(f"none of its {len(kinds)} layers is named like {pattern!r}")
