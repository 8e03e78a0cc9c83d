"""`segatlas prune`: a model in, a smaller one out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segatlas.cli import completion
from segatlas.cli.common import DebugOption, JsonOption, OfflineOption, human, print_json_line
from segatlas.errors import UsageError
from segatlas.files import require_writable
from segatlas.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.pruning import PrunedModel, PruneSettings

MACS = "Fraction of the multiply-accumulates that stays, 0..1, such as 0.5."
RATIO = "In place of --macs: fraction of the channels of each group of layers that goes, 0..1."
IMPORTANCE = "What tells how much a channel matters: magnitude, bn, taylor (needs images) or random."
ROUND = "Layers keep a multiple of so many channels, and at least as many; 1 = any number."
STEPS = "Rounds; importance is measured anew in each."
DATA = "With --importance taylor: the recipe whose images and losses are used; default: the run's own."
CONTROL = "Write nothing; tell the words that make a recipe train a narrower network of the same cost."


def prune(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder, checkpoint or published name.", autocompletion=completion.models
        ),
    ],
    macs: Annotated[float | None, typer.Option("--macs", help=MACS, show_default=False)] = None,
    ratio: Annotated[float | None, typer.Option("--ratio", help=RATIO, show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder to write.")] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Size of the image that is counted for.")] = "512x512",
    importance: Annotated[str, typer.Option(help=IMPORTANCE)] = "magnitude",
    round_to: Annotated[int, typer.Option("--round-to", min=1, help=ROUND)] = 8,
    steps: Annotated[int, typer.Option(min=1, help=STEPS)] = 1,
    tolerance: Annotated[float, typer.Option(help="How far off --macs the result may be.")] = 0.02,
    data: Annotated[str | None, typer.Option("--data", metavar="RECIPE", help=DATA)] = None,
    batches: Annotated[int, typer.Option(min=1, help="With --importance taylor: batches of images.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of --importance random.")] = 0,
    control: Annotated[bool, typer.Option("--control", help=CONTROL)] = False,
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take channels out of a network's layers until it costs what is asked; what is left is a model like any other.

    It scores badly until it is trained again: segatlas train RECIPE model.start_from=DIR keeps its shape.
    """
    from segatlas.bench.settings import parse_size
    from segatlas.pruning import PruneSettings, prune_model
    from segatlas.recipe import Config

    settings = PruneSettings(
        macs=macs, ratio=ratio, size=parse_size(size), importance=importance, round_to=round_to, steps=steps,
        tolerance=tolerance, seed=seed,
    )  # fmt: skip
    console = human(json_line=json_line)
    if control:
        if out is not None or data is not None:
            raise UsageError(f"{'--out' if out is not None else '--data'}: --control writes nothing and sees no images")
        _tell_control(model, settings, console, json_line=json_line)
        return
    if out is None:
        raise UsageError("--out: say which folder the pruned model becomes")
    if data is not None and importance != "taylor":
        raise UsageError("--data: only --importance taylor looks at images")
    require_writable(out, error=UsageError)
    with console.status("pruning"):
        done = prune_model(model, out, settings, data=None if data is None else Config.load(data), batches=batches)
    console.print(*_lines(done), sep="\n", markup=False)
    if json_line:
        print_json_line(_facts(done))


def _lines(done: PrunedModel) -> list[str]:
    report = done.report
    before, after = report.macs
    height, width = report.size
    few, many = report.parameters[1] / 1e6, report.parameters[0] / 1e6
    lines = [
        f"multiply-accumulates of {height}x{width}: {before / 1e9:.3f} G before, {after / 1e9:.3f} G now "
        f"({after / before:.1%})",
        f"parameters: {many:.3f} M before, {few:.3f} M now ({few / many:.1%})",
        f"{report.groups} groups of channels are smaller; {report.layers} layers are narrower than the config says",
        f"proof: it differs by {report.difference:.0e} from the network that does not read the removed channels",
    ]
    reasons = sorted({reason for reason in report.kept.values() if "are classes" not in reason})
    if reasons:
        lines.append(f"left whole: channels that go through {', '.join(reasons)}")
    return [
        *lines,
        f"model: {printable(done.folder)}",
        f"next: segatlas train RECIPE model.start_from={printable(done.folder)}",
    ]


def _facts(done: PrunedModel) -> dict[str, object]:
    report = done.report
    names = ("macs", "parameters")
    return {
        "model": str(done.folder),
        "size": list(report.size),
        **{name: {"before": getattr(report, name)[0], "after": getattr(report, name)[1]} for name in names},
        "groups": report.groups,
        "layers": report.layers,
        "difference": report.difference,
        "left_whole": dict(report.kept),
    }


def _tell_control(model: str, settings: PruneSettings, console: Console, *, json_line: bool) -> None:
    from segatlas.pruning import control_of

    found, whole = control_of(model, settings)
    height, width = settings.size
    console.print(
        f"multiply-accumulates of {height}x{width}: {found.macs / 1e9:.3f} G, {found.macs / whole:.1%} of the model's; "
        f"parameters {found.parameters / 1e6:.3f} M",
        "train it from random weights by these words behind the recipe:",
        " ".join(f"'{word}'" if " " in word else word for word in found.words()),
        *([f"as wide as before, for no key says how wide: {_few(found.same)}"] if found.same else []),
        sep="\n",
        markup=False,
    )
    if json_line:
        facts = {"macs": found.macs, "parameters": found.parameters, "words": found.words(), "same": [*found.same]}
        print_json_line(facts)


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more layers" if len(names) > 6 else "")
