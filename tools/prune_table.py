"""Tries pruning on every architecture, and writes the table of docs/pruning.md: which can be pruned, and how far.

    PYTHONPATH=src:tests:tools python tools/prune_table.py [NAME...]

Each network is the narrow form of its first shipped recipe, with random weights in which nothing is neutral. It is
pruned to half of its multiply-accumulates, or as far as it goes; the result is saved, loaded, and compared: it must
give the numbers of the network that no longer reads the removed channels, and its fast form likewise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from fakes.small_recipes import narrow, recipe_of_each_architecture

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.errors import SegAtlasError
from segatlas.hub.loading import load_pretrained
from segatlas.inference.fast_form import TOLERANCES, fast_form
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture
from segatlas.pruning.proof import redrawn
from segatlas.pruning.removal import Prunable
from segatlas.pruning.search import Costs, plan_for_macs
from segatlas.recipe import Config
from segatlas.structures import Inputs, InputSpec, maps_of, noise_inputs

SIZE = (128, 128)
CLASSES = 5
PAGE = Path(__file__).resolve().parent.parent / "docs" / "pruning.md"
FACTS = PAGE.with_suffix(".json")
"""What the table was made of, by architecture: those that are not asked for stay as they were found."""
BEGIN, END = "<!-- architectures: written by tools/prune_table.py -->", "<!-- end of architectures -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one architecture. least: fraction of multiply-accumulates that can be reached; None = refused."""

    name: str
    title: str
    least: float | None
    pruned: float | None
    kept: str
    wrong: str = ""


def narrow_network(recipe: str) -> torch.nn.Module:
    """Return the network of a recipe in its narrow form."""
    config = Config.load(recipe, *narrow(recipe), "model.encoder_weights=null", "model.start_from=null")
    torch.manual_seed(0)
    net = create_model(config.model.name, **{"num_classes": CLASSES, **config.model.architecture_fields()})
    return redrawn(net).eval()


def try_architecture(name: str, recipe: str) -> Row:
    """Prune one."""
    title = ARCHITECTURES[name].title
    try:
        net = narrow_network(recipe)
        found = Prunable(net, SIZE)
        least, whole = found.least(1), found.costs.whole
        scores = {group.root: found.graph.scores(group, "magnitude") for group in found.graph.groups}
        target, tolerance = round(whole * max(0.5, least + 0.01)), round(0.05 * whole)
        plan = plan_for_macs(found.graph.groups, scores, found.costs, target, round_to=1, tolerance=tolerance)
        smaller, _ = found.prune(plan)
        after = Costs(smaller, noise_inputs(inputs_of(smaller), SIZE, device="meta").given()).whole
    except SegAtlasError as error:
        return Row(name=name, title=title, least=None, pruned=None, kept=str(error))
    reasons = sorted({reason for reason in found.kept.values() if "are classes" not in reason})
    agrees = abs(after - plan.macs) <= 0.001 * whole
    wrong = checked(smaller, net) or ("" if agrees else f"counted {plan.macs}, costs {after}")
    return Row(name=name, title=title, least=least, pruned=after / whole, kept=", ".join(reasons), wrong=wrong)


def inputs_of(net: torch.nn.Module) -> tuple[InputSpec, ...]:
    return load_architecture(str(net.architecture)).inputs(net.config)


def checked(net: torch.nn.Module, whole: torch.nn.Module) -> str:
    """Return "" where a pruned network comes back from its folder and has the fast form that it should; else the fault.

    With weights like these the fast form of some networks is refused, or rounds otherwise, before pruning too.
    """
    inputs = noise_inputs(inputs_of(net), SIZE).given()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_pretrained(net, Path(folder) / "m", classes=[str(i) for i in range(net.config.num_classes)])
        back, _ = load_pretrained(Path(folder) / "m")
        expected, found = (seeded(one, inputs) for one in (net, back))
        if any(not torch.equal(x, expected[key]) for key, x in found.items()):
            return "differs after loading"
        fault = fast_fault(back, inputs)
        return "" if fault and fast_fault(whole, inputs) else fault


def seeded(net: torch.nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Return the maps that a network gives, with what it draws drawn alike."""
    torch.manual_seed(0)
    return dict(maps_of(net(inputs)))


def fast_fault(net: torch.nn.Module, inputs: Inputs) -> str:
    """Return "" where a network has a fast form of the same numbers; else what is wrong."""
    fast = fast_form(net, inputs_of(net))
    if fast is net:
        return "no fast form"
    expected, found = (seeded(one, inputs) for one in (net, fast))
    worst = max(
        (float((x - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1e-12))
        for key, x in found.items() if x.numel() and x.shape == expected[key].shape),
        default=0.0,
    )  # fmt: skip
    return "" if worst < 10 * TOLERANCES["fp32"] else f"fast form differs by {worst:.0e}"


def table(rows: list[Row]) -> str:
    lines = [
        "| architecture | least MACs that can be left | what stays whole, because its channels go through |",
        "|---|---|---|",
    ]
    for row in rows:
        least = "refused" if row.least is None else f"{100 * row.least:.0f} %"
        lines.append(f"| {row.title} (`{row.name}`) | {least} | {row.kept or 'nothing'} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recipes = recipe_of_each_architecture()
    failed = 0
    for name in asked.names or ARCHITECTURES:
        began = time.process_time()
        try:
            row = try_architecture(name, recipes[name])
        except Exception as error:  # the others are worth knowing, too
            traceback.print_exc()
            row = Row(name=name, title=ARCHITECTURES[name].title, least=None, pruned=None, kept="", wrong=repr(error))
        seconds = time.process_time() - began
        told = "refused" if row.least is None else f"least {row.least:.2f}, pruned to {row.pruned:.2f}"
        print(f"{name}: {told} in {seconds:.1f} s; {row.kept}" + f"; WRONG: {row.wrong}" * bool(row.wrong), flush=True)
        failed += bool(row.wrong)
        facts = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.is_file() else {}
        facts[name] = asdict(row)
        rows = {one: facts[one] for one in ARCHITECTURES if one in facts}
        FACTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        made = table([Row(**one) for one in rows.values()])
        PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
