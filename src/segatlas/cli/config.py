"""`segatlas config`: show a resolved recipe, check one, print the reference of all keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from segatlas.cli import completion
from segatlas.cli.common import (
    ConfigFileOption,
    DebugOption,
    JsonOption,
    Words,
    human,
    load_recipe,
    print_json_line,
    say,
    split_words,
    telling_lines,
)
from segatlas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from segatlas.config import Config

app = typer.Typer(no_args_is_help=True, help="Show, check and explain recipes.")
NO_TERMINAL_WIDTH = 180
OF_HELP = "Print the JSON Schema of what a command prints with --json instead, such as eval or 'data check'."


@app.command()
def show(
    words: Words = None, config_file: ConfigFileOption = None, json_line: JsonOption = False, debug: DebugOption = False
) -> None:
    """Print a recipe as it would run: bases and overrides applied, every key with its value."""
    from segatlas.config import to_yaml

    cfg = load_recipe(words, config_file)
    if json_line:
        print_json_line(cfg.model_dump(mode="json"))
    else:
        print(to_yaml(cfg), end="")


@app.command()
def check(
    words: Words = None, config_file: ConfigFileOption = None, json_line: JsonOption = False, debug: DebugOption = False
) -> None:
    """Check a recipe, down to the keys of its network. Exits 2 and lists all problems where there are some."""
    from segatlas import config

    cfg = load_recipe(words, config_file)
    recipe, overrides = split_words(words)
    if config_file or overrides or recipe not in config.recipes():  # the tests make those that are shipped
        with telling_lines(words or (), config_file):
            cfg.check_network()
    name = config_file or recipe or "defaults"
    human(json_line=json_line).print(f"ok: {name}\n{summary(cfg)}", markup=False)
    if json_line:
        print_json_line({"ok": True, "recipe": str(name)})


@app.command()
def schema(
    recipes: Annotated[bool, typer.Option("--recipes", help="List the shipped recipes instead.")] = False,
    of: Annotated[
        str | None, typer.Option("--of", metavar="COMMAND", help=OF_HELP, autocompletion=completion.commands_with_lines)
    ] = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print every key of a recipe with what it expects, its default and its meaning; with --json the JSON Schema."""
    from segatlas import config
    from segatlas.recipe import json_schema

    if of is not None:
        _print_line_schema(of, json_line=json_line)
    elif recipes:
        _list_recipes(config.recipes(), json_line=json_line)
    elif json_line:
        print_json_line(json_schema())
    else:
        _print_schema()


def summary(cfg: Config) -> str:
    """Return three lines that say what a recipe trains, on what, and how."""
    from segatlas.config.encoder_keys import encoder_name

    model, data, train = cfg.model, cfg.data, cfg.train
    encoder = encoder_name(model.architecture_fields())
    classes = model.num_classes or (len(data.own("classes")) if data.own("classes") else None)
    network = [model.name, *([f"encoder {encoder}"] if encoder else [])]
    network.append(f"{classes} classes" if classes else "classes from the data")
    epochs = "epochs by the data" if train.epochs == "auto" else f"{train.epochs} epochs"
    length = f"{train.steps} steps" if train.steps else epochs
    losses = " + ".join(term.name for term in cfg.losses)
    if cfg.distill is not None:
        losses += "".join(f" + {term.name}" for term in cfg.distill.terms) + f" of {cfg.distill.teacher}"
    return "\n".join(
        (
            f"  model  {', '.join(network)}",
            f"  data   {data.name} in {data.root or '(data.root is not set)'}",
            f"  train  {length} of batch {train.batch}, {train.optimizer.name} lr {train.lr:g}, "
            f"{train.schedule.name}, {losses}",
        )
    )


def _print_schema() -> None:
    from segatlas.recipe import common_keys, dataset_keys, distillation_keys, loss_keys

    console = human()
    if not console.is_terminal:
        console.width = NO_TERMINAL_WIDTH
    from rich.table import Table

    for title, rows in (common_keys(), *dataset_keys(), *loss_keys(), *distillation_keys()):
        table = Table("Key", "Expects", "Default", "Meaning", title=title, title_justify="left", title_style="bold")
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(row.key, row.expects, row.default, row.meaning)
        console.print(table, markup=False)


def _print_line_schema(command: str, *, json_line: bool) -> None:
    """Print a schema over many lines, with --json in one."""
    from segatlas.cli.json_lines import JSON_LINES, line_schema
    from segatlas.config.messages import unknown

    command = " ".join(command.removeprefix("segatlas ").split())
    if command not in JSON_LINES:
        raise UsageError(f"--of: {unknown('command', command, JSON_LINES)}")
    found = line_schema(command)
    if json_line:
        print_json_line(found)
    else:
        say(json.dumps(found, indent=2, ensure_ascii=False))


def _list_recipes(shipped: dict[str, Path], *, json_line: bool) -> None:
    titles = {name: _title(path) for name, path in shipped.items()}
    if json_line:
        print_json_line([{"name": name, "path": str(shipped[name]), "title": titles[name]} for name in shipped])
        return
    width = max(map(len, shipped))
    for name, title in titles.items():
        print(f"{name:<{width}}  {title}")


def _title(path: Path) -> str:
    """Return the comment that a recipe begins with."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip().rstrip(":")
