"""Measurements for `beside_mmsegmentation.py`: our training and the running peer's, side by side in one process.

Run by the interpreter of the reference environment, which holds the peer; of ours it needs `src` on the path only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from segatlas import criteria
from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.model_folder import read_model
from segatlas.conversion.converting import convert_file
from segatlas.conversion.importers import importers
from segatlas.data.sample import Sample
from segatlas.data.transforms import Pipeline
from segatlas.hub.loading import load_pretrained
from segatlas.losses.edge import edge_map
from segatlas.models import find_entry
from segatlas.recipe import Config
from segatlas.structures import IGNORE, SemanticTarget
from segatlas.training.freezing import freeze, training_mode
from segatlas.training.optim import build_optimizer, parameter_groups
from segatlas.training.schedule import lr_factor

SIZE = (64, 128)
STEPS, OWN_STEPS = 20, 5
"""Of both trainings, and of those of which each begins with the peer's state."""
DRAWS = 2000
IGNORED = 0.2
TINY = 1e-6
"""What updated weights are compared in units of where all of a tensor are smaller: those whose gradient is 0 but for
rounding, such as biases in front of a batch norm."""
GROUPING = ("optimizer", "paramwise_cfg", "constructor")
"""Keys of the peer's wrapper that say which parameter is trained how."""
BINARY = ("fastscnn/",)
"""Peer's configs that learn each class by itself, where the recipe has the paper's loss: compared with that in both."""
NEVER_CALLED = {"pidnet/": "decode_head.dropout"}
"""Begin of the peer's configs -> a layer that the base class of its head makes and the head leaves out."""
FIXED_NORMS = ("mask2former/",)
"""Peer's configs in which weights of batch norms are fixed and their statistics go on; the recipes have the authors'
way, both fixed: compared with that in both."""
DROPOUTS = ("Dropout", "Dropout2d", "DropPath")
ATTENTIONS = ("MultiheadAttention", "MultiHeadAttention")
"""Whose dropout is no layer: the peer's, which is torch's, and ours."""
MOST_POINTS = 1 << 16
Pairs = list[tuple[Tensor, dict[str, Tensor]]]


# ---- the peer's network and ours with its weights
def peer_config(name: str, *, weights: bool = False) -> Any:
    """Return the peer's resolved config; without the weights that it begins with unless `weights`."""
    import mmseg
    from mmengine import Config as PeerConfig
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    config = PeerConfig.fromfile(os.path.join(os.path.dirname(mmseg.__file__), ".mim", "configs", f"{name}.py"))
    if not weights:
        _without_weights(config.model)
    return config


def _without_weights(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("pretrained") is not None:
            node["pretrained"] = None
        if isinstance(node.get("init_cfg"), dict) and node["init_cfg"].get("type") == "Pretrained":
            node["init_cfg"] = None
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        _without_weights(child)


def _with_softmax(node: Any) -> None:
    if isinstance(node, dict) and node.get("use_sigmoid"):
        node["use_sigmoid"] = False
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        _with_softmax(child)


def peer_model(config: Any, seed: int) -> nn.Module:
    """Build the peer's network from its own random start, with plain batch norm in place of the synchronised one."""
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    model.init_weights()
    return revert_sync_batchnorm(model)


def converted(model: nn.Module, config: Any, place: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """Write the peer's weights, or other `weights`, as the peer does and convert them; return the model folder."""
    file = place / "peer.pth"
    state = {name: tensor.contiguous() for name, tensor in (weights or model.state_dict()).items()}
    torch.save({"meta": {"cfg": config.pretty_text}, "state_dict": state}, file)
    state.clear()  # large networks: the conversion needs the room
    if weights is not None:
        weights.clear()
    convert_file(file, place / "ours")
    file.unlink()
    return place / "ours"


def names_of_peer(
    model: nn.Module, config: Any, place: Path
) -> tuple[Card, dict[str, torch.Size], dict[str, set[str]]]:
    """Return the card, shapes of our tensors, and our name of each -> names of the peer's tensors that it is made of.

    Every tensor of the peer is filled with a number of its own, and the numbers are looked for after the conversion.
    """
    filled = dict(model.state_dict())
    names = [name for name, tensor in filled.items() if tensor.is_floating_point()]
    for index, name in enumerate(names):
        filled[name] = torch.full_like(filled[name], index + 1.0)
    folder = converted(model, config, place, filled)
    card, tensors = read_model(folder)
    known = {}
    for ours, tensor in tensors.items():
        if tensor.is_floating_point():
            found = (number for number in tensor.unique().tolist() if number == int(number) and number >= 1)
            known[ours] = {names[int(number) - 1] for number in found}
    return card, {name: tensor.shape for name, tensor in tensors.items()}, known


# ---- learning rate and decay
def rates(recipe: str, peer: str, seed: int, form: dict[str, Any]) -> dict[str, Any]:
    """Compare learning rate and weight decay of every parameter at every step of the whole schedule.

    Ours are those of the recipe's own network, with the fields `form` where it has another form than the peer's; its
    tensors must be those of the converted checkpoint.
    """
    from mmengine.optim import build_optim_wrapper

    config, ours = peer_config(peer), Config.load(recipe)
    model = peer_model(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        card, shapes, known = names_of_peer(model, config, Path(folder))
    with shapes_only():
        net = network(ours.model, len(card.classes), form)
    freeze(net, ours.train)
    unlike = shapes.items() ^ {(name, tensor.shape) for name, tensor in net.state_dict().items()}
    groups_alone = {key: config.optim_wrapper[key] for key in GROUPING if key in config.optim_wrapper}
    wrapper = build_optim_wrapper(model, groups_alone)  # that of mixed precision needs a GPU
    groups_of = _group_of(model, wrapper.optimizer)
    theirs = {name: groups_of[name] for name, p in model.named_parameters() if p.requires_grad and name in groups_of}
    groups = parameter_groups(net, ours.train.optimizer, ours.train.lr)
    mine = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
    pairs: dict[tuple[int, int], list[str]] = {}
    learned = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    for name, parameter in learned.items():
        for source in known.get(name, set()) & theirs.keys():
            pairs.setdefault((mine[id(parameter)], theirs[source]), []).append(name)
    decays = {key: abs(groups[key[0]]["weight_decay"] - wrapper.param_groups[key[1]]["weight_decay"]) for key in pairs}
    worst, where = _worst_rate(pairs, groups, wrapper, config, ours.train)
    matched = {name for names in pairs.values() for name in names}
    idle = {"backbone.cls_token"} if config.model.backbone.get("with_cls_token") is False else set()  # it has one still
    without = sorted(theirs.keys() - {source for name in learned for source in known.get(name, ())} - idle)
    idle_layers = {name for start, name in NEVER_CALLED.items() if peer.startswith(start)}
    dropped = {"theirs": drops(model, idle_layers), "ours": drops(net)}
    count = len(learned)
    decay = max(decays.values())
    return {
        "what": "rates", "recipe": recipe, "peer": peer, "seed": seed, "steps": ours.train.steps,
        "parameters": len(matched), "of": count, "theirs": len(theirs.keys() - idle), "without_ours": without,
        "rate": worst, "where": where, "rates": len({groups[a]["base_lr"] for a, _ in pairs}), "decay": decay,
        "decay_unlike": [n for key, names in pairs.items() if decays[key] for n in names][:6],
        "shapes_unlike": sorted(name for name, _ in unlike)[:6], "dropped": dropped,
        "dropout": dropped["theirs"] == dropped["ours"], "form": ", ".join(f"{key}={form[key]}" for key in form),
        "good": worst <= 1e-9 and decay <= 1e-9 and len(matched) == count and not without and not unlike,
    }  # fmt: skip


def network(model: Any, classes: int, form: dict[str, Any]) -> nn.Module:
    """Return the network of a recipe with other values of its fields, or of its encoder's options."""
    architecture, config = make_config(model.name, {**model.architecture_fields(), "num_classes": classes})
    for key, value in form.items():
        if hasattr(config, key):
            config = replace(config, **{key: value})
        else:
            options = replace(config.encoder.options, **{key: value})
            config = replace(config, encoder=replace(config.encoder, options=options))
    return build_network(architecture, config)


def _worst_rate(pairs: Any, groups: Any, wrapper: Any, config: Any, train: Any) -> tuple[float, str]:
    """Return the largest difference of a learning rate over the whole run, and where it is."""
    from mmseg.registry import PARAM_SCHEDULERS

    total = config.train_cfg.max_iters
    assert total == train.steps, (total, train.steps)
    schedulers = [PARAM_SCHEDULERS.build({**s, "optimizer": wrapper}) for s in config.param_scheduler]
    bases = {a: groups[a]["base_lr"] for a, _ in pairs}
    worst, where = 0.0, ""
    for step in range(total):
        rates = {base: base * lr_factor(train.schedule, step, total, base=base) for base in set(bases.values())}
        for (a, b), names in pairs.items():
            found = abs(rates[bases[a]] - wrapper.param_groups[b]["lr"])
            if found > worst:
                worst, where = found, f"{names[0]} at step {step}"
        for scheduler in schedulers:
            scheduler.step()
    return worst, where


def _group_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Return the group of each parameter, those of equal rate and decay put together: a schedule reads nothing else."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for group in optimizer.param_groups:
        merged.setdefault((group["lr"], group["weight_decay"]), {**group, "params": []})["params"] += group["params"]
    optimizer.param_groups = list(merged.values())
    numbers = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    return {name: numbers[id(p)] for name, p in model.named_parameters() if id(p) in numbers}


def drops(model: nn.Module, idle: Iterable[str] = ()) -> list[str]:
    """Return with which probabilities values (channels) and branches are dropped in training, `idle` layers aside."""
    found: set[str] = set()
    for name, module in model.named_modules():
        if type(module).__name__ in DROPOUTS and name not in idle:
            kind = "branch" if type(module).__name__ == "DropPath" else "value"
            rate = next(float(getattr(module, f)) for f in ("p", "drop_prob", "rate") if hasattr(module, f))
            found |= {f"{kind} {rate:.4f}"} if rate else set()
        if type(module).__name__ in ATTENTIONS and isinstance(rate := getattr(module, "dropout", None), float) and rate:
            found.add(f"attention {rate:.4f}")
    return sorted(found)


# ---- losses of the first steps
def batches(classes: int, seed: int, dtype: torch.dtype, ignored: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the same normalised images and labels (2, H, W) for both, a fraction of the labels ignored."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        images = torch.randn(2, 3, *SIZE, generator=draw, dtype=torch.float64)
        coarse = torch.randint(0, classes, (2, SIZE[0] // 8, SIZE[1] // 8), generator=draw)
        coarse[torch.rand(coarse.shape, generator=draw) < ignored] = IGNORE
        yield images.to(dtype), coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


def ignored_by(node: Any) -> float:
    """Return the fraction of pixels to ignore: a fifth, or 0 for a config whose cross-entropy weighs classes.

    The peer's then looks for the weight of class 255 and fails.
    """
    if isinstance(node, dict) and node.get("type") == "CrossEntropyLoss" and node.get("class_weight"):
        return 0.0
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    return min((ignored_by(child) for child in children), default=IGNORED)


def without_drawing(model: nn.Module) -> nn.Module:
    """Switch dropout and drop path off; return the network in training mode."""
    for module in model.modules():
        if type(module).__name__ in DROPOUTS:
            for field in ("p", "drop_prob", "rate"):
                if isinstance(getattr(module, field, None), float):
                    setattr(module, field, 0.0)
        if type(module).__name__ in ATTENTIONS and isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model.train()


@contextmanager
def same_draws() -> Iterator[None]:
    """Let `torch.rand` give the first of the same points (P, 2) to each mask, whatever order masks are drawn for in.

    Everything else that it is asked for is drawn as before.
    """
    drawn = torch.rand
    points = drawn(MOST_POINTS, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def given(*sizes: Any, **more: Any) -> Tensor:
        shape = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
        if len(shape) != 3 or shape[2] != 2 or shape[1] > MOST_POINTS:
            return drawn(*sizes, **more)
        return points[: shape[1]].to(more.get("dtype") or torch.get_default_dtype()).repeat(shape[0], 1, 1)

    torch.rand = given
    try:
        yield
    finally:
        torch.rand = drawn


@contextmanager
def in_double(dtype: torch.dtype) -> Iterator[None]:
    """Let the peer's losses compute in float64 where the network does.

    They make float32 of their targets and weights (`.float()`, fractions of counts), in which torch then stores the
    binary cross-entropy, and add float32's smallest step to what they divide by.
    """
    if dtype != torch.float64:
        yield
        return
    as_float, facts, kind = torch.Tensor.float, torch.finfo, torch.get_default_dtype()
    smallest = facts(torch.float64)
    torch.set_default_dtype(dtype)
    torch.Tensor.float, torch.finfo = torch.Tensor.double, lambda *_: smallest  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.Tensor.float, torch.finfo = as_float, facts  # type: ignore[assignment,misc]
        torch.set_default_dtype(kind)


def for_small_images(model: nn.Module, terms: Iterable[Any], dtype: torch.dtype) -> list[Any]:
    """Set both so that images of 64 x 128 mean something: OHEM keeps 1,000 pixels of each, not more than there are."""
    for module in model.modules():
        if getattr(module, "sampler", None) is not None:
            module.sampler.min_kept = 1000
        if type(module).__name__ == "OhemCrossEntropy":
            module.min_kept = 2 * 1000  # of the whole batch
        if hasattr(module, "fusion_kernel"):  # float32's 0.1 is above 0.1 in float64
            module.fusion_kernel.data = torch.tensor([0.6, 0.3, 0.1], dtype=dtype).view(1, 3, 1, 1)
    return [term.model_copy(update={"min_kept": 2 * 1000} if hasattr(term, "min_kept") else {}) for term in terms]


class Theirs:
    """The peer's training: its network, optimiser and schedules."""

    def __init__(self, peer: str, seed: int, place: Path | None = None):
        from mmengine.optim import build_optim_wrapper
        from mmseg.registry import PARAM_SCHEDULERS

        config = peer_config(peer)
        if peer.startswith(BINARY):
            _with_softmax(config.model)
        if peer.startswith(FIXED_NORMS) and "norm_cfg" in config.model.backbone:
            config.model.backbone.norm_eval = config.model.backbone.norm_cfg.get("requires_grad") is False
        self.model = peer_model(config, seed)
        self.folder = converted(self.model, config, place) if place else None
        self.wrapper = build_optim_wrapper(self.model, config.optim_wrapper)
        self.schedulers = [PARAM_SCHEDULERS.build({**s, "optimizer": self.wrapper}) for s in config.param_scheduler]

    def prepared(self, dtype: torch.dtype, moved: float = 0.0) -> Theirs:
        """Ready to train in `dtype` on small images; `moved`: every weight times 1 + moved x a normal number."""
        without_drawing(self.model.to(dtype))
        for_small_images(self.model, (), dtype)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters() if moved else ():
                parameter.mul_(1 + moved * torch.randn(parameter.shape, generator=draw, dtype=dtype))
        return self

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train one step and return its loss."""
        with in_double(images.dtype):
            loss, _ = self.model.parse_losses(self.model.loss(images, peer_samples(labels)))
            self.wrapper.update_params(loss)
        for scheduler in self.schedulers:
            scheduler.step()
        return float(loss.detach())


class Ours:
    """Our training by a recipe, from the weights of a model folder."""

    def __init__(self, recipe: Config, folder: Path, dtype: torch.dtype):
        self.train = recipe.train
        self.net, self.card = load_pretrained(folder)
        freeze(self.net, self.train)
        training_mode(without_drawing(self.net.to(dtype)), self.train)
        terms = for_small_images(self.net, recipe.losses, dtype)
        with in_double(dtype):  # weights of classes are made in torch's default type
            self.criterion = criteria.build(find_entry(recipe.model.name)[0].output, terms)
        self.optimizer = build_optimizer(self.net, self.train.optimizer, self.train.lr)

    def step(self, number: int, images: Tensor, labels: Tensor) -> float:
        """Train one step and return its loss."""
        loss, _ = self.criterion(self.net(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.train.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.train.clip)
        for group in self.optimizer.param_groups:
            base = group["base_lr"]
            group["lr"] = base * lr_factor(self.train.schedule, number, self.train.steps or 1, base=base)
        self.optimizer.step()
        return float(loss.detach())


def losses(recipe: str, peer: str, seed: int, dtype: torch.dtype = torch.float64, steps: int = STEPS) -> dict[str, Any]:
    """Train both for a few steps from the peer's random start on the same batches, and compare the losses.

    Where they part further than the limit, the peer trains once more, from weights moved by their last bit: `itself`.
    """
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(peer, seed, Path(folder)).prepared(dtype)
        ours = Ours(Config.load(recipe), theirs.folder, dtype)
    classes, values, ignored = len(ours.card.classes), [], ignored_by(peer_config(peer).model)
    for step, batch in enumerate(islice(batches(classes, seed, dtype, ignored), steps)):
        torch.manual_seed(step)  # PointRend draws points
        with same_draws():
            theirs_now = theirs.step(*batch)
            torch.manual_seed(step)
            values.append((ours.step(step, *batch), theirs_now))
        print(f"{recipe} {dtype} step {step}: {values[-1][0]:.12f} {values[-1][1]:.12f}", file=sys.stderr, flush=True)
    apart = [abs(a - b) / abs(b) for a, b in values]
    good = max(apart) <= 1e-6 if dtype == torch.float64 else apart[0] <= 1e-5
    result = {
        "what": "losses", "recipe": recipe, "peer": peer, "seed": seed, "type": str(dtype).removeprefix("torch."),
        "steps": len(values), "from": values[0][1], "to": values[-1][1], "first": apart[0], "worst": max(apart),
        "ignored": ignored, "good": good,
    }  # fmt: skip
    if not good:
        moved = Theirs(peer, seed).prepared(dtype, moved=torch.finfo(dtype).eps)
        with same_draws():
            again = [moved.step(*batch) for batch in islice(batches(classes, seed, dtype, ignored), steps)]
        result["itself"] = max(abs(a - b) / abs(b) for a, (_, b) in zip(again, values, strict=True))
    return result


def step_by_step(recipe: str, peer: str, seed: int) -> dict[str, Any]:
    """Compare losses and updated weights in float64 where each of our steps begins with the peer's state.

    For networks whose losses part by themselves: what is off in one step is not carried into the next.
    """
    config, dtype = peer_config(peer), torch.float64
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(peer, seed, Path(folder))
        ours = Ours(Config.load(recipe), theirs.folder, dtype)
    with tempfile.TemporaryDirectory() as folder:
        _, _, known = names_of_peer(theirs.model, config, Path(folder))
    theirs.prepared(dtype)
    found, layouts = dict(theirs.model.named_parameters()), _layouts(ours.net)
    pairs = {
        p: (found[next(iter(known[name]))], layouts.get(name, torch.clone))
        for name, p in ours.net.named_parameters()
        if len(known[name]) == 1
    }
    assert len(pairs) == sum(1 for _ in ours.net.parameters()), "a weight of ours is made of several of theirs"
    values, updates = [], []
    ignored = ignored_by(config.model)
    for step, batch in enumerate(islice(batches(len(ours.card.classes), seed, dtype, ignored), OWN_STEPS)):
        with torch.no_grad():
            for mine, (other, laid_out) in pairs.items():
                mine.copy_(laid_out(other))
                if step:
                    for key, value in theirs.wrapper.optimizer.state[other].items():
                        ours.optimizer.state[mine][key] = (laid_out if value.ndim else torch.clone)(value)
        with same_draws():
            values.append((theirs.step(*batch), ours.step(step, *batch)))
        changes = (
            (mine - laid_out(other)).abs().max() / other.abs().max().clamp(min=TINY)
            for mine, (other, laid_out) in pairs.items()
        )
        updates.append(max(float(change.detach()) for change in changes))
    worst = max(abs(a - b) / abs(a) for a, b in values)
    return {
        "what": "losses", "recipe": recipe, "peer": peer, "seed": seed, "type": "float64", "steps": len(values),
        "from": values[0][0], "to": values[-1][0], "worst": worst, "update": max(updates), "ignored": ignored,
        "good": worst <= 1e-6 and max(updates) <= 1e-6,
    }  # fmt: skip


def _layouts(net: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return our name of each tensor that lies otherwise with the peer -> how theirs becomes ours."""
    importer = importers("mmseg", str(net.architecture))[0]
    return {name: change[0] for name, change in importer.changes(net.config).items()}


def peer_samples(labels: Tensor) -> list[Any]:
    """Return labels (N, H, W) as the peer's heads take them, with the edges that ours learn."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = [SegDataSample() for _ in labels]
    edges = edge_map(labels, ignored_as_class=True).long()
    for sample, label, edge in zip(samples, labels, edges, strict=True):
        sample.gt_sem_seg = PixelData(data=label.unsqueeze(0))
        sample.gt_edge_map = PixelData(data=edge.unsqueeze(0))
        sample.set_metainfo({"img_shape": SIZE, "ori_shape": SIZE, "pad_shape": SIZE})
    return samples


# ---- draws of the augmentation
def draws(recipe: str, peer: str, seed: int, images: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Compare by distribution what both augmentations draw on the same images, RGB with labels 0..K-1 or 255."""
    from scipy.stats import ks_2samp

    config, ours = peer_config(peer), Config.load(recipe)
    norm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pipeline = Pipeline.from_config(ours.transforms, *norm, 255.0, 3)
    theirs, mine = _peer_draws(config, seed, images), []
    for index in range(DRAWS):
        image, label = images[index % len(images)]
        sample = Sample(key=str(index), image=image, target=SemanticTarget(label))
        size = (image.shape[0], image.shape[1])
        placement = pipeline.geometry.draw(np.random.default_rng((seed, index)), size, label)
        prepared = pipeline(sample, np.random.default_rng((seed, index)))
        (a, _, c), (_, e, f) = placement.matrix[:2]
        flipped = a < 0
        left = (c + a * placement.size[1] if flipped else c) / abs(a)
        crop = (f / e, left)
        whole = (size[0] / e, size[1] / abs(a))
        facts = _facts(whole[0], crop, whole, placement.size, flipped)
        mine.append(facts | _of_pixels(prepared.image, prepared.label))
    result: dict[str, Any] = {}
    for name in theirs[0]:
        a, b = (np.array([row[name] for row in rows], float) for rows in (mine, theirs))
        a, b = a[~np.isnan(a)], b[~np.isnan(b)]
        result[name] = {"p": float(ks_2samp(a, b).pvalue), "ours": float(a.mean()), "theirs": float(b.mean())}
    return {
        "what": "draws", "recipe": recipe, "peer": peer, "seed": seed, "draws": DRAWS, "numbers": result,
        "good": all(number["p"] > 0.01 for number in result.values()),
    }  # fmt: skip


def _peer_draws(config: Any, seed: int, images: list[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, float]]:
    from mmseg.registry import TRANSFORMS

    steps = [TRANSFORMS.build(step) for step in config.train_dataloader.dataset.pipeline]
    steps = [step for step in steps if not type(step).__name__.startswith(("Load", "Pack"))]
    size = tuple(config.model.data_preprocessor.size)
    mean, std = (np.array(config.model.data_preprocessor[key], np.float32) for key in ("mean", "std"))
    np.random.seed(seed)
    rows = []
    for index in range(DRAWS):
        image, label = images[index % len(images)]
        results: dict[str, Any] = {"img": image[..., ::-1].copy(), "gt_seg_map": label.copy()}
        results |= {"seg_fields": ["gt_seg_map"], "img_shape": label.shape, "ori_shape": label.shape}
        for step in steps:
            if type(step).__name__ == "RandomCrop":
                resized, box = results["img"].shape[:2], step.crop_bbox(results)
                for key in ("img", "gt_seg_map"):
                    results[key] = step.crop(results[key], box)
            else:
                results = step.transform(results)
        facts = _facts(resized[0], (box[0], box[2]), resized, size, results["flip"])
        values = (results["img"][..., ::-1].astype(np.float32) - mean) / std
        below = [(0, size[0] - values.shape[0]), (0, size[1] - values.shape[1])]
        padded = np.pad(results["gt_seg_map"], below, constant_values=IGNORE)
        rows.append(facts | _of_pixels(np.pad(values, [*below, (0, 0)]), padded))
    return rows


def _facts(height: float, crop: Any, whole: Any, size: Any, flipped: bool) -> dict[str, float]:
    """Return numbers of the geometry; a place is the fraction of the room that the crop has, NaN where it has none."""
    places = {}
    for name, start, have, want in zip(("crop, down", "crop, across"), crop, whole, size, strict=True):
        places[name] = start / (have - want) if have - want > 2 else float("nan")
    return {"scale (height)": float(height), **places, "flip": float(flipped)}


def _of_pixels(image: np.ndarray, label: np.ndarray) -> dict[str, float]:
    counts = np.bincount(label.ravel(), minlength=256)[:255]
    numbers = {"largest class": float(counts.max() / max(counts.sum(), 1))}
    for channel, name in enumerate("RGB"):
        numbers[f"mean {name}"] = float(image[..., channel].mean())
        numbers[f"deviation {name}"] = float(image[..., channel].std())
    return numbers


def real_images(root: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images (RGB) and labels of CamVid's train split as SegNet's copy has them; 11 becomes 255."""
    found = []
    files = sorted((root / "train").iterdir())
    for file in files[:: max(1, len(files) // count)][:count]:
        label = label_of(root / "trainannot" / f"{file.stem}.png")
        found.append((cv2.imread(str(file))[..., ::-1].copy(), label))
    return found


def label_of(file: Path) -> np.ndarray:
    """Return the indices of a label image, (H, W) uint8; 11, which is no class, becomes 255."""
    label = np.array(Image.open(file))
    return np.where(label > 10, IGNORE, label).astype(np.uint8)
