"""Parity with other libraries: the same file, the same image, the same numbers.

    python tools/parity.py FOLDER [KEY ...] [--peers /path/to/reference/bin/python]

FOLDER holds what `../shared/parity/ref_models.py KEY --out FOLDER` wrote for each KEY: a library's checkpoint with
random weights, an image, and what the library computed from it. Each is converted, and a line is printed:

    logits   largest difference of the network's output, in units of the largest logit
    scores   the same of the full-size scores, at every 8th pixel, in the library's own inference mode
    labels   pixels of `predict` on the uint8 image that differ; after the slash those that are no ties
    back     the model written for the library again: "names" the same names, shapes and values (of tensors that the
             network uses); with --peers the library's difference with that file, loaded strictly

A label is a tie where the margin of the best score is below 1e-3 of the deviation of the scores. Exits 1 where a
difference is above LIMIT or a label differs outside ties.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import segatlas as sa  # noqa: E402
from segatlas.build.network import make_config  # noqa: E402
from segatlas.checkpoint.model_folder import read_model  # noqa: E402
from segatlas.checkpoint.reading import read_state_dict  # noqa: E402
from segatlas.conversion.converting import convert_file, export_file  # noqa: E402
from segatlas.conversion.importers import importers  # noqa: E402
from segatlas.conversion.renaming import rename_to_ours  # noqa: E402

LIMIT = 1e-4
TIE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Result:
    """One line of the table; None where there is nothing to compare."""

    key: str
    seed: int
    architecture: str
    logits: float | None
    scores: float
    labels: int
    outside_ties: int
    back: str

    @property
    def good(self) -> bool:
        return max(self.logits or 0, self.scores) <= LIMIT and not self.outside_ties and not self.back.startswith("!")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("keys", nargs="*", help="default: all in FOLDER")
    parser.add_argument("--peers", help="Python of the reference environment, for loading what we write")
    parser.add_argument("--threads", type=int, default=2, help="as ref_models.py had: other counts round otherwise")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    places = [path.parent for path in sorted(args.folder.glob("*/checkpoint.pth"))]
    wanted = [place for place in places if not args.keys or facts_of(place)["key"] in args.keys]
    head = f"{'key':<52}{'seed':>5}  {'network':<16}{'logits':>9}{'scores':>9}{'labels':>9}  back"
    print(head, "-" * len(head), sep="\n")
    results = []
    for place in wanted:
        results.append(compare(place, args.peers))
        print_line(results[-1])
    bad = [result.key for result in results if not result.good]
    print(f"{len(results)} compared, {len(bad)} above {LIMIT:g} or with other labels: {', '.join(bad) or 'none'}")
    sys.exit(1 if bad or not results else 0)


def facts_of(place: Path) -> dict:
    return json.loads((place / "info.json").read_text(encoding="utf-8"))


def compare(place: Path, peers: str | None) -> Result:
    """Convert one checkpoint and compare everything that the library computed."""
    facts = facts_of(place)
    given, reference = (torch.load(place / name) for name in ("input.pt", "reference.pt"))
    with tempfile.TemporaryDirectory() as folder:
        done = convert_file(place / "checkpoint.pth", Path(folder) / "ours")
        begin_as_the_library(done.folder, facts["seed"])
        predictor = sa.load(done.folder, device="cpu")
        with torch.inference_mode():
            torch.manual_seed(facts["seed"])  # for networks that draw in every forward
            logits = predictor.model(given["input"]).logits
        torch.manual_seed(facts["seed"])
        height, width = facts["size"]  # the library may have padded its input
        scores = predictor.scores(given["input"])[0, :, :height:8, :width:8]
        torch.manual_seed(facts["seed"])
        labels = torch.from_numpy(predictor.predict(given["image"].flip(2).numpy()).semantic.copy())
        back = round_trip(place, done.folder, done.library, facts, peers)
    expected = reference["seg_logits_s8"].reshape(scores.shape)
    differing = labels != reference["pred"]
    ties = reference["margin"].float() < TIE * float(expected.std())
    same_shape = logits.shape == reference["logits"].shape
    return Result(
        key=facts["key"],
        seed=facts["seed"],
        architecture=done.card.architecture,
        logits=relative(logits, reference["logits"]) if same_shape else None,
        scores=relative(scores, expected),
        labels=int(differing.sum()),
        outside_ties=int((differing & ~ties).sum()),
        back=back,
    )


def begin_as_the_library(model: Path, seed: int) -> None:
    """Have a network that begins with patterns of a seed begin with those that the library drew after that seed."""
    card = json.loads((model / "card.json").read_text(encoding="utf-8"))
    if "patterns_seed" in card["config"]:
        card["config"]["patterns_seed"] = seed
        (model / "card.json").write_text(json.dumps(card), encoding="utf-8")


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def round_trip(place: Path, model: Path, library: str, facts: dict, peers: str | None) -> str:
    """Write the model for its library again; return what came of it, with "!" in front where it is not as it should."""
    folder = model.parent / "back" / place.name
    folder.mkdir(parents=True)
    export_file(model, folder / "checkpoint.pth", to=library)
    first, again = (read_state_dict(path / "checkpoint.pth").tensors for path in (place, folder))
    shapes = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (first, again))
    if next(shapes) != next(shapes):
        return f"!names or shapes differ: {sorted(first.keys() ^ again.keys())[:2]}"
    if fault := values_that_differ(model, library, first, again):
        return fault
    if peers is None:
        return "names"
    for name in ("input.pt", "reference.pt"):
        shutil.copy(place / name, folder / name)
    words = [peers, str(SHARED / "parity" / "ref_models.py"), facts["key"], "--out", str(folder.parent), "--check"]
    words += ["--seed", str(facts["seed"]), "--size", *map(str, facts["size"]), "--threads", str(facts["threads"])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return f"!the library refuses: {(done.stderr.strip().splitlines() or ['no message'])[-1][:100]}"
    told = json.loads(lines[-1])
    return f"library {told['logits']:.1e}, {told.get('labels_differ', 0)} labels"


def values_that_differ(model: Path, library: str, first: dict[str, Tensor], again: dict[str, Tensor]) -> str:
    """Name what differs in two files of a network, "" where nothing does; tensors that it never uses may."""
    unequal = [name for name in first if not torch.equal(first[name], again[name])]
    if not unequal:
        return ""
    card, _ = read_model(model)
    _, config = make_config(card.architecture, card.config)
    for importer in importers(library, card.architecture):
        ours = [rename_to_ours(importer, config, tensors) for tensors in (first, again)]
        if ours[0].keys() == ours[1].keys() and all(torch.equal(ours[0][name], ours[1][name]) for name in ours[0]):
            return ""
    return f"!{len(unequal)} differ, first {unequal[:1]}"


def print_line(result: Result) -> None:
    logits = "-" if result.logits is None else f"{result.logits:.1e}"
    labels = f"{result.labels}/{result.outside_ties}"
    print(
        f"{result.key.removeprefix('mm:'):<52.52}{result.seed:>5}  {result.architecture:<16}{logits:>9}"
        f"{result.scores:>9.1e}{labels:>9}  {result.back}{'' if result.good else '  <-- not good'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
