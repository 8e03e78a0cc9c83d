"""Write down what this month's code makes and reads, for `tools/shape_proof.py` to hold later code to.

    python tools/make_frozen.py tests/frozen/2026-11

The folder must not exist: a frozen folder is never made anew, a later month gets its own. Everything comes from seed 7
and one thread, the runs through the command line. What is in it: its README.md, which is written here too.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")]

import torch  # noqa: E402
from fakes.golden import filled_state, hollow, names_crc  # noqa: E402
from fakes.golden_cases import GOLDENS  # noqa: E402
from fakes.small_recipes import dry_run_of_each_architecture  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import frozen  # noqa: E402
import frozen_recipes  # noqa: E402
import segatlas  # noqa: E402
from segatlas.build.network import (  # noqa: E402
    build_empty,
    create_model,
    make_config,
)
from segatlas.build.saving import save_pretrained  # noqa: E402
from segatlas.checkpoint.card import (  # noqa: E402
    Card,
    InferenceMode,
    InputSpec,
    Preprocessing,
)
from segatlas.cli.main import app  # noqa: E402
from segatlas.config.loading import RECIPES  # noqa: E402
from segatlas.conversion.converting import convert_file  # noqa: E402
from segatlas.conversion.importers import importers  # noqa: E402
from segatlas.conversion.renaming import rename_to_theirs  # noqa: E402
from segatlas.data.shapes import make_shapes  # noqa: E402
from segatlas.models import ARCHITECTURES  # noqa: E402
from segatlas.models.architecture import plain_fields  # noqa: E402
from segatlas.models.reading import load_architecture  # noqa: E402
from segatlas.recipe import Config  # noqa: E402
from segatlas.training.checkpoints import RunCheckpoints  # noqa: E402
from segatlas.training.module import SegmentationModule  # noqa: E402

SEED = 7
STOP_AT = 3
"""Optimiser step in whose middle Ctrl-C is pressed: of six, two an epoch."""

RUN = f"""\
# A tiny U-Net with dropout, an auxiliary head, accumulation and averaged weights; all else is the default
seed: {SEED}
run: {{root: runs}}
model: {{name: unet, width: 1, dropout: 0.2, aux: true}}
data: {{name: shapes, root: data, workers: 0}}
transforms: {{scale: [0.8, 1.25], crop: [32, 32], photometric: {{}}}}
losses:
- cross_entropy
- {{name: dice, weight: 0.5}}
- {{name: cross_entropy, on: aux.fcn, weight: 0.4}}
train: {{epochs: 3, batch: 2, accumulate: 2, lr: 1e-2, ema: {{decay: 0.9}}, device: cpu, threads: 1}}
log: {{tensorboard: false, samples: 0}}
"""

README = """\
# Frozen {month}

What `segatlas` {version} of {month} wrote, kept as it was: later code must load, resume and read it with the same
numbers.
Made on {date} by `python tools/make_frozen.py tests/frozen/{month}`, seed {seed}, one thread; never made anew.
`tools/frozen.py` compares; `make shape-proof` and `tests/tools/test_shape_proof.py` run it.

| Part | What it is |
| --- | --- |
| `data/` | 10 train, 3 val, 2 test images of `shapes`, 32 x 48; images and masks only |
| `run.yaml` | the recipe of both runs |
| `unfinished/` | a run stopped by Ctrl-C after step {stop} of 6, amid its second epoch (without best.ckpt) |
| `finished/` | the same run unbroken: model folder, recipe, metrics, eval.json (without checkpoints and images) |
| both runs | `platform` in env.json is shortened |
| `windows/` | a model folder by itself: random weights, windows and a resize in its card |
| `recipes/shipped/` | every shipped recipe and base, as a user's own files |
| `recipes/every_key_*.yaml` | every key of the schema and every loss, with a value that is not the default |
| `recipes/networks/` | each architecture with every field of its config written out |
| `cards/` | an own network, one with all optional fields, and one converted from each library |
| `expected/` | what {month}'s code made of these, and `machine.json`, the kind of processor and torch |

`expected/end.safetensors`: all weights, averaged ones too, at the end of the unbroken run; the resumed run gave the
same bits. `results.safetensors`: scores and label maps of each model. The JSON files: resolved recipes, digests of the
networks' logits, names and shapes of the cards' networks, first steps of a recipe of each architecture.

Equal means equal bits where `machine.json` is this machine's; elsewhere the bounds of `tools/frozen.py` hold and the
table says "close".
"""


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    if target.exists():
        sys.exit(f"{target} exists: a frozen folder is never made anew")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SEGATLAS_STORE"] = str(Path(temporary) / "store")
        root = Path(temporary) / target.name
        (root / "expected").mkdir(parents=True)
        os.chdir(root)
        write_data(root)
        write_runs(root)
        write_results(root)
        logging.disable(logging.WARNING)
        write_recipes(root)
        write_cards(root, Path(temporary))
        dump(root / "expected" / "dry_runs.json", dry_run_of_each_architecture(Path(temporary) / "sets"))
        dump(root / "expected" / "machine.json", frozen.machine_kind())
        facts = {"version": segatlas.__version__, "month": target.name, "seed": SEED, "stop": STOP_AT}
        text = README.format(date=datetime.now().date(), **facts)
        (root / "README.md").write_text(text, encoding="utf-8")
        os.chdir(ROOT)
        shutil.copytree(root, target)
    print(f"{target}: {sum(file.stat().st_size for file in target.rglob('*') if file.is_file()):,} bytes")


def dump(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")


def write_data(root: Path) -> None:
    make_shapes(root / "data", train=10, val=3, test=2, size=(32, 48), seed=1)
    for folder in ("annotations", *(f"{split}/{kind}" for split in ("train", "val", "test") for kind in KINDS)):
        shutil.rmtree(root / "data" / folder)
    (root / "run.yaml").write_text(RUN, encoding="utf-8")


KINDS = ("instances", "panoptic")


# ---- runs and models
def command(*words: str, status: int = 0) -> None:
    sys.argv = ["segatlas", *words]  # env.json tells it
    done = CliRunner().invoke(app, list(words))
    if done.exit_code != status:
        sys.exit(f"segatlas {' '.join(words)}: exit {done.exit_code}, expected {status}\n{done.output}")


def write_runs(root: Path) -> None:
    """Train the run whole, and once with Ctrl-C; prove that resuming a copy of that gives the same bits."""
    command("train", "run.yaml", "run.dir=finished")
    whole = SegmentationModule.training_step

    def interrupted(self: Any, batch: Any, batch_index: int) -> Any:
        if self.global_step == STOP_AT - 1:
            next(c for c in self.trainer.callbacks if isinstance(c, RunCheckpoints))._interrupts = 1
        return whole(self, batch, batch_index)

    SegmentationModule.training_step = interrupted  # type: ignore[method-assign]
    command("train", "run.yaml", "run.dir=unfinished", status=130)
    SegmentationModule.training_step = whole  # type: ignore[method-assign]
    torch.set_num_threads(1)
    end = frozen.weights_of(root / "finished" / "checkpoints" / "last.ckpt")
    before = frozen.weights_of(root / "unfinished" / "checkpoints" / "last.ckpt")
    if still := [name for name, tensor in end.items() if torch.equal(tensor, before[name])]:
        sys.exit(f"a resume that does not change {still[:3]} proves nothing of them")
    save_file(end, root / "expected" / "end.safetensors")
    (root / "unfinished" / "checkpoints" / "best.ckpt").unlink()
    for name in ("report.html", "checkpoints", "plots", "samples", "run.lock"):
        remove(root / "finished" / name)
    for name in ("plots", "samples", "run.lock"):
        remove(root / "unfinished" / name)
    shutil.rmtree(root / "runs", ignore_errors=True)
    for run in ("finished", "unfinished"):
        file = root / run / "env.json"
        told = json.loads(file.read_text(encoding="utf-8")) | {"platform": f"{platform.system()}-{platform.machine()}"}
        file.write_text(json.dumps(told, indent=1), encoding="utf-8")


def write_results(root: Path) -> None:
    """Write a model of many classes and windows, whose weights follow from names; then what every model gives."""
    net = create_model("unet", num_classes=7, width=2)
    net.load_state_dict(filled_state(net.state_dict()))
    spread_classes(net.eval())
    classes = Card.read(root / "finished" / "model").classes
    inference = InferenceMode(mode="slide", crop=(32, 32), stride=(16, 24))
    save_pretrained(
        net, root / "windows", classes=classes, inference=inference, preprocessing=Preprocessing(resize="short:40")
    )
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn((1, 3, 35, 45), generator=generator)
    stored = {"images": images}
    for model in sorted(set(frozen.MODELS.values())):
        stored |= {f"{model}|{name}": tensor for name, tensor in frozen.results_of(Path(model), images).items()}
    save_file(stored, root / "expected" / "results.safetensors")
    if len(stored["windows|labels, whole"].unique()) < 4:
        sys.exit("label maps of fewer than four classes prove little")


def spread_classes(net: torch.nn.Module) -> None:
    """Give the logits of every class the same mean, so that many win somewhere."""
    with torch.no_grad():
        logits = net(torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(SEED))).logits
        net.get_submodule("classifier").bias -= logits.mean(dim=(0, 2, 3))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- recipes
def write_recipes(root: Path) -> None:
    folder = root / "recipes"
    shutil.copytree(RECIPES, folder / "shipped")
    for name, text in frozen_recipes.EVERY_KEY.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "networks").mkdir()
    networks = {}
    for name in ARCHITECTURES:
        record = load_architecture(name)
        _, config = make_config(name, {"num_classes": 5, **record.tiny})
        model = {"name": name, **json.loads(json.dumps(plain_fields(config)))}
        lines = [f"# {record.title}, the smallest, with every field of its config", "model:"]
        lines += [f"  {key}: {json.dumps(value)}" for key, value in model.items()]
        file = folder / "networks" / f"{name}.yaml"
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
        fields = {key: value for key, value in model.items() if key != "name"}
        networks[file.relative_to(root).as_posix()] = frozen.network_digest(name, fields)
    files = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.yaml"))
    trees = {path: Config.load(root / path).model_dump(mode="json") for path in files}
    missing = frozen_recipes.keys_of_the_schema() - frozen_recipes.stated_keys(folder.glob("every_key_*.yaml"))
    if missing:
        sys.exit(f"keys of the schema that no recipe states: {sorted(missing)}")
    dump(root / "expected" / "recipes.json", trees)
    dump(root / "expected" / "networks.json", networks)


# ---- cards
def write_cards(root: Path, place: Path) -> None:
    folder = root / "cards"
    folder.mkdir()
    shutil.copy(root / "finished" / "model" / "card.json", folder / "trained.json")
    torch.manual_seed(SEED)
    net = create_model("unet", num_classes=2, in_channels=4, width=2)
    written = save_pretrained(net, place / "full", classes=("sky", "café"), palette=((1, 2, 3), (4, 5, 6)), **FULL)
    shutil.copy(written / "card.json", folder / "every_field.json")
    for source in sorted({source for source, _ in GOLDENS.values()}):
        case = min((case for kind, case in GOLDENS.values() if kind == source), key=parameters)
        shutil.copy(converted(source, case, place / source) / "card.json", folder / f"{source}.json")
    crcs = {}
    for file in sorted(folder.iterdir()):
        card = Card.read(file)
        crcs[file.name] = names_crc(build_empty(*make_config(card.architecture, card.config)).state_dict())
    dump(root / "expected" / "cards.json", crcs)


FULL: dict[str, Any] = {
    "inputs": (InputSpec(channels=4), InputSpec(name="height", kind="map", channels=1, required=False)),
    "preprocessing": Preprocessing(
        mean=(0.1, 0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7, 0.8), max_value=4095, resize="short:64"
    ),
    "inference": InferenceMode(mode="slide", crop=(64, 64), stride=(48, 32)),
    "source": "https://example.org/weights.pth",
    "licence": "CC BY-NC 4.0 (non-commercial)",
    "metric": {"name": "mIoU", "value": 78.5, "data": "Cityscapes val"},
}


def parameters(case: dict[str, Any]) -> int:
    net = build_empty(*make_config(case["architecture"], case["fields"]))
    return sum(parameter.numel() for parameter in net.parameters())


def converted(source: str, case: dict[str, Any], place: Path) -> Path:
    """Convert a library's file of a golden case as a user would, its settings beside it where it has some."""
    place.mkdir()
    architecture, config = make_config(case["architecture"], case["fields"])
    state = hollow(build_empty(architecture, config).state_dict())
    layouts = [rename_to_theirs(importer, config, state) for importer in importers(source, case["architecture"])]
    theirs = next(layout for layout in layouts if names_crc(layout) == case["names_crc"])
    weights = {name: t.float() if t.is_floating_point() else t for name, t in filled_state(theirs).items()}
    torch.save({"state_dict": weights} if source == "mmseg" else weights, place / "weights.pth")
    options: dict[str, Any] = {}
    if case["settings"]:
        suffix = ".py" if source == "mmseg" else ".json"
        lines = [f"{key} = {value!r}" for key, value in case["settings"].items()]
        text = "\n".join(lines) if source == "mmseg" else json.dumps(case["settings"])
        options["config"] = place / f"config{suffix}"
        options["config"].write_text(text, encoding="utf-8")
    return convert_file(place / "weights.pth", place / "model", **options).folder


if __name__ == "__main__":
    main()
