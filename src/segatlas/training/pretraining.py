"""Pre-training: a segmentation network learns classes of whole images, and another training begins with its weights.

The network is the recipe's own, up to its classifier; the map before that is averaged over the image, and a head names
the class. What is kept is the network without classifier and head: `pretrained.safetensors` in the run folder, which
`model.start_from` takes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from segatlas import drawing
from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.checkpoint.fitting import require_finite
from segatlas.checkpoint.model_folder import read_checkpoint, write_pretrained
from segatlas.checkpoint.reading import read_torch
from segatlas.config import to_yaml
from segatlas.config.schema import PretrainConfig
from segatlas.data.collate import collate
from segatlas.data.image_classes import ImageClasses, look_at_images, open_image_classes
from segatlas.data.stream import sample_generator
from segatlas.data.transforms import Pipeline, PreparedSample
from segatlas.data.transforms.geometry import Geometry, Resize
from segatlas.errors import ConfigError, Problem, SegAtlasError
from segatlas.files import whole_file
from segatlas.metrics.image_classes import NUMBERS, ImageClassCounts
from segatlas.metrics.sections import Figures
from segatlas.models.host import aux_names_of
from segatlas.recipe import Config
from segatlas.structures import Batch, Inputs, SemanticLogits, image_of
from segatlas.training.building import TrainingComponents, facts_of, pipeline_of, with_encoder
from segatlas.training.data_module import BatchStream, SegmentationDataModule
from segatlas.training.environment import recorded_environment
from segatlas.training.inputs import choose_preprocessing
from segatlas.training.logbook import LOGGER
from segatlas.training.module import SegmentationModule
from segatlas.training.run import RunFolder
from segatlas.training.sampler import BatchAddresses

NET, HEAD = "net.", "head."
"""What the names of the network's tensors, and of the head's, begin with in a checkpoint of this training."""

Prepared = tuple[PreparedSample, int]


# ---- network and loss
class ImageClassifier(nn.Module):
    """A segmentation network without its classifier, the mean of its map over the image, and a head of 1 or 2 layers.

    net: made by `create_model`; its 1x1 classifier is taken out. Its encoder is this network's, for learning rates.
    """

    def __init__(self, net: nn.Module, classes: int, given: PretrainConfig):
        super().__init__()
        self.net = net
        channels = int(net.get_submodule("classifier").in_channels)  # type: ignore[arg-type]
        net.classifier = nn.Identity()
        layers: list[nn.Module] = []
        if given.hidden is not None:
            layers = [
                nn.Linear(channels, given.hidden, bias=False),
                nn.BatchNorm1d(given.hidden),
                nn.ReLU(inplace=True),
            ]
        if given.dropout:
            layers.append(nn.Dropout(given.dropout))
        self.head = nn.Sequential(*layers, nn.Linear(given.hidden or channels, classes))

    @property
    def encoder(self) -> nn.Module:
        """Return the network's encoder."""
        return self.net.get_submodule("encoder")

    @property
    def architecture(self) -> Any:
        """Return the name of the network's architecture."""
        return self.net.architecture

    @property
    def config(self) -> Any:
        """Return the network's config."""
        return self.net.config

    def forward(self, inputs: Tensor | Inputs) -> Tensor:
        """Map normalised images (N, C, H, W) to scores of classes (N, K)."""
        output: SemanticLogits = self.net(image_of(inputs))
        scores: Tensor = self.head(output.logits.mean((2, 3)))
        return scores


class ImageCrossEntropy(nn.Module):
    """Cross-entropy of the classes of images."""

    def __init__(self, label_smoothing: float):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, scores: Tensor, classes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean over the batch, in float32, and the same by name; scores (N, K), classes (N,) int64."""
        loss = F.cross_entropy(scores.float(), classes, label_smoothing=self.label_smoothing)
        return loss, {"cross_entropy": loss.detach()}


def build_parts(config: Config, *, dry: bool = False) -> TrainingComponents:
    """Build data, network, criterion and card, as `building.build_parts` does for labelled pixels.

    Raises:
        DataError: what `open_image_classes` raises, or an image that cannot be read.
        ConfigError: a network that this cannot train.
    """
    given, model = _settings(config), config.model
    channels = model.in_channels or 3
    train: Any
    val: Any
    train, val = open_image_classes(config.data.root, channels)
    looked = look_at_images(train, val)
    LOGGER.info("data: %d images of %d classes, %d decoded without an error", len(train), len(train.classes), looked)
    torch.manual_seed(config.seed)
    fields = model.architecture_fields()
    net = create_model(model.name, num_classes=len(train.classes), in_channels=channels, **fields)
    if problems := _not_for_this(net):
        raise ConfigError("recipe", problems)
    model, notices = with_encoder(net, model, dry=dry)
    config = config.model_copy(update={"model": model})
    net.get_submodule("encoder").gradient_checkpointing = config.train.gradient_checkpointing  # type: ignore[assignment]
    preprocessing, statistics = choose_preprocessing(model, net, channels, None, config.data.root)
    source = f"learned {len(train.classes)} classes of whole images with SegAtlas"
    card = make_card(net, classes=train.classes, preprocessing=preprocessing, source=source)
    facts = facts_of(config, net, preprocessing, statistics, notices)
    return TrainingComponents(
        train=train, val=val, net=ImageClassifier(net, len(train.classes), given),
        criterion=ImageCrossEntropy(given.label_smoothing), card=card, pipeline=pipeline_of(config, card), facts=facts,
        notices=notices, encoder_weights=model.encoder_weights,
    )  # fmt: skip


def _settings(config: Config) -> PretrainConfig:
    assert config.pretrain is not None
    return config.pretrain


def _not_for_this(net: nn.Module) -> list[Problem]:
    """Return why a network cannot learn classes of images here; of what it gives the recipe has been asked."""
    kind = net.get_submodule("classifier")
    if not isinstance(kind, nn.Conv2d):
        message = f"its classifier is a {type(kind).__name__}, expected a convolution, behind which nothing comes"
        return [Problem(key="model.name", got=str(net.architecture), message=message)]
    if aux_names_of(net):
        message = "auxiliary heads learn nothing from classes of images - set it to false"
        return [Problem(key="model.aux", got="true", message=message)]
    return []


# ---- data
class TrainImages(Dataset[Prepared | SegAtlasError]):
    """Training images by (epoch, index), each with its class; a fault of the data comes in its place."""

    def __init__(self, images: ImageClasses, pipeline: Pipeline, seed: int):
        self.images, self.pipeline, self.seed = images, pipeline, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, address: tuple[int, int]) -> Prepared | SegAtlasError:
        epoch, index = address
        cv2.setNumThreads(0)  # here, not at import: loader processes must not compete with torch's threads
        try:
            sample = self.images.load(index)
            return self.pipeline(sample, sample_generator(self.seed, epoch, index)), self.images.class_of(index)
        except SegAtlasError as error:
            return error


class ValImages(Dataset[Prepared | SegAtlasError | None]):
    """One process's part of val: images resized by their shorter side, of which the middle crop is taken.

    All parts have one length, for the processes must validate together; where the images run out, an item is None.
    """

    def __init__(self, images: ImageClasses, pipeline: Pipeline, config: Config, rank: int, world: int):
        self.images = images
        self.indices = range(rank, len(images), world)
        self.length = -(-len(images) // world)
        assert config.transforms.crop_size is not None
        self.crop = config.transforms.crop_size
        resize = Resize(target=f"short:{_settings(config).resize}")
        self.pipeline = replace(pipeline, geometry=Geometry(before=(resize,)), photometric=None, blur=None)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> Prepared | SegAtlasError | None:
        cv2.setNumThreads(0)
        if position >= len(self.indices):
            return None
        index = self.indices[position]
        try:
            whole = self.pipeline(self.images.load(index), sample_generator(0, 0, 0))  # nothing is drawn
        except SegAtlasError as error:
            return error
        return replace(whole, image=middle(whole.image, self.crop)), self.images.class_of(index)


def middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle (h, w) of an image (H, W, C) that is as large or larger."""
    top, left = ((have - want) // 2 for have, want in zip(image.shape[:2], size, strict=True))
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def collate_classes(samples: Sequence[Prepared | SegAtlasError | None]) -> Batch | SegAtlasError | None:
    """Return the batch, its targets the classes (N,) int64; the first fault among samples; None without one."""
    good: list[Prepared] = []
    for sample in samples:
        if isinstance(sample, SegAtlasError):
            return sample
        if sample is not None:
            good.append(sample)
    if not good:
        return None
    batch = collate([prepared for prepared, _ in good])
    return batch._replace(targets=torch.tensor([number for _, number in good]))


def first_batch(config: Config, parts: TrainingComponents, images: int) -> Batch:
    """Return the batch of the first training images. Raises what reading them raises."""
    stream = TrainImages(cast(Any, parts.train), parts.pipeline, config.seed)
    batch = collate_classes([stream[(0, index)] for index in range(images)])
    if isinstance(batch, SegAtlasError):
        raise batch
    assert batch is not None
    return batch


class PretrainingDataModule(SegmentationDataModule):
    """Loaders of images with classes; the training's is the same one stream."""

    def train_dataloader(self) -> BatchStream:
        """Return the stream of augmented training batches."""
        assert self.trainer is not None
        loader: DataLoader[Any] = DataLoader(
            TrainImages(cast(Any, self.train), self.pipeline, self.config.seed),
            batch_sampler=BatchAddresses(
                self.plan, seed=self.config.seed, rank=self.trainer.global_rank, start=self.start
            ),
            collate_fn=collate_classes,
            num_workers=self.config.data.workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
        self._stream = BatchStream(loader)
        return self._stream

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of validation batches."""
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        part = ValImages(cast(Any, self.val), self.pipeline, self.config, rank, world)
        return DataLoader(
            part,
            batch_size=self.config.train.batch_size,
            collate_fn=collate_classes,
            num_workers=self.config.data.workers,
        )


# ---- the trainer's module
class PretrainingModule(SegmentationModule):
    """The training step of `SegmentationModule`, validated by the classes that images get."""

    counts: ImageClassCounts

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self.counts = ImageClassCounts()

    def validation_step(self, batch: Batch | None, index: int) -> None:  # type: ignore[override]
        """Count one batch; None where this process has fewer images than others."""
        if batch is not None:
            assert isinstance(batch.targets, Tensor)
            self.counts.update(self.net(batch.inputs), batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Add up what all processes counted."""
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self.counts.state())
            self.counts = ImageClassCounts()
            for state in states:
                self.counts.merge(state)
        self.validation_scores = self.counts.compute()

    def keep(self, checkpoint: Path, folder: RunFolder, metric: dict[str, Any]) -> None:
        """Write what another training begins with."""
        card, tensors = read_checkpoint(checkpoint)
        require_finite(tensors, where=str(checkpoint))
        kept = {name.removeprefix(NET): tensor for name, tensor in tensors.items() if name.startswith(NET)}
        write_pretrained(folder.pretrained, replace(card, metric=metric), kept)


# ---- the end of a run
def finish_run(config: Config, folder: RunFolder, val: ImageClasses) -> None:
    """Write eval.json, plots/ and report.html of the best validation, and say what is not kept."""
    if not folder.pretrained.exists():
        LOGGER.warning("no validation took place: no best weights, nothing is kept")
        return
    state = read_torch(folder.best)["callbacks"]["RunCheckpoints"]
    scores: dict[str, float] = state["best_scores"]
    numbers = {**scores, "images": len(val), "classes": len(val.classes)}
    definitions = {number.name: number.definition for number in NUMBERS.values()}
    with whole_file(folder.evaluation) as temporary:
        temporary.write_text(json.dumps({"summary": numbers, "definitions": definitions}, indent=1), encoding="utf-8")
    curves = drawing.curves_image(folder.metrics, best=config.train.metric)
    drawing.write_bytes(curves, folder.plots / "curves.png")
    drawing.write_report(_content(config, folder, val, scores, curves), folder.report)
    head = [name.removeprefix(NET) for name in read_torch(folder.best)["state_dict"] if name.startswith(NET + HEAD)]
    LOGGER.info("not kept, because it says classes of images: %s", ", ".join(head))
    told = ", ".join(f"{number.short} {number.text(scores[name])}" for name, number in NUMBERS.items())
    LOGGER.info("best on val: %s", told)


def _content(
    config: Config, folder: RunFolder, val: ImageClasses, scores: dict[str, float], curves: bytes
) -> drawing.ReportContent:
    return drawing.ReportContent(
        title=folder.root.name,
        subtitle=f"{config.model.name} on {len(val.classes)} classes of whole images, {len(val)} images of val",
        headline=[(number.short, number.text(scores[name])) for name, number in NUMBERS.items()],
        sections=[Figures(title="Training curves", entries=[("", curves)])],
        colors=[],
        config_yaml=to_yaml(config),
        environment=recorded_environment(folder.environment),
        definitions={number.title: number.definition for number in NUMBERS.values()},
        commands=[f"segatlas train RECIPE model.start_from={folder.root}"],
    )
