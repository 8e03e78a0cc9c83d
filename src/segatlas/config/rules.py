"""Rules between keys of a recipe: what each key allows by itself stands in the schema, what they must agree on here.

A rule yields (keys, message): the first key is the one reported, and the rule is left out where one of the keys is
faulty by itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from segatlas.config.distillation import FEATURES, LOGITS, PixelWise
from segatlas.config.messages import unknown
from segatlas.config.plain import LARGEST_VIEW, SMALLEST_SCALE, size_bounds_fault
from segatlas.config.schema import Config, Rule
from segatlas.errors import Problem
from segatlas.labels import IGNORE, MAX_CLASSES
from segatlas.tasks import TASKS

WITHOUT_PIXELS = (
    *("task", "eval", "data.name", "data.accept", "data.channels", "model.num_classes", "model.start_from"),
    "model.start_partial",
    *("model.input.resize", "model.input.mode", "train.freeze_encoder", "train.freeze_stages", "train.freeze_norms"),
    *("train.freeze_norm_weights", "train.freeze_host", "transforms.copy_paste", "transforms.class_balance", "distill"),
)
"""Keys that a pre-training on classes of whole images does not read."""
Fault = tuple[tuple[str, ...], str]
LARGEST_FACTOR = 100
"""Of scale jitter, colour changes and blur."""
LARGEST_WEIGHT = 1e9
"""Of a class: the sum of the weights of all pixels of a batch must be a number of single precision."""
MAX_NAME = 200
"""Bytes of a run's name: file systems take 255, and a number and temporary names are added."""


def check_rules(cfg: Config, faulty: set[str]) -> list[Problem]:
    """Return the problems between keys. `faulty` holds the keys that already have a problem of their own."""
    problems = []
    for rule in (*RULES, *cfg.further_rules):
        for keys, message in rule(cfg):
            if not any(_overlap(key, bad) for key in keys for bad in faulty):
                problems.append(Problem(key=keys[0], message=message))
    return problems


def _overlap(a: str, b: str) -> bool:
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _task(cfg: Config) -> Iterator[Fault]:
    if cfg.task not in TASKS:
        yield ("task",), unknown("task", cfg.task, TASKS)


def _pretraining(cfg: Config) -> Iterator[Fault]:
    given, crop = cfg.pretrain, cfg.transforms.crop_size
    if given is None:
        return
    if crop is None:
        yield ("transforms.crop", "pretrain"), "images of one size are needed, for example [224, 224]"
    elif max(crop) > given.resize:
        yield ("pretrain.resize", "transforms.crop"), f"the crop of {crop[0]}x{crop[1]} is larger than such an image"
    if cfg.train.batch_size < 2 and given.hidden is not None:
        yield (
            ("train.batch", "pretrain.hidden"),
            "its batch norm sees one value a channel - two images a step are needed",
        )
    blank = Config()
    for key in WITHOUT_PIXELS:
        if _at(cfg, key) != _at(blank, key):
            yield (key, "pretrain"), "has no meaning where whole images have classes - remove it"


def _at(cfg: Config, key: str) -> object:
    value: object = cfg
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _length(cfg: Config) -> Iterator[Fault]:
    train, keys = cfg.train, ("train.epochs", "train.steps")
    if train.epochs is not None and train.steps is not None:
        yield keys, "both epochs and steps are set - set one of them to null"
    if train.epochs is None and train.steps is None:
        yield keys, "expected epochs or steps; both are null"


def _validations(cfg: Config) -> Iterator[Fault]:
    if (
        cfg.train.val_every is not None and cfg.train.passes_to_validation > 1
    ):  # 1 is the default, and stands in every config.yaml
        keys = ("train.val_epochs", "train.val_every")
        yield keys, "both val_every and val_epochs are set - set val_every to null, or leave val_epochs out"


def _schedule(cfg: Config) -> Iterator[Fault]:
    milestones, key = cfg.train.schedule.milestones, ("train.schedule.milestones",)
    if list(milestones) != sorted(set(milestones)):
        yield key, "milestones must ascend"
    if any(not 0 < fraction < 1 for fraction in milestones):
        yield key, "milestones are fractions of the run, each above 0 and below 1"
    least, keys = cfg.train.schedule.min_lr, ("train.schedule.min_lr", "train.lr")
    if least is not None and least > cfg.train.lr:
        yield keys, f"the final learning rate is above the first one, train.lr = {cfg.train.lr:g}"
    if cfg.train.schedule.name == "exponential" and not (least or cfg.train.schedule.min_ratio):
        names = ("train.schedule.min_ratio", "train.schedule.min_lr", "train.schedule.name")
        yield names, "an exponential fall has no end at 0 - say min_ratio, 0.01 for example"


def _optimizer(cfg: Config) -> Iterator[Fault]:
    optimizer = cfg.train.optimizer
    if optimizer.nesterov and (optimizer.name != "sgd" or optimizer.momentum == 0):
        keys = ("train.optimizer.nesterov", "train.optimizer.name", "train.optimizer.momentum")
        yield keys, "nesterov needs name: sgd and a momentum above 0"
    if not optimizer.decay_encoder_norms and not optimizer.decay_norms:
        norms = ("train.optimizer.decay_encoder_norms", "train.optimizer.decay_norms")
        yield norms, "no norm layer decays without decay_norms: true - leave this key out"
    if any(not 0 <= beta < 1 for beta in optimizer.betas):
        yield ("train.optimizer.betas",), "each must be at least 0 and below 1"


def _precision(cfg: Config) -> Iterator[Fault]:
    precision, device, keys = cfg.train.precision, cfg.train.device, ("train.precision", "train.device")
    if precision == "fp16" and device == "cpu":
        yield keys, "fp16 needs a GPU - use bf16 or fp32 on the cpu"
    if precision != "fp32" and device == "mps":
        yield keys, f"{precision} training is not possible on mps - use fp32"


def _window(cfg: Config) -> Iterator[Fault]:
    inputs = cfg.model.input
    if inputs.mode == "slide" and inputs.crop is None:
        yield ("model.input.crop", "model.input.mode"), "mode slide needs the window's size: crop: [height, width]"
    elif inputs.mode == "whole" and (inputs.crop or inputs.stride):
        key = "model.input.crop" if inputs.crop else "model.input.stride"
        yield (key, "model.input.mode"), "windows are for mode: slide, and the mode is whole"
    elif inputs.crop and inputs.stride and any(s > c for s, c in zip(inputs.stride, inputs.crop, strict=True)):
        yield ("model.input.stride", "model.input.crop"), "a stride above the crop leaves pixels without a prediction"


def _normalisation(cfg: Config) -> Iterator[Fault]:
    mean, std = cfg.model.input.mean, cfg.model.input.std
    keys = ("model.input.mean", "model.input.std")
    if std is not None and any(value < SMALLEST_SCALE for value in std):
        yield ("model.input.std",), f"each must be at least {SMALLEST_SCALE}: it is divided by"
    if (mean is None) != (std is None):
        yield (keys if std is None else keys[::-1]), "mean and std are given together"
    elif mean is not None and std is not None and len(mean) != len(std):
        yield keys, f"mean has {len(mean)} values, std has {len(std)}"
    elif mean is not None and cfg.model.in_channels not in (None, len(mean)):
        yield (*keys, "model.in_channels"), f"{len(mean)} values for {cfg.model.in_channels} channels"


def _channels(cfg: Config) -> Iterator[Fault]:
    network, images = cfg.model.in_channels, cfg.data.channels
    if network is not None and images is not None and network != images:
        yield ("model.in_channels", "data.channels"), f"{network} channels, but data.channels = {images}"


def _classes(cfg: Config) -> Iterator[Fault]:
    classes, palette, count = cfg.data.own("classes"), cfg.data.own("palette"), cfg.model.num_classes
    if classes is not None:
        if len(classes) > MAX_CLASSES:
            yield ("data.classes",), f"{len(classes)} classes; at most {MAX_CLASSES} are possible"
        if len(set(classes)) != len(classes):
            yield ("data.classes",), "a class name is given twice"
        if palette is not None and len(palette) != len(classes):
            yield ("data.palette", "data.classes"), f"{len(palette)} colours for {len(classes)} classes"
        if count is not None and count != len(classes):
            yield ("model.num_classes", "data.classes"), f"data.classes names {len(classes)} classes"
    if count is not None and count > MAX_CLASSES:
        yield ("model.num_classes",), f"at most {MAX_CLASSES} classes are possible"


def _labels(cfg: Config) -> Iterator[Fault]:
    data, count = cfg.data, _num_classes(cfg)
    top = MAX_CLASSES if count is None else count
    for section, table in (("label_map", data.own("label_map")), ("label_colors", data.own("label_colors"))):
        for raw, index in (table or {}).items():
            if index != IGNORE and not 0 <= index < top:
                keys = (f"data.{section}.{raw}", "data.classes", "model.num_classes")
                yield keys, f"expected a class index 0..{top - 1}, or {IGNORE} for ignore"
    for color in data.own("label_colors") or {}:
        parts = color.split(",")
        if len(parts) != 3 or not all(part.strip().isdigit() and int(part) <= 255 for part in parts):
            yield (f"data.label_colors.{color}",), "expected as key a colour 'r,g,b', each 0..255"


def _losses(cfg: Config) -> Iterator[Fault]:
    count = _num_classes(cfg)
    if not cfg.losses:
        yield ("losses",), "expected at least one loss, for example cross_entropy"
    for index, term in enumerate(cfg.losses):
        key, weights = f"losses.{index}.class_weights", term.class_weights
        if not isinstance(weights, tuple):
            continue
        if count is not None and len(weights) != count:
            yield (key, "model.num_classes", "data.classes"), f"{len(weights)} weights for {count} classes"
        if any(weight < 0 for weight in weights) or not any(weights):
            yield (key,), "weights must be at least 0, and not all 0"
        elif max(weights) > LARGEST_WEIGHT:
            yield (key,), f"weights must be at most {LARGEST_WEIGHT:g} - only their ratios count"


def _distillation(cfg: Config) -> Iterator[Fault]:
    if cfg.distill is None:
        return
    terms = cfg.distill.terms
    if not terms:
        yield ("distill.terms",), "expected at least one term, for example channel_wise"
    for index, term in enumerate(terms):
        key = f"distill.terms.{index}"
        if any((other.name, other.on) == (term.name, term.on) for other in terms[:index]):
            yield (f"{key}.on",), f"a second {term.name} on {term.on} - one of them is enough"
        on_classes = LOGITS in (term.on, term.teacher_on)
        if isinstance(term, PixelWise) and not (term.on == LOGITS and term.teacher_on in (None, LOGITS)):
            yield (f"{key}.on",), "pixel_wise compares probabilities of classes - expected 'logits'"
        elif on_classes and term.teacher_on not in (None, term.on):
            yield (f"{key}.teacher_on",), "logits are compared with logits - leave this key out"
        elif term.teacher_on is not None and FEATURES in (term.on, term.teacher_on):
            where = "teacher_on" if term.teacher_on == FEATURES else "on"
            yield (f"{key}.{where}",), "with teacher_on one map of each is meant - say which, 'features.16' for example"


def _partial_start(cfg: Config) -> Iterator[Fault]:
    if cfg.model.start_partial and cfg.model.start_from is None:
        yield ("model.start_partial", "model.start_from"), "there is no file to begin with - set model.start_from"


def _ranges(cfg: Config) -> Iterator[Fault]:
    transforms = cfg.transforms
    scale = transforms.scale_range
    ranges = {"transforms.scale": scale}
    if transforms.photometric is not None:
        ranges["transforms.photometric.contrast"] = transforms.photometric.contrast
        ranges["transforms.photometric.saturation"] = transforms.photometric.saturation
    if transforms.blur is not None:
        ranges["transforms.blur.sigma"] = transforms.blur.sigma
    for name, jitter in transforms.source_jitter.items():
        ranges[f"transforms.source_jitter.{name}.scale"] = jitter.scale
    for key, bounds in ranges.items():
        if bounds is not None and not 0 < bounds[0] <= bounds[1] <= LARGEST_FACTOR:
            yield (key,), f"expected [low, high] with 0 < low <= high <= {LARGEST_FACTOR}"
    if scale is not None and 0 < scale[0] < 1 / LARGEST_FACTOR:
        yield ("transforms.scale",), f"a factor below {1 / LARGEST_FACTOR} leaves nothing of an image"
    is_semantic = cfg.task in TASKS and TASKS[cfg.task].target == "SemanticTarget"
    if transforms.copy_paste is not None and is_semantic:
        yield ("transforms.copy_paste", "task"), "masks of classes have no objects to paste"
    if transforms.class_balance < 1 and transforms.crop is None:
        yield ("transforms.class_balance", "transforms.crop"), "class_balance redraws the crop, but no crop is set"


def _without_labels(cfg: Config) -> Iterator[Fault]:
    if cfg.semi is None:
        if cfg.data.unlabelled is not None:
            yield ("data.unlabelled", "semi"), "nothing says how to learn from it - set semi.method"
        return
    if cfg.data.unlabelled is None:
        yield ("semi", "data.unlabelled"), "needs a folder of images without labels - set data.unlabelled"
    if cfg.pretrain is not None:
        yield ("semi", "pretrain"), "not together with classes of whole images - remove one of them"
    if cfg.distill is not None:
        yield ("semi", "distill"), "not together with a trained teacher - remove one of them"
    if cfg.task in TASKS and TASKS[cfg.task].target != "SemanticTarget":
        yield ("semi", "task"), "is for classes of pixels"


def _run_name(cfg: Config) -> Iterator[Fault]:
    name, key = cfg.run.name, ("run.name",)
    if name is None:
        return
    if not name.strip():
        yield key, "a run's name cannot be empty - leave the key out to name the run after its recipe"
    elif name in (".", "..") or any(sign in name for sign in "/\\"):
        yield key, "expected a name, not a path - run.root or run.dir say where the run goes"
    elif fault := _unprintable(name):
        yield key, fault
    elif len(name.encode()) > MAX_NAME:
        yield key, f"{len(name.encode())} bytes long; a folder's name has room for {MAX_NAME} of them"


def _paths(cfg: Config) -> Iterator[Fault]:
    texts = {
        "run.dir": cfg.run.dir,
        "run.root": cfg.run.root,
        "model.encoder_weights": cfg.model.encoder_weights,
        "model.start_from": cfg.model.start_from,
        "data.root": cfg.data.root,
        "data.store": cfg.data.store,
        "distill.teacher": cfg.distill and cfg.distill.teacher,
        "data.unlabelled": cfg.data.unlabelled,
        **{f"data.lists.{split}": text for split, text in (cfg.data.own("lists") or {}).items()},
    }
    for key, text in texts.items():
        if text is None:
            continue
        if not text.strip():
            yield (key,), "expected a path, found an empty text - write null where there is none"
        elif fault := _unprintable(text) or _homeless(text):
            yield (key,), fault


def _unprintable(text: str) -> str:
    """Return what is wrong with the characters of a text that becomes a file's name, or ""."""
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        return "a file's name holds no control characters and no bytes that are not UTF-8"
    return ""


def _homeless(text: str) -> str:
    try:
        Path(text).expanduser()
    except RuntimeError:
        return "this machine knows no home folder of that user"
    return ""


def _num_classes(cfg: Config) -> int | None:
    if cfg.model.num_classes is not None:
        return cfg.model.num_classes
    classes = cfg.data.own("classes")
    return None if classes is None else len(classes)


def _views(cfg: Config) -> Iterator[Fault]:
    for index, word in enumerate(cfg.eval.tta):
        scales = [float(text) for text in word.removeprefix("scales:").split(",")] if ":" in word else []
        if not all(0 < scale <= LARGEST_VIEW for scale in scales):
            yield (f"eval.tta.{index}",), f"each scale is above 0 and at most {LARGEST_VIEW}"


def _size_bounds(cfg: Config) -> Iterator[Fault]:
    if fault := size_bounds_fault(cfg.eval.size_bounds):
        yield ("eval.size_bounds",), fault


RULES: tuple[Rule, ...] = (
    _task,
    _pretraining,
    _length,
    _validations,
    _schedule,
    _optimizer,
    _precision,
    _window,
    _normalisation,
    _channels,
    _classes,
    _labels,
    _losses,
    _distillation,
    _ranges,
    _partial_start,
    _views,
    _size_bounds,
    _without_labels,
    _run_name,
    _paths,
)
