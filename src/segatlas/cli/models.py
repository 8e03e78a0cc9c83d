"""`segatlas models`: what can be built, what a trained model is, and weights of other libraries."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli import completion
from segatlas.cli.common import DebugOption, JsonOption, OfflineOption, human, print_json_line, say
from segatlas.cli.models_hub import pull, push
from segatlas.errors import UsageError
from segatlas.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from segatlas.build.describing import ModelFacts
    from segatlas.checkpoint.card import Card
    from segatlas.conversion.converting import Conversion
    from segatlas.hub.catalogue import Filter, Published

app = typer.Typer(
    no_args_is_help=True, help="List the networks, explain one of them or a trained model, convert weights."
)
app.command()(push)
app.command()(pull)
NO_TERMINAL_WIDTH = 200
SHOWN_CLASSES = 40
FEW_CLASSES = 5
SHOWN_LEFT_OUT = 8
METRICS = {"miou": "mIoU", "pq": "PQ", "ap": "AP"}


DATASET_HELP = "Published weights of this dataset alone, such as ade20k or cityscapes."
LEAST_HELP = "Published mIoU (PQ, AP) of at least so many percent."
MOST_HELP = "At most so many million parameters; of published weights all that their file holds."
WEIGHTS_HELP = "Published weights whose licence allows commercial use alone."


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of names, e.g. '*former*'.")] = "*",
    task: Annotated[
        str | None, typer.Option("--task", help="semantic, instance or panoptic.", autocompletion=completion.tasks)
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="List published weights instead.")] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help=DATASET_HELP, autocompletion=completion.datasets)
    ] = None,
    least: Annotated[float | None, typer.Option("--least", metavar="PERCENT", help=LEAST_HELP)] = None,
    most_parameters: Annotated[
        float | None, typer.Option("--most-parameters", metavar="MILLIONS", help=MOST_HELP)
    ] = None,
    commercial_ok: Annotated[bool, typer.Option("--commercial-ok", help=WEIGHTS_HELP)] = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List architectures and their variants, or the published weights that can be loaded by name.

    A filter of weights leaves those architectures in for which there are such weights.
    """
    from segatlas.config.messages import unknown
    from segatlas.hub.catalogue import Filter, list_published
    from segatlas.tasks import TASKS

    if task is not None and task not in TASKS:
        raise UsageError(f"--task: {unknown('task', task, TASKS)}")
    wanted = Filter(
        task=task, dataset=dataset, least=least, most_parameters=most_parameters, commercial=commercial_ok
    )  # fmt: skip
    if published:
        _show_published(list_published(pattern, wanted), pattern, json_line=json_line)
    else:
        _show_architectures(pattern, wanted, json_line=json_line)


def _show_architectures(pattern: str, wanted: Filter, *, json_line: bool) -> None:
    from dataclasses import asdict

    from segatlas.hub.catalogue import parameters, published_for
    from segatlas.models import list_models, lookup

    entries = {name: lookup(name)[0] for name in list_models(pattern, wanted.task)}
    sizes = parameters()
    weights = {name: [entry for entry in published_for(name) if wanted.takes(entry)] for name in entries}
    shown = [
        name for name in entries if wanted.takes_size(sizes.get(name)) and (weights[name] or not wanted.is_of_weights)
    ]
    if json_line:
        print_json_line(
            [
                {
                    "name": name,
                    "architecture": entries[name].name,
                    "title": entries[name].title,
                    "tasks": entries[name].tasks,
                    "paper": entries[name].paper,
                    "parameters": sizes.get(name),
                    "published": [asdict(entry) for entry in weights[name]],
                }
                for name in shown
            ]
        )
        return
    if not shown:
        say(f"no model matches '{printable(pattern)}'" + (f" and can do '{wanted.task}'" if wanted.task else ""))
        return
    table = _table("Name", "Title", "Tasks", "Parameters", "Published, %", "Paper")
    for name in shown:
        entry, scores = entries[name], [f"{one.dataset} {_metrics(one)}" for one in weights[name]]
        count = sizes.get(name)
        size = "unknown" if count is None else f"{count / 1e6:.2f} M"
        if count is not None and entry.needs.host is not None and name == entry.name:  # a variant names its host
            size = f"host + {count:,}"
        table.add_row(name, entry.title, ", ".join(entry.tasks), size, "\n".join(scores), entry.paper)
    _show(table)


def _show_published(entries: Sequence[Published], pattern: str, *, json_line: bool) -> None:
    from dataclasses import asdict

    if json_line:
        print_json_line([asdict(entry) for entry in entries])
        return
    if not entries:
        say(f"no published weights match '{printable(pattern)}' and what else is asked for")
        return
    table = _table("Name", "Trained on", "Score, %", "scales", "Size", "Licence")
    for entry in entries:
        best = "" if entry.miou_ms_flip is None else f"{entry.miou_ms_flip:.2f}"
        licence = entry.licence if entry.is_commercial else "non-commercial"
        size = f"{entry.numbers / 1e6:.1f} M"
        table.add_row(entry.name, entry.dataset, _metrics(entry), best, size, licence)
    _show(table)
    sources = " and ".join(sorted({entry.source for entry in entries}))
    say(f"on the validation split ({sources})")
    say("scales: by several scales and flips; size: all numbers of the file; more: segatlas models info NAME")


def _metrics(entry: Published) -> str:
    """Return what was published of weights, in percent."""
    return ", ".join(f"{METRICS[name]} {percent:.2f}" for name, percent in entry.metrics.items())


@app.command()
def info(
    name: Annotated[
        str,
        typer.Argument(
            help="Architecture, variant, run folder, model folder, .ckpt file or published name.",
            autocompletion=completion.networks,
        ),
    ],
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Explain an architecture (fields, size, cost) or a trained model (its card)."""
    from segatlas.hub.catalogue import is_published

    if is_published(name):
        _info_published(name, json_line=json_line)
    elif _is_place(name):
        _info_card(name, json_line=json_line)
    else:
        _info_architecture(name, json_line=json_line)


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Weights file of another library; with --to: a model of ours.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; with --to: the file.")],
    arch: Annotated[str | None, typer.Option("--arch", help="Architecture, where several fit the file.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The library's own config.py or config.json, read and never run.")
    ] = None,
    stated: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of that config, where nothing tells it; repeatable."
        ),
    ] = None,
    to: Annotated[str, typer.Option("--to", help="Write our model for this library, e.g. mmseg.")] = "",
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Convert weights of another library to a model folder; with --to, a model of ours to theirs."""
    from dataclasses import asdict

    from segatlas.conversion.converting import convert_file, export_file
    from segatlas.conversion.stated import read_words
    from segatlas.hub.loading import find_model

    if to:
        written = export_file(find_model(checkpoint), out, to=to)
        if json_line:
            print_json_line({"kind": "export", "source": str(checkpoint), "to": to, **asdict(written)})
            return
        say(
            f"{printable(checkpoint)}: {written.tensors} tensors written for {written.title}: {printable(written.file)}"
        )
        for note in written.notes:
            say(f"  {printable(note)}")
        return
    done = convert_file(checkpoint, out, arch=arch, config=config, stated=read_words(stated or ()))
    if json_line:
        print_json_line(
            {
                "kind": "conversion",
                "source": str(done.file),
                "library": done.library,
                "out": str(done.folder),
                "settings": done.settings_from,
                "prefix": done.prefix,
                "left_out": done.left_out,
                "notes": done.notes,
                "card": done.card.to_dict(),
            }
        )
        return
    _print_conversion(done)


def _print_conversion(done: Conversion) -> None:
    from segatlas.build.card_keys import usual_fields

    card = done.card
    say(f"{printable(done.file)}: {card.architecture} of {done.title}, {done.tensors} tensors")
    own = _config_words(card, usual_fields(card)) or "as usual"
    config = f"{own} (all: segatlas models info {printable(done.folder)})"
    classes = f"{len(card.classes)}: {', '.join(card.classes[:FEW_CLASSES])}"
    pairs = {"config": config, "classes": classes + (", ..." if len(card.classes) > FEW_CLASSES else "")}
    all_pairs = {**pairs, "settings": done.settings_from or "none found"}
    if done.prefix:
        all_pairs["prefix"] = f"{done.prefix} (stands before the network's names in the file)"
    if done.left_out:
        all_pairs["left out"] = f"{_listed(done.left_out)} (on purpose: no part of the network, or a second copy)"
    for key in ("mean", "std", "inference"):
        all_pairs[key] = _card_pairs(card)[key]
    _print_pairs(all_pairs)
    if done.notes:
        say("taken by default, please check (--set KEY=VALUE or --config FILE tells):")
        for note in done.notes:
            say(f"  {printable(note)}")
    say(f"written: {printable(done.folder)}")


def _listed(names: Sequence[str]) -> str:
    """Return names; many that begin alike are told by their beginning and number."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    texts = [", ".join(g) if len(g) < SHOWN_LEFT_OUT else f"{len(g)} tensors of {key}" for key, g in groups.items()]
    return ", ".join(texts)


def _is_place(name: str) -> bool:
    """Tell whether `name` means files: a path or hub id, or a file or folder that no network is called like."""
    from segatlas.models import list_models

    return name not in list_models() and ("/" in name or Path(name).exists())


def _info_architecture(name: str, *, json_line: bool) -> None:
    from dataclasses import asdict

    from segatlas.models import find_entry

    find_entry(name)  # an unknown name is answered before anything heavy is imported
    from segatlas.build.describing import MEASURED_CLASSES, MEASURED_SIZE, describe
    from segatlas.hub.catalogue import published_for

    facts = describe(name)
    if json_line:
        measured = {"num_classes": MEASURED_CLASSES, "size": MEASURED_SIZE}
        print_json_line({"kind": "architecture", **asdict(facts), "measured_with": measured})
        return
    height, width = MEASURED_SIZE
    variant = f" (variant of {facts.architecture})" if facts.name != facts.architecture else ""
    size = f"{facts.parameters / 1e6:.2f} M with {MEASURED_CLASSES} classes"
    say(f"{facts.name}{variant}: {facts.title}")
    _print_pairs(
        {
            "paper": facts.paper,
            "tasks": ", ".join(facts.tasks),
            **({} if facts.host is None else {"host": f"a network that gives {' or '.join(facts.host)}"}),
            "parameters": size if facts.host is None else f"{facts.parameters:,}, without the host's",
            "cost": f"{facts.macs / 1e9:.2f} GMACs at {height}x{width} (convolutions, products; 1 MAC = 2 FLOPs)",
            "variants": ", ".join(facts.variants) or "none",
            "weights": ", ".join(entry.name for entry in published_for(name))
            or "none of this name; all: segatlas models list --published",
        }
    )
    _show(_field_table(facts))


def _field_table(facts: ModelFacts) -> Table:
    table = _table("Field", "Type", "Default", "Meaning")
    for field in facts.fields:
        table.add_row(field.name, field.type, "required" if field.required else repr(field.default), field.meaning)
    return table


def _info_published(name: str, *, json_line: bool) -> None:
    from dataclasses import asdict

    from segatlas.hub.catalogue import find_published

    entry = find_published(name)
    if json_line:
        print_json_line({"kind": "published", **asdict(entry)})
        return
    say(f"{entry.name}: weights published by {entry.source.partition(' ')[0]}")
    best = "" if entry.miou_ms_flip is None else f", {entry.miou_ms_flip:.2f} % with scales and flips"
    _print_pairs(
        {
            "architecture": entry.architecture,
            "trained on": f"{entry.dataset}, whose terms apply too",
            "published": f"{_metrics(entry)} %{best}, on its validation split ({entry.source})",
            "licence": entry.licence,
            "config": entry.config,
            "file": entry.file,
            "address": entry.url,
            "sha256": f"{entry.sha256}...",
        }
    )


def _info_card(name: str, *, json_line: bool) -> None:
    from segatlas.checkpoint.model_folder import read_card
    from segatlas.hub.loading import find_model

    place = find_model(name)
    card = read_card(place)
    if json_line:
        print_json_line({"kind": "model", "path": str(place), "card": card.to_dict()})
        return
    say(f"{printable(place)}: {card.architecture}, {len(card.classes)} classes")
    _print_pairs(_card_pairs(card))
    table = _table("Index", "Class", "Colour")
    for index, (label, color) in enumerate(zip(card.classes[:SHOWN_CLASSES], card.palette, strict=False)):
        table.add_row(str(index), printable(label), ",".join(map(str, color)))
    _show(table)
    if len(card.classes) > SHOWN_CLASSES:
        say(f"... and {len(card.classes) - SHOWN_CLASSES} more classes (--json lists all)")


def _config_words(card: Card, usual: dict[str, Any] | None = None) -> str:
    """Return a config on one line: `encoder` is the encoder's name, `encoder.KEY` what else is set of it.

    usual: dotted key -> what is left out where it is the same, but for the encoder's name.
    """
    import json

    from segatlas.config.encoder_keys import dotted_fields

    fields, same = (json.loads(json.dumps(one)) for one in (dotted_fields(card.config), usual or {}))  # no tuples
    fields = {key: v for key, v in fields.items() if key == "encoder.name" or key not in same or same[key] != v}
    unset = [key for key, value in fields.items() if key.startswith("encoder.") and value is None]
    told = {key.removesuffix(".name"): value for key, value in fields.items() if key not in unset}
    return ", ".join(f"{key}={value!r}" for key, value in told.items())


def _card_pairs(card: Card) -> dict[str, str]:
    norm, mode = card.preprocessing, card.inference
    windows = f" by windows of {mode.crop}, every {mode.stride or '2/3 of that'} pixels" if mode.crop else ""
    return {
        "task": card.task,
        "config": _config_words(card),
        "input": ", ".join(f"{spec.name} of {spec.channels} channels" for spec in card.inputs),
        "preprocessing": f"resize {norm.resize or 'none'}, then (value / {norm.max_value:g} - mean) / std",
        "mean": ", ".join(f"{value:g}" for value in norm.mean),
        "std": ", ".join(f"{value:g}" for value in norm.std),
        "inference": mode.mode + windows,
        **({"pruned": f"{len(card.surgery)} layers are narrower than this config says"} if card.surgery else {}),
        "licence": card.licence or "not stated",
        "metric": ", ".join(f"{key}={_short(value)}" for key, value in card.metric.items()) or "not stated",
        "source": card.source or "not stated",
        "sha256": card.sha256 or "none",
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_pairs(pairs: dict[str, str]) -> None:
    """Print a line a pair; on a terminal, longer ones go on below their value, with words left whole."""
    width, console = max(map(len, pairs)), human()
    for key, value in pairs.items():
        line = f"  {key:<{width}}  {printable(value)}"
        if console.is_terminal:
            indent = " " * (width + 4)
            line = textwrap.fill(
                line, console.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        say(line)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    return table


def _show(table: Table) -> None:
    console = human()
    if not console.is_terminal:
        console.width = NO_TERMINAL_WIDTH
    console.print(table, markup=False)
