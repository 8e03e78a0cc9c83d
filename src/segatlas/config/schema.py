"""The recipe: every key that a YAML file or a `key=value` word may set, with its meaning and default.

This file is the reference. It holds no torch: `segatlas config ...` and errors in a recipe answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from segatlas.config.distillation import DistillConfig
from segatlas.config.losses import LossConfig
from segatlas.config.plain import LARGEST_SCALE, SMALLEST_SCALE
from segatlas.config.section import Section
from segatlas.config.trackers import MlflowConfig, WandbConfig
from segatlas.config.transforms import RESIZE, Size, TransformsConfig
from segatlas.errors import Problem
from segatlas.tasks import TASKS

DEFAULT_EPOCHS = 50
USUAL_BATCH = 8
MINUTES_IN_TEN_YEARS = 10 * 366 * 24 * 60
TTA = r"^(flips|vertical|turns|exp|scales:\d*\.?\d+(,\d*\.?\d+)*)$"
FIRST_TASK = next(iter(TASKS))
OptionsType = TypeVar("OptionsType", bound=Section)
ModelCheck = Callable[[Mapping[str, Any]], list[Problem]]
"""Looks at the `model:` section and returns its faults; `key` of each starts with "model."."""
DataCheck = Callable[[Mapping[str, Any]], tuple[Section | None, list[Problem]]]
"""Looks at the `data:` section; returns its dataset's own keys as their record, faulty ones at their defaults, and the
faults. None where there is no such dataset."""

Rule = Callable[[Any], Iterator[tuple[tuple[str, ...], str]]]
"""Looks at a whole recipe and yields (keys, message) of its faults, see `segatlas.config.rules`."""


class RunConfig(Section):
    """Where a run leaves its files: `<root>/<task>/<name>-001/`, or exactly `dir` when that is given."""

    dir: str | None = Field(None, description="the run folder itself; made if missing, refused if it holds a run")
    root: str = Field("runs", description="parent of all run folders")
    name: str | None = Field(None, description="run name; default: the recipe's file name")
    exist_ok: bool = Field(False, description="allow `dir` to hold an earlier run, whose files are replaced")


class InputConfig(Section):
    """Preprocessing and inference mode: written once here, stored in the card, obeyed by every command."""

    mean: tuple[Annotated[float, Field(ge=-LARGEST_SCALE, le=LARGEST_SCALE)], ...] | None = Field(
        None, description="per channel, of values / max_value; default that of the first weights, else ImageNet's"
    )
    std: tuple[float, ...] | None = Field(
        None, description="per channel, of values / max_value; default that of the first weights, else ImageNet's"
    )
    max_value: float = Field(
        255.0,
        ge=SMALLEST_SCALE,
        le=LARGEST_SCALE,
        description="value that becomes 1.0: 255 for 8-bit, 65535 for 16-bit",
    )
    resize: str | None = Field(
        None, pattern=RESIZE, description="short:N, long:N, fit:SHORTxLONG or HxW; default: own size"
    )
    mode: Literal["whole", "slide"] = Field("whole", description="predict in one pass or by windows")
    crop: Size | None = Field(None, description="window (h, w) for mode slide")
    stride: Size | None = Field(None, description="window step (h, w) for mode slide; default 2/3 of crop")

    @property
    def stated_max_value(self) -> float | None:
        """Return the `max_value` that somebody has written down, None where it is the default."""
        return self.max_value if "max_value" in self.model_fields_set else None


class ModelConfig(Section):
    """The network. Keys beyond these are the architecture's own (`segatlas models info NAME` lists them)."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("unet", description="architecture or variant, see `segatlas models list`")
    encoder_weights: str | None = Field(
        None,
        description="null, 'imagenet', 'auto' (ImageNet's if they can be had, else random; config.yaml says which), "
        "one of timm's such as timm/vit_base_patch16_224.mae, or a weights file",
    )
    num_classes: int | None = Field(None, ge=2, description="default: the dataset's number of classes")
    in_channels: int | None = Field(None, ge=1, description="default: the dataset's number of channels")
    start_from: str | None = Field(None, description="run, model folder or file to fine-tune from")
    start_partial: bool = Field(
        False,
        description="of start_from take the tensors that fit, and name all others; false: refuse a file with others",
    )
    input: InputConfig = Field(default_factory=InputConfig)

    def architecture_fields(self) -> dict[str, Any]:
        """Return the keys that belong to the architecture's own config."""
        return dict(self.model_extra or {})


class DataConfig(Section):
    """The dataset and how it is read. Keys beyond these are the dataset's own (`segatlas config schema` lists them)."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("folder", description="which dataset, by its layout")
    root: str | None = Field(None, description="folder that holds the dataset")
    channels: int | None = Field(None, ge=1, description="channels of an image; default: as in train")
    unlabelled: str | None = Field(
        None,
        description="folder of images without labels, in it and below, for `semi`; labelled ones, copies of them, "
        "and labels are left out",
    )
    accept: tuple[Literal["leakage", "lossy_mask", "smoothed_mask", "mixed_depth"], ...] = Field(
        (), description="findings of `data check` that are meant so: said as warnings, and training goes on"
    )
    workers: int = Field(1, ge=0, le=1024, description="loader processes")
    store: str | None = Field(
        None,
        description="folder in which training keeps decoded images and labels, or 'off' to decode each time; "
        "default: SEGATLAS_STORE, else the user's cache folder",
    )
    store_reserve_gb: float | None = Field(
        None, ge=0, description="GB of that disk left free; default: a tenth of the disk, at most 20"
    )

    _options: Section | None = PrivateAttr(None)
    """The dataset's own keys as its typed record, where they have been checked; they are then no longer extra."""

    def own(self, key: str) -> Any:
        """Return the value of one of the dataset's own keys, None where it has no such key or it is not set."""
        return (self.model_extra or {}).get(key) if self._options is None else getattr(self._options, key, None)

    def own_fields(self) -> dict[str, Any]:
        """Return the dataset's own keys; all of them where they have been checked."""
        return dict(self.model_extra or {}) if self._options is None else self._options.model_dump()

    def checked(self, options: Section) -> Self:
        """Return the section with its own keys as their typed record."""
        copy = type(self)(**{key: getattr(self, key) for key in self.model_fields_set & set(type(self).model_fields)})
        copy._options = options
        return copy

    def with_own(self, **fields: Any) -> Self:
        """Return the section with other values of the dataset's own keys, to be checked when they are used."""
        stated = {key: getattr(self, key) for key in self.model_fields_set & set(type(self).model_fields)}
        return type(self)(**stated, **{**self.own_fields(), **fields})

    def options(self, record: type[OptionsType]) -> OptionsType:
        """Return the dataset's own keys as its record; pydantic's ValidationError where they are no such keys."""
        return self._options if isinstance(self._options, record) else record.model_validate(self.own_fields())

    @model_serializer(mode="wrap")
    def _with_options(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        own = {} if self._options is None else self._options.model_dump(mode=info.mode)
        return {**handler(self), **own}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Give the dataset's own keys as attributes, as the section's other keys are."""
            options = None if name.startswith("_") else self._options
            return getattr(options, name) if options is not None else super().__getattr__(name)


class OptimizerConfig(Section):
    """Optimiser and parameter groups."""

    name: Literal["adamw", "adam", "sgd", "rmsprop", "muon"] = Field("adamw", description="the algorithm")
    weight_decay: float = Field(0.01, ge=0, le=10, description="not applied to norms and biases unless decay_norms")
    decay_norms: bool = Field(False, description="apply weight decay to norm layers and biases too")
    decay_encoder_norms: bool = Field(
        True,
        description="false: with decay_norms norm layers of the encoder are spared, its biases are not",
    )
    no_decay: tuple[str, ...] = Field(
        (),
        description="further parameters without weight decay: parts of their names, between dots, e.g. pos_embed, or "
        "patterns of whole names with a *, e.g. encoder.block*norm*",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd and muon only")
    nesterov: bool = Field(False, description="sgd only")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="adam, adamw and, for all but hidden weights, muon only"
    )
    alpha: float = Field(0.9, ge=0, lt=1, description="rmsprop only: fraction of the mean square kept at each step")
    epsilon: float = Field(
        1e-6, gt=0, le=1, description="rmsprop only: added to the mean square inside the root, as in Lasagne"
    )
    encoder_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the encoder as a fraction of train.lr"
    )
    lr_factors: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        {}, description="learning rate, as a fraction of train.lr, of parameters by their names, as in no_decay"
    )
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning-rate factor per encoder stage, from the top down")


class ScheduleConfig(Section):
    """Learning rate over the run, per optimiser step."""

    name: Literal["poly", "cosine", "linear", "exponential", "step", "plateau", "constant"] = Field(
        "poly",
        description="how the learning rate falls after the warm-up; linear: not at first, then in a straight line; "
        "exponential: by the same ratio at each step, to min_ratio at the end of the run",
    )
    warmup: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        0,
        description="optimiser steps of linear warm-up; at most a third of the run; auto: a twentieth of it, at most "
        "100; the run's config.yaml holds the number",
    )
    warmup_ratio: float = Field(1e-3, ge=0, le=1, description="learning rate at the first warm-up step, as a fraction")
    encoder_warmup: int = Field(
        0,
        ge=0,
        description="the encoder's rate is 0 while the others' warms up, then has so many steps of warm-up of its own, "
        "at most a third of what is left; 0: it warms up with them",
    )
    power: float = Field(0.9, gt=0, le=100, description="poly only")
    min_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="final learning rate as a fraction (poly, cosine, linear; exponential, which needs one above 0: "
        "x 0.995 an epoch over 750 epochs is 0.0233)",
    )
    min_lr: float | None = Field(
        None, ge=0, le=100, description="final learning rate itself, the same for the encoder; replaces min_ratio"
    )
    span: Literal["run", "rest"] = Field(
        "run",
        description="run: the rate falls from the first step on, the warm-up is a factor of it. rest: it falls from "
        "the end of the warm-up on and reaches the final rate at the last step, as in MMSegmentation",
    )
    hold: float = Field(0.5, ge=0, lt=1, description="linear only: fraction of the run with the full learning rate")
    milestones: tuple[float, ...] = Field((0.6, 0.85), description="step only: fractions of the run at which lr drops")
    every: int | None = Field(
        None,
        ge=1,
        description="step only: optimiser steps after which lr drops, again and again, in place of milestones; with "
        "factor 0.95 and an epoch's steps it is torch's ExponentialLR",
    )
    factor: float = Field(0.1, gt=0, lt=1, description="step and plateau: what lr is multiplied by")
    patience: int = Field(5, ge=1, description="plateau: validations without improvement before lr drops")


class EmaConfig(Section):
    """Exponential moving average of the weights; validation and the model folder then use it."""

    decay: float = Field(0.999, gt=0, lt=1, description="fraction of the average kept at each optimiser step")
    warmup: bool = Field(True, description="use min(decay, (1 + step) / (10 + step))")


class EarlyStoppingConfig(Section):
    """Stop when the watched metric has not improved for `patience` validations."""

    patience: int = Field(10, ge=1, description="validations without improvement before training stops")
    min_delta: float = Field(0.0, ge=0, description="smallest change of train.metric that counts as improvement")


class TrainConfig(Section):
    """The training loop."""

    steps: int | None = Field(None, ge=1, description="length in optimiser steps; excludes epochs")
    epochs: Literal["auto"] | Annotated[int, Field(ge=1)] | None = Field(
        default_factory=lambda data: None if data.get("steps") else DEFAULT_EPOCHS,
        description=f"length in passes over train; excludes steps; default {DEFAULT_EPOCHS} where steps is not set; "
        f"auto: {DEFAULT_EPOCHS}, more for a small train split and less for a huge one; the run's config.yaml holds it",
    )
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        USUAL_BATCH,
        description="images per step and process; auto: as many as the GPU's memory holds, on a processor "
        f"{USUAL_BATCH} where they fit; the run's config.yaml holds the number",
    )
    accumulate: int = Field(1, ge=1, description="batches per optimiser step")
    allow_other_batch: bool = Field(
        False,
        description="resume with another product of processes, batch and accumulate, to the same total of samples",
    )
    lr: float = Field(1e-3, gt=0, le=100, description="learning rate after the warm-up")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="mixed precision; fp16 needs a GPU")
    channels_last: bool = Field(True, description="memory layout; faster for convolutions")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    ema: EmaConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    val_every: int | None = Field(None, ge=1, description="optimiser steps between validations; default: each epoch")
    val_epochs: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        1,
        description="epochs between validations, where val_every is not set; auto: about 50 validations in the run; "
        "its config.yaml holds the number",
    )
    checkpoint_every: int | None = Field(None, ge=1, description="optimiser steps between writes of last.ckpt")
    metric: str = Field(
        "",
        description="number on val that decides which checkpoint is best: one that `segatlas.metrics` may monitor for "
        "the task, default the first of them (semantic: miou)",
    )
    freeze_encoder: bool = Field(False, description="keep the encoder's weights and statistics as they are")
    freeze_stages: int = Field(
        0, ge=0, le=100, description="of so many stages of the encoder, its stem the first, weights and statistics stay"
    )
    freeze_norms: bool = Field(False, description="batch norms of the encoder keep their statistics; weights train")
    freeze_norm_weights: bool = Field(False, description="batch norms of the encoder keep their scales and offsets")
    freeze_host: bool = Field(False, description="the same of the network inside a wrapper, its `model.host`")
    gradient_checkpointing: bool = Field(False, description="recompute encoder stages in backward to save memory")
    deterministic: bool = Field(True, description="only deterministic algorithms")
    devices: int | None = Field(
        None, ge=1, le=4096, description="processes or GPUs; default 1, or torchrun's world size"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|mps)$", description="auto, cpu, cuda or mps")
    threads: int | None = Field(
        None, ge=1, le=4096, description="processor threads of torch; default: all visible cores"
    )
    time_limit: float | None = Field(
        None, gt=0, le=MINUTES_IN_TEN_YEARS, description="minutes after which training ends cleanly"
    )

    @property
    def batch_size(self) -> int:
        """Images per step and process: `batch`, and the usual number as long as nobody has found out what fits."""
        return USUAL_BATCH if self.batch == "auto" else self.batch

    @property
    def passes(self) -> int:
        """Passes over train where `steps` is not set; the usual number as long as nobody has counted its images."""
        return DEFAULT_EPOCHS if self.epochs == "auto" else self.epochs or 1

    @property
    def passes_to_validation(self) -> int:
        """Passes between validations where `val_every` is not set; 1 as long as nobody has counted the images."""
        return 1 if self.val_epochs == "auto" else self.val_epochs


class EvalConfig(Section):
    """Evaluation at the end of a run and by `segatlas eval`."""

    split: Literal["train", "val", "test"] = Field("val", description="split that is evaluated")
    batch: int = Field(1, ge=1, description="images of one size predicted together")
    batch_stats: bool = Field(
        False,
        description="batch norm by the statistics of the images of a pass (`batch` of them), not by running averages",
    )
    tta: tuple[Annotated[str, Field(pattern=TTA)], ...] = Field(
        (), description="'flips', 'vertical', 'turns', 'scales:0.75,1.25' or 'exp'; test-time augmentation, averaged"
    )
    boundary: bool = Field(True, description="also boundary IoU and boundary F-score, of objects boundary AP")
    boundary_width: float = Field(0.02, gt=0, le=1, description="boundary width as a fraction of the image's diagonal")
    sizes: bool = Field(True, description="also IoU and recall of small, medium and large objects")
    size_bounds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1024, 9216),
        description="size from which on an object is medium, and large: two rising numbers of pixels, or two below 1, "
        "which are fractions of the image's pixels",
    )
    small_classes: tuple[str, ...] = Field((), description="also mean IoU and recall of the classes of these names")
    max_detections: int = Field(
        100, ge=1, description="predicted objects of a class in an image that average precision counts, as COCO's 100"
    )
    class_agnostic: bool = Field(True, description="also average precision with classes left aside")


class PretrainConfig(Section):
    """Learn classes of whole images first; another training begins with that. `data.root` holds {train,val}/CLASS/*.

    The network's map before its classifier is averaged over the image; a head says the class of that. The head is not
    kept. Keys of truths, losses and evaluation have no meaning then.
    """

    hidden: int | None = Field(
        None, ge=1, le=65536, description="width of a layer with batch norm and ReLU in the head; default: none"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of values dropped before the head's last layer")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread evenly over all classes")
    resize: int = Field(
        256,
        ge=1,
        le=32768,
        description="shorter side of a validation image, of which the middle transforms.crop counts",
    )


class SemiConfig(Section):
    """Learn from images without labels, too: those of `data.unlabelled`. Each step takes some beside labelled ones."""

    method: Literal["weak_to_strong", "mean_teacher"] = Field(
        "weak_to_strong",
        description="weak_to_strong: what the network is sure of in a weakly changed view is the label of two strongly "
        "changed ones and of perturbed features; mean_teacher: the average of its weights says what a strongly changed "
        "view should give",
    )
    batch: int | None = Field(None, ge=1, le=4096, description="images without labels a batch; default: train.batch")
    weight: float = Field(1.0, gt=0, le=1e6, description="factor of what is learned from them")
    threshold: float = Field(0.95, ge=0, lt=1, description="weak_to_strong: probability from which a class is a label")
    feature_dropout: float = Field(
        0.5, ge=0, lt=1, description="weak_to_strong: fraction of the encoder's channels dropped in the perturbed view"
    )
    cutmix: float = Field(
        0.5, ge=0, le=1, description="fraction of strong views that get a box of another image, with its labels"
    )
    decay: float = Field(0.996, gt=0, lt=1, description="mean_teacher: fraction of the average kept at each step")
    ramp: float = Field(
        0.2, ge=0, le=1, description="mean_teacher: fraction of the training in which the weight grows from almost 0"
    )


class LogConfig(Section):
    """What is written while training."""

    every: int | None = Field(
        None,
        ge=1,
        description="optimiser steps between log lines and between points of the loss curve; default: 10, in a run of "
        "fewer than 100 steps a point each step and ten lines",
    )
    tensorboard: bool = Field(True, description="write TensorBoard files beside metrics.csv: numbers, recipe, sheets")
    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None
    samples: int = Field(4, ge=0, le=100, description="images on the sheet drawn at each validation")


class Config(Section):
    """The keys of a whole recipe; `segatlas.config.Config` reads one."""

    further_rules: ClassVar[tuple[Rule, ...]] = ()
    """What `segatlas.recipe.Config` checks besides: it knows the networks, and the keys of each loss."""

    seed: int = Field(0, ge=0, lt=2**32, description="every random draw of the run follows from it")
    task: str = Field(
        FIRST_TASK, description=f"what the network is trained to give: {', '.join(TASKS)}; default: the network's first"
    )
    run: RunConfig = Field(default_factory=RunConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    transforms: TransformsConfig = Field(default_factory=TransformsConfig)
    losses: tuple[LossConfig, ...] = Field(
        default_factory=lambda: (LossConfig(name="cross_entropy"),),
        description="their weighted sum is minimised; a name alone stands for that loss with its defaults; "
        "default [cross_entropy], or what suits the network's output",
    )
    train: TrainConfig = Field(default_factory=TrainConfig)
    distill: DistillConfig | None = None
    pretrain: PretrainConfig | None = None
    semi: SemiConfig | None = None
    eval: EvalConfig = Field(default_factory=EvalConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    def settled(self) -> Self:
        """Return the recipe with what it leaves open filled in; `segatlas.recipe.Config` knows what."""
        return self
