"""What people have on their disks from an earlier month: does today's code read it, and give the same numbers?

`tests/frozen/MONTH/` holds run folders, a model, recipes, cards and a report as that month's code wrote them, and under
`expected/` what it computed from them; `tools/make_frozen.py` made it. Nothing in there is ever written anew: where a
key has got another name, its new one stands in RENAMED, and the old spelling must still be read.

Equal means equal bits on the kind of processor and the torch that made the folder. Elsewhere kernels round otherwise;
numbers are then "close" within the bounds below, and the table says so. So are weights that were trained by a loss
whose sums have another order since.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fakes.golden import digest, filled_state, golden_input, names_crc
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from segatlas.build.network import build_empty, build_network, make_config
from segatlas.checkpoint.card import Card
from segatlas.cli.main import app
from segatlas.config import recipes
from segatlas.config.encoder_keys import nested_fields
from segatlas.evaluation import evaluate
from segatlas.inference import load
from segatlas.models.architecture import plain_fields
from segatlas.recipe import Config

FROZEN = Path(__file__).resolve().parent.parent / "tests" / "frozen"
CLOSE = 1e-5
"""Largest difference on other processors, in units of the tensor's largest value: of one pass of a network in float32.
With the instructions of AVX2 in place of AVX512, 8e-7 was seen, and 1e-6 after the optimiser steps of a run."""
CLOSE_DOUBLE = 1e-9
"""The same in float64."""
CLOSE_STEPS = 1e-4
"""The same after optimiser steps, whose divisions by small gradients enlarge it."""
SUMMED_ANEW = 1e-5
"""Of weights after optimiser steps, on the same kind of processor too: losses of logits at full size add them up in
another order than the month's code (`Lattice.is_plain`); 7e-7 was seen."""
CLOSE_PIXELS = 1e-3
"""Fraction of the pixels of a label map, and difference of a metric or a loss (in bf16 too), on other processors."""

MISSING = "no such key"

RENAMED: dict[str, dict[str, str]] = {
    "recipe": {
        "data.val_share": "data.val_fraction",
        "losses.*.dice_share": "losses.*.dice_fraction",
        "transforms.blur.share": "transforms.blur.probability",
        "transforms.photometric.share": "transforms.photometric.probability",
    },
    "card": {},
    "report": {
        "data.pictures": "data.images",
        "definitions.pictures": "definitions.images",
        "definitions.picture_miou": "definitions.image_miou",
        "pictures.*.picture_miou": "images.*.image_miou",
        "pictures": "images",
        "summary.pictures": "summary.images",
        "worst.*.picture_miou": "worst.*.image_miou",
    },
    "metrics": {"*.pictures_per_s": "*.images_per_s"},
    "step": {},
}
"""Old dotted key -> its name today, by kind of file; `*` stands for one part of a key, here and there."""
ADDED: dict[str, tuple[str, ...]] = {
    "recipe": (
        *("model.encoder.*", "train.freeze_host", "train.freeze_stages", "train.freeze_norms"),
        "train.freeze_norm_weights",
        "train.optimizer.no_decay",
        *("train.optimizer.decay_encoder_norms", "train.optimizer.lr_factors"),
        *("train.schedule.min_lr", "train.schedule.span", "train.schedule.encoder_warmup"),
        *("transforms.scale_draw", "transforms.crop_padding", "transforms.photometric.kind"),
        *("losses.*.count_ignored", "losses.*.ignored_as_class", "losses.*.squared_dice"),
        *("losses.*.align_corners", "losses.*.by_count"),
        *("model.presence_classes", "model.presence_pooling", "model.presence_dropout"),
        *("model.attention", "model.center", "model.norm_maps"),
        *(
            "model.norm_single",
            "model.split_channels",
        ),
        *(
            "model.aux_level",
            "model.classifier_kernel_size",
            "model.fuse_kernel_size",
            "model.inner_upsampling",
            "model.logits_align_corners",
            "model.neck",
            "model.separable",
        ),
        *("model.best_anchor_iou", "model.best_own", "model.measured_strides"),
        *("data.instances", "data.instances.*", "data.year", "data.grouping", "data.trainval"),
        *("eval.class_agnostic", "eval.max_detections", "pretrain", "distill"),
        *("transforms.copy_paste", "transforms.copy_paste.*"),
        *("transforms.boundary_labels", "transforms.boundary_labels.*"),
        *("transforms.tps", "transforms.tps.*"),
        *("train.optimizer.alpha", "train.optimizer.epsilon", "eval.batch_stats"),
        *("transforms.source_jitter", "data.pairs", "data.sources", "train.schedule.hold", "train.schedule.every"),
        *("model.start_partial", "data.pairs.*", "data.sources.*"),
        *("eval.size_bounds", "eval.small_classes", "data.agreement", "data.window", "data.axis", "data.slices"),
        *("semi", "semi.*", "data.unlabelled", "data.grow"),
        *("data.kind", "data.background", "data.outside", "data.rest"),
        *("log.wandb", "log.mlflow"),
    ),
    "card": ("config.encoder.*",),
    "report": (
        *("settings.batch_stats", "settings.sources", "settings.size_bounds", "settings.small_classes"),
        *("summary.iou_small", "summary.iou_medium", "summary.iou_large"),
        *("definitions.iou_small", "definitions.iou_medium", "definitions.iou_large"),
        *("per_class.*.iou_small", "per_class.*.iou_medium", "per_class.*.iou_large"),
    ),
    "metrics": (),
    "step": (),
}
"""Keys of today that old files may lack. Options of an encoder were written only where they had been given."""
DROPPED: dict[str, dict[str, Any]] = {
    "recipe": {
        "data.classes": None,
        "data.palette": None,
        "data.label_map": None,
        "data.label_colors": None,
        "data.ignore.0": 255,
        "data.lists": None,
        "data.val_fraction": 0.2,
    }
}
"""Old keys that are no longer written where they said nothing -> what stood there: options of another dataset."""
OF_PEERS = (
    *("model.input.resize", "losses", "train.accumulate", "train.optimizer", "train.schedule.min_ratio"),
    *("model.detail_channels", "transforms.resize", "transforms.photometric"),
)
AMENDED = {
    "ade20k": OF_PEERS,
    "cityscapes": OF_PEERS,
    "folder": (
        *("model.encoder", "model.encoder_weights", "transforms.scale", "transforms.crop"),
        *("train.epochs", "train.val_epochs", "train.batch", "train.schedule.warmup"),
    ),
}
"""Keys of shipped recipes that were set anew, by their dataset: they claimed a training of another library and differed
from it, or are chosen from the data today. What people have of them on their disks stays as it is."""
UNCOMPARED = {
    "report": ("seconds", "question", "model.path", "warnings"),
    "metrics": ("*.images_per_s",),
    "card": ("resample", "postprocess", "surgery"),
}
"""Keys that tell of a moment or a place, warnings, of which there are more today, and keys that nothing ever read."""
TEXTS = {"report": ("definitions",)}
"""Sentences, whose words may change: there has to be one under the same key."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One comparison. state: equal, close, differs or not run; detail: what differs, or by how much."""

    name: str
    state: str
    detail: str = ""


MODELS = {
    "finished": "finished",
    "finished/model": "finished",
    "windows": "windows",
    "unfinished/model": "unfinished/model",
    "unfinished/checkpoints/last.ckpt": "unfinished/checkpoints/last.ckpt",
}
"""What users name a model by -> whose results it gives in `expected/results.safetensors`."""

Check = Callable[[Path, bool], Iterator[Outcome]]
"""From the folder of a month (a copy, the working directory) and whether bits must be equal, to outcomes."""


# ---- the machine
def machine_kind() -> dict[str, str]:
    """Return the facts on which the last bits of a result depend."""
    facts = {"machine": platform.machine(), "torch": torch.__version__.split("+")[0]}
    facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    parts = [known[key] for key in ("vendor_id", "cpu family", "model") if key in known]
    return facts | {"processor": " ".join(parts) or platform.processor()}


def other_facts(month: Path) -> list[str]:
    """Return in words where this machine is another kind than the one that made the folder; [] where it is not."""
    made, here = json.loads((month / "expected" / "machine.json").read_text(encoding="utf-8")), machine_kind()
    return [f"{key} {here.get(key)} instead of {made[key]}" for key in made if made[key] != here.get(key)]


@contextmanager
def copied(month: Path, place: Path) -> Iterator[Path]:
    """Work in a copy of a month's folder, with one thread and a decoded store of its own."""
    root = place / month.name
    shutil.copytree(month, root)
    threads, cwd, store = torch.get_num_threads(), Path.cwd(), os.environ.get("SEGATLAS_STORE")
    torch.set_num_threads(1)
    os.environ["SEGATLAS_STORE"] = str(place / "store")
    os.chdir(root)
    try:
        yield root
    finally:
        os.chdir(cwd)
        torch.set_num_threads(threads)
        if store is None:
            del os.environ["SEGATLAS_STORE"]
        else:
            os.environ["SEGATLAS_STORE"] = store


# ---- comparing
def compare_tensors(name: str, got: Mapping[str, Tensor], want: Mapping[str, Tensor], limit: float | None) -> Outcome:
    """Compare tensors by name: equal bits, or within `limit` where that is given."""
    if not want or got.keys() != want.keys():
        odd = sorted(got.keys() ^ want.keys())
        return Outcome(name=name, state="differs", detail=f"other tensors: {odd[:3]}" if want else "nothing to compare")
    changed = [key for key in want if got[key].dtype != want[key].dtype or not torch.equal(got[key], want[key])]
    if not changed:
        return Outcome(name=name, state="equal", detail=f"{len(want)} tensors")
    worst = max((distance(got[key], want[key]), key) for key in changed)
    state = "close" if limit is not None and worst[0] <= limit else "differs"
    return Outcome(
        name=name, state=state, detail=f"{len(changed)} of {len(want)} tensors, {worst[1]} by {worst[0]:.1e}"
    )


def distance(got: Tensor, want: Tensor) -> float:
    """Return the largest difference in units of the largest value; of labels, the fraction of pixels that differ."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if not want.is_floating_point():
        return float((got != want).double().mean()) / CLOSE_PIXELS * CLOSE
    found = float((got - want).abs().max() / want.abs().max().clamp_min(1e-12))
    return float("inf") if math.isnan(found) else found


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of plain data; items of a list are numbered, and an empty group is a value."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    inner = {key: value for name, child in pairs for key, value in flat(child, f"{prefix}{name}.").items()}
    return inner or {prefix.rstrip("."): [] if isinstance(tree, tuple) else tree}


def compare_trees(name: str, kind: str, got: Any, want: Any, limit: float | None = None) -> Outcome:
    """Compare plain data key by key, old keys under the names of today; `limit`: of floats, None = equal."""
    old = {_renamed(key, kind): value for key, value in flat(_nested(want, kind)).items()}
    now = {key: value for key, value in flat(got).items() if not _any_of(key, UNCOMPARED.get(kind, ()))}
    now = {key: value for key, value in now.items() if key in old or not _any_of(key, ADDED[kind])}
    old = {key: value for key, value in old.items() if not _any_of(key, UNCOMPARED.get(kind, ()))}
    for tree in (now, old):
        tree |= {key: bool(text) for key, text in tree.items() if _any_of(key, TEXTS.get(kind, ()))}
    dropped = DROPPED.get(kind, {})
    old = {key: value for key, value in old.items() if key in now or dropped.get(key, MISSING) != value}
    if not want or not old:
        return Outcome(name=name, state="differs", detail="nothing to compare")
    unlike = [key for key in [*old, *(now.keys() - old.keys())] if key not in now or key not in old]
    unlike += [key for key in old if key in now and not _same(now[key], old[key])]
    if not unlike:
        return Outcome(name=name, state="equal", detail=f"{len(old)} keys")
    near = limit is not None and all(_near(now.get(key), old.get(key), limit) for key in unlike)
    shown = "; ".join(f"{key}: {old.get(key, MISSING)!r} -> {now.get(key, MISSING)!r}" for key in unlike[:3])
    return Outcome(name=name, state="close" if near else "differs", detail=f"{len(unlike)} of {len(old)} keys: {shown}")


def _nested(tree: Any, kind: str) -> Any:
    """Return an old tree with the encoder of its network, where it has one, spelt as today."""
    key = {"recipe": "model", "card": "config"}.get(kind)
    if key is None or not isinstance(tree, Mapping) or not isinstance(tree.get(key), Mapping):
        return tree
    return {**tree, key: nested_fields(tree[key])[0]}


def _same(got: Any, want: Any) -> bool:
    return got == want and isinstance(got, bool) == isinstance(want, bool)


def _near(got: Any, want: Any, limit: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (got, want))
    return numbers and abs(got - want) <= limit * max(1.0, abs(want))


def _matches(key: str, pattern: str) -> bool:
    parts, wanted = key.split("."), pattern.split(".")
    return len(parts) >= len(wanted) and all(b in ("*", a) for a, b in zip(parts, wanted, strict=False))


def _any_of(key: str, patterns: tuple[str, ...]) -> bool:
    return any(_matches(key, pattern) for pattern in patterns)


def _renamed(key: str, kind: str) -> str:
    for pattern, new in RENAMED[kind].items():
        if _matches(key, pattern):
            parts, length = key.split("."), len(pattern.split("."))
            kept = iter([part for part, sign in zip(parts, pattern.split("."), strict=False) if sign == "*"])
            return ".".join([*(next(kept) if sign == "*" else sign for sign in new.split(".")), *parts[length:]])
    return key


def expected(month: Path, name: str) -> Any:
    """Return what a JSON file of `expected/` holds."""
    return json.loads((month / "expected" / name).read_text(encoding="utf-8"))


# ---- what is looked at
def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """Return the network's tensors in the checkpoint of a training with averaged weights: these and its own."""
    content = torch.load(checkpoint, weights_only=True)
    states = ("state_dict", "current_model_state")  # averaged, and as they are learned
    return {f"{state}/{name}": tensor for state in states for name, tensor in content[state].items()}


def rows_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_runs(month: Path, exact: bool) -> Iterator[Outcome]:
    """Resume the unfinished run through the command line; it must end as the unbroken one did."""
    done = CliRunner().invoke(app, ["train", "--resume", "unfinished"])
    if done.exit_code != 0:
        yield Outcome(name="resume", state="differs", detail=f"exit {done.exit_code}: {done.output.strip()[-300:]}")
        return
    torch.set_num_threads(1)
    got, want = weights_of(Path("unfinished/checkpoints/last.ckpt")), load_file(month / "expected" / "end.safetensors")
    yield compare_tensors("weights at the end of a resumed run", got, want, SUMMED_ANEW if exact else CLOSE_STEPS)
    rows, before = ([_numbers(row, exact) for row in rows_of(Path(run))] for run in ("unfinished", "finished"))
    yield compare_trees("rows of metrics.csv", "metrics", rows, before, None if exact else CLOSE_PIXELS)
    yield _compare_reports("its eval.json", Path("unfinished/eval.json"), exact)


def _numbers(row: Mapping[str, str], exact: bool) -> dict[str, float | str]:
    """Return a row as it is written, or its numbers; the terms of a loss are then left to their sum."""
    if exact:
        return dict(row)
    return {key: float(text) if text and "=" not in text else "" for key, text in row.items()}


def _compare_reports(name: str, file: Path, exact: bool) -> Outcome:
    got, want = (json.loads(path.read_text(encoding="utf-8")) for path in (file, Path("finished/eval.json")))
    return compare_trees(name, "report", got, want, None if exact else CLOSE_PIXELS)


def results_of(model: Path, images: Tensor) -> dict[str, Tensor]:
    """Return what a model folder gives: scores of a normalised batch, and label maps of a file in three ways."""
    image = "data/test/images/0000.png"
    results = {"scores": load(model, device="cpu").scores(images).contiguous()}
    for name, options in {"whole": {}, "flips": {"tta": "flips"}, "windows": {"window": 32}}.items():
        predicted = load(model, device="cpu", **options).predict(image)
        results[f"labels, {name}"] = torch.from_numpy(predicted.semantic.copy())
    return results


def check_models(month: Path, exact: bool) -> Iterator[Outcome]:
    """Predict with the finished run, its model folder and the unfinished run's, each as users name them."""
    stored = load_file(month / "expected" / "results.safetensors")
    images = stored.pop("images")
    for model, source in MODELS.items():
        want = {name.partition("|")[2]: tensor for name, tensor in stored.items() if name.startswith(f"{source}|")}
        yield compare_tensors(model, results_of(Path(model), images), want, None if exact else CLOSE)


def check_reports(month: Path, exact: bool) -> Iterator[Outcome]:
    """Evaluate the finished run again; its numbers must be those of its eval.json."""
    evaluate("finished", device="cpu", progress=False).to_json(Path("again.json"))
    yield _compare_reports("finished/eval.json", Path("again.json"), exact)


def check_recipes(month: Path, exact: bool) -> Iterator[Outcome]:
    """Load the recipes that people may have, and those of the same names that are shipped today."""
    trees = expected(month, "recipes.json")
    for path, tree in trees.items():
        yield compare_trees(path, "recipe", Config.load(month / path).model_dump(mode="json"), tree)
    shipped = {_shipped_name(path): tree for path, tree in trees.items() if _shipped_name(path)}
    for name, tree in shipped.items():
        named = {**tree, "run": {**tree["run"], "name": name}}
        known = name in recipes()
        got = Config.load(name).model_dump(mode="json") if known else {}
        if amended := AMENDED.get(tree["data"]["name"]):
            got, named = _without(got, amended), _without(_nested(named, "recipe"), amended)
        yield compare_trees(f"shipped {name}", "recipe", got, named)


def _without(tree: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the flat tree of a recipe without some keys and what lies below them."""
    return {key: value for key, value in flat(tree).items() if not _any_of(key, keys)}


def _shipped_name(path: str) -> str:
    folder, file = Path(path).parts[-2:]
    return f"{folder}_{Path(file).stem}" if path.startswith("recipes/shipped/") and folder != "_base_" else ""


def network_digest(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return names, fields and output of a network whose weights follow from names and shapes, in float64."""
    architecture, config = make_config(name, fields)
    torch.manual_seed(0)  # for networks that draw in every forward
    net = build_network(architecture, config).double().eval()
    net.load_state_dict(filled_state(net.state_dict()))
    torch.manual_seed(0)
    with torch.inference_mode():
        output = net(golden_input((1, config.in_channels, 64, 96)))
    facts = json.loads(json.dumps(plain_fields(config))) | {"names_crc": names_crc(net.state_dict())}
    return facts | {"canvas": list(output.canvas), "resample": list(output.resample), "logits": digest(output.logits)}


def check_networks(month: Path, exact: bool) -> Iterator[Outcome]:
    """Build the smallest form of each architecture with every field of its config written out."""
    for path, want in expected(month, "networks.json").items():
        model = Config.load(month / path).model
        fields = model.architecture_fields() | {"num_classes": model.num_classes, "in_channels": model.in_channels}
        got = network_digest(model.name, fields)
        limit = None if exact else CLOSE_DOUBLE * max(1.0, want["logits"]["absmax"])
        yield compare_trees(path, "recipe", {"model": got}, {"model": want}, limit)


def check_cards(month: Path, exact: bool) -> Iterator[Outcome]:
    """Read cards of every kind, and build the network that each describes."""
    for name, crc in expected(month, "cards.json").items():
        file = month / "cards" / name
        card = Card.read(file)
        yield compare_trees(name, "card", card.to_dict(), json.loads(file.read_text(encoding="utf-8")))
        got = names_crc(build_empty(*make_config(card.architecture, card.config)).state_dict())
        state = "equal" if got == crc else "differs"
        yield Outcome(name=f"network of {name}", state=state, detail=f"names and shapes {got}, were {crc}")


CHECKS: dict[str, Check] = {
    "runs": check_runs,
    "models": check_models,
    "reports": check_reports,
    "recipes": check_recipes,
    "networks": check_networks,
    "cards": check_cards,
}
"""The parts of a month's folder. Each works in a copy of its own."""


def months() -> list[Path]:
    """Return the frozen folders, oldest first."""
    return sorted(path.parent for path in FROZEN.glob("*/README.md"))


def check(part: str, month: Path, place: Path) -> list[Outcome]:
    """Run one part on one month's folder, in a copy below `place`; an error is a difference that names it."""
    outcomes: list[Outcome] = []
    with copied(month, place / part) as root:
        try:
            for outcome in CHECKS[part](root, not other_facts(month)):
                outcomes.append(outcome)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            outcomes.append(Outcome(name=f"{month.name} {part}", state="differs", detail=detail[:300]))
    return outcomes
