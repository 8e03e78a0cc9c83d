"""`segatlas models push` and `pull`: models on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from segatlas.cli import completion
from segatlas.cli.common import CommercialOption, DebugOption, JsonOption, OfflineOption, print_json_line, say
from segatlas.printable import printable

HubIdArgument = Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face hub.")]


def push(
    model: Annotated[
        str, typer.Argument(help="Run folder, model folder or .ckpt.", autocompletion=completion.networks)
    ],
    hub_id: HubIdArgument,
    private: Annotated[bool, typer.Option("--private", help="For its owner alone.")] = False,
    licence: Annotated[
        str, typer.Option("--licence", metavar="NAME", help="Of a model whose card states none, e.g. Apache-2.0.")
    ] = "",
    licence_ok: Annotated[
        bool, typer.Option("--licence-ok", help="Publish without a licence, or under one that restricts use.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files and sizes; send nothing.")] = False,
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Publish a model on the Hugging Face hub: card, weights and a page made of the card.

    The token is the hub client's own: hf auth login, or HF_TOKEN.
    """
    from segatlas.hub.sharing import push_model

    done = push_model(model, hub_id, private=private, licence=licence, licence_ok=licence_ok, dry_run=dry_run)
    if json_line:
        print_json_line({"kind": "push", "dry_run": dry_run, **asdict(done)})
        return
    for name, size in done.files.items():
        say(f"  {name:<18}  {size:>13,} bytes")
    seen = "private" if private else "public"
    if done.url is None:
        say(f"nothing was sent; without --dry-run these go to {hub_id} ({seen}, licence {_licence(done.licence)})")
    else:
        say(f"{done.url} ({seen}, licence {_licence(done.licence)})", f'load it by: segatlas.load("{hub_id}")')


def pull(
    hub_id: HubIdArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    commercial_ok: CommercialOption = False,
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Copy a model of the Hugging Face hub into a folder, its hash checked."""
    from segatlas.hub.sharing import pull_model

    done = pull_model(hub_id, out, offline=offline, commercial_ok=commercial_ok)
    if json_line:
        print_json_line({"kind": "pull", **asdict(done)})
        return
    say(f"written: {printable(done.folder)} (licence {_licence(done.licence)})")


def _licence(text: str) -> str:
    return printable(text) or "not stated"
