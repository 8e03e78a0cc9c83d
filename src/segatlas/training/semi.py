"""Images without labels beside labelled ones: a recipe with `semi:` and `data.unlabelled` learns from both.

mean_teacher: a teacher, the average of the student's weights over the steps, looks at a weakly changed view; the
student at a strongly changed one of the same pixels should say the same (Tarvainen and Valpola 2017; with CutMix French
et al. 2020). weak_to_strong: what the network says of the weak view, where it is sure, is the label of two strong views
and of the weak one with perturbed features (Yang et al. 2023).

Everything drawn follows from the seed and the step, and the teacher is part of the checkpoint: a resumed run ends with
the weights of one that was never stopped.

Letters: N images of a batch, K classes, h w logits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from segatlas.config.schema import SemiConfig
from segatlas.data.collate import collate
from segatlas.data.further_images import FurtherImages
from segatlas.data.sample import Sample
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline, PreparedSample
from segatlas.data.transforms.color import GaussianBlur, Photometric
from segatlas.data.transforms.copy_paste import copy_paste_of
from segatlas.data.transforms.geometry import Geometry, Placement
from segatlas.encoders.contract import Tokens
from segatlas.errors import ConfigError, Problem, SegAtlasError, UsageError
from segatlas.ops import upsample_logits, upsampled_cross_entropy
from segatlas.structures import IGNORE, Batch, SemanticLogits
from segatlas.training.building import TrainingComponents, build_parts
from segatlas.training.data_module import BatchStream, Reporting, SegmentationDataModule
from segatlas.training.faults import require_finite
from segatlas.training.logbook import LOGGER
from segatlas.training.module import SegmentationModule, channels_last, step_seed
from segatlas.training.plan import Plan
from segatlas.training.sampler import BatchAddresses

VIEWS = 2
"""Sets the random numbers of views apart from those of labelled samples."""

STRONG_COLOR = {"probability": 0.8, "brightness": 0.25, "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": 45.0}
STRONG_BLUR = {"probability": 0.5, "sigma": (0.1, 2.0)}
"""How the colours of a strong view change, whatever the recipe does to labelled samples."""


class Views(NamedTuple):
    """One image without labels as it is looked at: the same pixels, weakly changed and twice strongly."""

    weak: PreparedSample
    strong: tuple[PreparedSample, PreparedSample]


class SemiBatch(NamedTuple):
    """What a step learns from: labelled images, and the views of others. `inputs` is that of the labelled ones."""

    labelled: Batch
    weak: Batch
    strong: tuple[Batch, Batch]


class _Placed(Geometry):
    """A geometry that was drawn already."""

    def __init__(self, placement: Placement):
        object.__setattr__(self, "placement", placement)

    def draw(self, generator: np.random.Generator, size: Any, label: Any = None) -> Placement:
        """Return it."""
        placement: Placement = self.placement  # type: ignore[attr-defined]
        return placement


class SemiStream(Dataset[Any]):
    """Labelled samples by (epoch, index), views of other images by (epoch, index, VIEWS); see `SampleStream`."""

    def __init__(self, labelled: SampleStream, others: FurtherImages, pipeline: Pipeline, seed: int):
        self.labelled, self.others, self.pipeline, self.seed = labelled, others, pipeline, seed

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, address: tuple[int, ...]) -> PreparedSample | Views:
        """Load, draw and apply; DataError as `SampleStream`."""
        if len(address) == 2:
            return self.labelled[(address[0], address[1])]
        epoch, index, _ = address
        return views_of(self.others.load(index), self.pipeline, (self.seed, epoch, index))


class SemiAddresses(BatchAddresses):
    """The batches of labelled samples, and behind each the views of `others` images, dealt out likewise."""

    def __init__(self, plan: Plan, *, seed: int, others: int, batch: int, rank: int = 0, start: int = 0):
        super().__init__(plan, seed=seed, rank=rank, start=start)
        self.others, self.batch = others, batch

    def addresses(self, number: int) -> list[Any]:
        """Return what batch `number` of this process holds: labelled samples, then views."""
        plan = self.plan
        step, part = divmod(number, plan.accumulate)
        of_step = plan.world * plan.accumulate * self.batch
        places = range(step * of_step, (step + 1) * of_step)[self.rank :: plan.world]
        mine = places[part * self.batch : (part + 1) * self.batch]
        return [*super().addresses(number), *(self._view(place) for place in mine)]

    def _view(self, place: int) -> tuple[int, int, int]:
        epoch, offset = divmod(place, self.others)
        order = np.random.default_rng([self.seed, VIEWS, epoch]).permutation(self.others)
        return epoch, int(order[offset]), VIEWS


def views_of(sample: Sample, pipeline: Pipeline, seeds: tuple[int, int, int]) -> Views:
    """Return the weak and the strong views of an image: one placement, other colours.

    seeds: seed, epoch and index; all that is drawn follows from them.
    """
    draw = np.random.default_rng([*seeds, VIEWS])
    placement = pipeline.geometry.draw(draw, (sample.image.shape[0], sample.image.shape[1]), None)
    weak = replace(pipeline, geometry=_Placed(placement), photometric=None, blur=None, boundary_labels=None)
    color = Photometric(**STRONG_COLOR) if sample.image.shape[2] == 3 else None  # type: ignore[arg-type]
    strong = replace(weak, photometric=color, blur=GaussianBlur(**STRONG_BLUR))  # type: ignore[arg-type]
    return Views(weak(sample, draw), (strong(sample, draw), strong(sample, draw)))


def collate_semi(samples: Sequence[Any]) -> SemiBatch | SegAtlasError:
    """Return the batch of labelled samples and views, or the first fault among them."""
    fault = next((sample for sample in samples if isinstance(sample, SegAtlasError)), None)
    if fault is not None:
        return fault
    views = [sample for sample in samples if isinstance(sample, Views)]
    labelled = collate([sample for sample in samples if isinstance(sample, PreparedSample)])
    strong = (collate([one.strong[0] for one in views]), collate([one.strong[1] for one in views]))
    return SemiBatch(labelled, collate([one.weak for one in views]), strong)


class SemiDataModule(SegmentationDataModule):
    """Labelled batches, each with images without labels."""

    def train_dataloader(self) -> BatchStream:
        """Return the stream of training batches."""
        assert self.trainer is not None
        config, semi = self.config, self.config.semi
        assert semi is not None
        others = FurtherImages.of(config.data, self.train.channels)
        labelled = SampleStream(self.train, self.pipeline, config.seed, copy_paste_of(config.transforms))
        addresses = SemiAddresses(
            self.plan, seed=config.seed, others=len(others), batch=semi.batch or self.plan.batch,
            rank=self.trainer.global_rank, start=self.start,
        )  # fmt: skip
        loader: DataLoader[Any] = DataLoader(
            Reporting(SemiStream(labelled, others, self.pipeline, config.seed)),  # type: ignore[arg-type]
            batch_sampler=addresses,
            collate_fn=collate_semi,
            num_workers=config.data.workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )
        self._stream = BatchStream(loader)
        return self._stream


class SemiModule(SegmentationModule):
    """A training step on labelled and other images. `teacher`: the averaged network of mean_teacher, else absent."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        assert self.recipe.semi is not None
        self.semi: SemiConfig = self.recipe.semi
        if self.semi.method == "mean_teacher":
            self.teacher = copy.deepcopy(self.net).requires_grad_(False).eval()

    def training_step(self, batch: SemiBatch, batch_index: int) -> Tensor:  # type: ignore[override]
        """Return the loss of labelled images plus the weighted one of the others."""
        self._begin_step()
        supervised = super().training_step(batch.labelled, batch_index)
        epoch, index = self.plan.batch_in_epoch(self.next_batch - 1)
        torch.manual_seed(step_seed(self.recipe.seed, epoch, index, self.global_rank) + VIEWS)
        progress = self.plan.fraction(self.global_step)
        weak, strong = (_laid_out(one, self.recipe.train.channels_last) for one in (batch.weak, batch.strong[0]))
        if self.semi.method == "mean_teacher":
            other = mean_teacher_loss(self.net, self.teacher, weak, strong, self.semi)
            weight = self.semi.weight * ramped(progress, self.semi.ramp)
        else:
            second = _laid_out(batch.strong[1], self.recipe.train.channels_last)
            other, sure = weak_to_strong_loss(self.net, weak, (strong, second), self.semi)
            weight = self.semi.weight
            self.last_terms = {**self.last_terms, "sure": sure}
        self.last_terms = {**self.last_terms, "unsupervised": other.detach()}
        keys = ", ".join(batch.weak.keys)
        require_finite(
            "loss of images without labels",
            float(other.detach()),
            f"at step {self.global_step} on: {keys}",
            self.advice,
        )
        return supervised + weight * other

    def _begin_step(self) -> None:
        """Move the teacher towards what the student became in the last step.

        Before this step and not after that one: so no checkpoint lies between a step and what the teacher makes of it.
        """
        if self.semi.method == "mean_teacher" and self.next_batch % self.plan.accumulate == 0 and self.global_step:
            step = self.global_step
            move_teacher(self.teacher, self.net, min(self.semi.decay, (1 + step) / (10 + step)))


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Have a network in eval mode as long as this lasts, each part in its own mode again afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def move_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Set the teacher's tensors to decay * theirs + (1 - decay) * the student's; whole numbers are the student's."""
    mine, theirs = teacher.state_dict(), student.state_dict()
    for name, tensor in mine.items():
        if tensor.is_floating_point():
            tensor.lerp_(theirs[name].to(tensor), 1 - decay)
        else:
            tensor.copy_(theirs[name])


def mean_teacher_loss(student: nn.Module, teacher: nn.Module, weak: Batch, strong: Batch, semi: SemiConfig) -> Tensor:
    """Return the mean squared difference of the student's probabilities of the strong view to the teacher's.

    The teacher sees the weak view. With CutMix both are of images of which parts come from the next one of the batch.
    """
    with torch.no_grad():
        said = _logits(teacher(weak.inputs))
    image, valid = strong.inputs.image, weak.valid
    box = cut_mix_boxes(image, semi.cutmix)
    image, valid = cut_mixed(image, box), cut_mixed(valid, box)
    found = _logits(student(strong.inputs._replace(image=image)))
    size = (int(found.logits.shape[-2]), int(found.logits.shape[-1]))
    mixed = _resized(said, size, found.canvas)
    inside = _on_map(box, found.canvas, size)
    wanted = torch.where(inside[:, None], mixed.roll(1, 0), mixed).softmax(dim=1)
    where = _on_map(valid, found.canvas, size)[:, None].to(wanted)
    apart = (found.logits.float().softmax(dim=1) - wanted).square().mean(dim=1, keepdim=True)
    return (apart * where).sum() / where.sum().clamp(min=1)


def weak_to_strong_loss(
    net: nn.Module, weak: Batch, strong: tuple[Batch, Batch], semi: SemiConfig
) -> tuple[Tensor, Tensor]:
    """Return the loss of the strong views and of perturbed features, and the fraction of pixels that were sure.

    Half of it is the mean of the two strong views', half that of the weak view with a fraction of the encoder's
    channels dropped. A pixel whose class has less than `threshold` is no label (255), and neither is padding.
    """
    with evaluating(net), torch.no_grad():
        labels = sure_labels(_logits(net(weak.inputs)), weak.valid, semi.threshold)
    valid = weak.valid
    of_views: list[Tensor] = []
    for view in strong:
        box = cut_mix_boxes(view.inputs.image, semi.cutmix)
        output = _logits(net(view.inputs._replace(image=cut_mixed(view.inputs.image, box))))
        of_views.append(_of_sure(output, cut_mixed(labels, box), cut_mixed(valid, box)))
    with perturbed_features(net, semi.feature_dropout):
        perturbed = _logits(net(weak.inputs))
    loss = (of_views[0] + of_views[1]) / 4 + _of_sure(perturbed, labels, valid) / 2
    sure = ((labels != IGNORE) & valid).sum() / valid.sum().clamp(min=1)
    return loss, sure


def sure_labels(output: SemanticLogits, valid: Tensor, threshold: float) -> Tensor:
    """Return labels (N, H, W) uint8 of classes of at least `threshold`, 255 elsewhere and in padding."""
    size = (int(valid.shape[-2]), int(valid.shape[-1]))
    whole = upsample_logits(
        output.logits.float(), size, canvas=output.canvas, align_corners=output.resample.align_corners
    )
    confidence, labels = whole.softmax(dim=1).max(dim=1)
    return labels.masked_fill((confidence < threshold) | ~valid, IGNORE).to(torch.uint8)


def cut_mix_boxes(image: Tensor, probability: float) -> Tensor:
    """Return which pixels (N, H, W) bool of each image come from the next one: a box of 2 to 40 % of it, or nothing.

    All is drawn from torch's generator of the processor, so that it follows from the step.
    """
    count, _, height, width = image.shape
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    for one in inside:
        chance, area, shape, x, y = torch.rand(5).tolist()
        if count < 2 or chance >= probability:
            continue
        pixels, ratio = (0.02 + 0.38 * area) * height * width, 0.3 ** (1 - 2 * shape)
        rows, columns = min(int((pixels / ratio) ** 0.5), height), min(int((pixels * ratio) ** 0.5), width)
        top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
        one[top : top + rows, left : left + columns] = True
    return inside.to(image.device)


def cut_mixed(maps: Tensor, inside: Tensor) -> Tensor:
    """Return maps (N, ..., H, W) whose pixels inside come from the next of the batch; 255 of labels moves with them."""
    where = inside if maps.ndim == 3 else inside[:, None]
    return torch.where(where, maps.roll(1, 0), maps)


@contextmanager
def perturbed_features(net: nn.Module, fraction: float) -> Iterator[None]:
    """Drop a fraction of the channels of the maps or tokens that the network's encoder gives, as long as this lasts.

    A channel is dropped in all pixels, or tokens, of a sample at once.

    Raises:
        UsageError: the encoder gives neither.
    """

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tokens):
            return _dropped_tokens(output, fraction)
        maps = list(output.values()) if isinstance(output, Mapping) else output
        if isinstance(maps, Tensor):
            return F.dropout2d(maps, fraction)
        if not isinstance(maps, list | tuple) or not all(isinstance(one, Tensor) and one.ndim == 4 for one in maps):
            raise UsageError("semi.feature_dropout needs an encoder of maps or tokens; set it to 0 for this network")
        dropped = [F.dropout2d(one, fraction) for one in maps]
        return dict(zip(output, dropped, strict=True)) if isinstance(output, Mapping) else type(output)(dropped)

    handle = net.get_submodule("encoder").register_forward_hook(drop) if fraction > 0 else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def ramped(progress: float, ramp: float) -> float:
    """Return exp(-5 (1 - t)^2) with t how much of the ramp is done: the weight of a teacher that knows little yet."""
    part = 1.0 if ramp <= 0 else min(progress / ramp, 1.0)
    return float(np.exp(-5 * (1 - part) ** 2))


def build_semi_parts(config: Any, *, dry: bool = False) -> TrainingComponents:
    """Build what any run is made of, and look for the images without labels.

    Raises:
        DataError: no image there but labelled ones, or a file that cannot be read.
        ConfigError: the network needs more than an image.
    """
    parts = build_parts(config, dry=dry)
    others = FurtherImages.of(config.data, parts.train.channels)
    others.check_headers()
    for index in sorted({0, len(others) - 1}):
        others.load(index)
    LOGGER.info("images without labels: %d in %s", len(others), Path(config.data.unlabelled))
    _require_image_alone(config, parts)
    if dry:
        notice = f"{len(others)} images without labels; a dry run takes a step of labelled ones alone"
        parts = replace(parts, notices=(*parts.notices, notice))
    return parts


def _require_image_alone(config: Any, parts: TrainingComponents) -> None:
    needed = [spec.name for spec in parts.card.inputs[1:] if spec.required]
    if needed:
        message = f"takes {', '.join(needed)} besides the image, and data.unlabelled holds images alone"
        raise ConfigError("recipe", [Problem(key="model.name", got=config.model.name, message=message)])


def _dropped_tokens(tokens: Tokens, fraction: float) -> Tokens:
    """Return tokens of which a fraction of the channels is 0 and the others so much larger, block by block."""
    patches, prefix = [], []
    for own, before in zip(tokens.patches, tokens.prefix, strict=True):
        kept = F.dropout(own.new_ones(len(own), 1, own.shape[2]), fraction)
        patches.append(own * kept)
        prefix.append(before * kept)
    return Tokens(tuple(patches), tuple(prefix), tokens.grid)


def _resized(said: SemanticLogits, size: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    """Return logits (N, K, h, w) of a teacher on the map of a student, which may be coarser while it is trained."""
    if (int(said.logits.shape[-2]), int(said.logits.shape[-1])) == size and said.canvas == canvas:
        return said.logits
    whole = upsample_logits(said.logits.float(), canvas, canvas=said.canvas, align_corners=said.resample.align_corners)
    return F.interpolate(whole, size=size, mode="area")


def _of_sure(output: SemanticLogits, labels: Tensor, valid: Tensor) -> Tensor:
    """Return the cross-entropy of labelled pixels over all that are valid."""
    loss = upsampled_cross_entropy(
        output.logits, labels, canvas=output.canvas, align_corners=output.resample.align_corners
    )
    return loss * ((labels != IGNORE).sum() / valid.sum().clamp(min=1))


def _logits(output: Any) -> SemanticLogits:
    if not isinstance(output, SemanticLogits):
        raise UsageError(f"semi: the network gives {type(output).__name__}; maps of classes are needed")
    return output


def _laid_out(batch: Batch, is_channels_last: bool) -> Batch:
    return batch._replace(inputs=batch.inputs.changed(channels_last)) if is_channels_last else batch


def _on_map(flags: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return flags (N, H, W) at the middles of a map's pixels (N, h, w), False beyond the image."""
    down, right = canvas[0] - flags.shape[-2], canvas[1] - flags.shape[-1]
    padded = F.pad(flags[:, None].float(), (0, right, 0, down))
    return F.interpolate(padded, size=size, mode="nearest-exact")[:, 0] > 0.5
