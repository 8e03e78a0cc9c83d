"""The teacher of a distillation: a trained network that is only asked, on the images that the student is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from segatlas.build.network import build_empty
from segatlas.build.surgery import resize
from segatlas.checkpoint.card import WEIGHTS_FILE, Card
from segatlas.checkpoint.model_folder import local_model, read_card
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.data.dataset import SegmentationData
from segatlas.data.value_range import full_scale, scale_fault
from segatlas.errors import UsageError, WeightsError
from segatlas.files import sha256
from segatlas.hub.loading import find_model, load_pretrained
from segatlas.inference.fast_form import TOLERANCES, TRIAL_SIZE
from segatlas.inference.runner import Runner
from segatlas.models import find_entry
from segatlas.models.reading import load_architecture, read_config
from segatlas.recipe import CLASS_MAPS, Config
from segatlas.structures import IGNORE, Inputs, Output, SemanticLogits, noise_inputs
from segatlas.training.free_memory import free_memory
from segatlas.training.taken_maps import Size, taken

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Change:
    """What brings images normalised for the student to the teacher's normalisation: value * scale + shift, a channel.

    student, teacher: how the images are normalised, and how they should be. depth: type of the stored values, uint8,
    uint16 or float32. stated: stored value that is full scale to the teacher, where it is not its card's.
    """

    student: Preprocessing
    teacher: Preprocessing
    depth: str
    stated: float | None = None

    @property
    def ratio(self) -> float:
        """Full scale of the student by that of the teacher."""
        theirs = full_scale(self.depth, self.teacher.max_value) if self.stated is None else self.stated
        return full_scale(self.depth, self.student.max_value) / theirs

    @property
    def scale(self) -> tuple[float, ...]:
        """Factor on each channel."""
        return tuple(
            std * self.ratio / their_std for std, their_std in zip(self.student.std, self.teacher.std, strict=True)
        )

    @property
    def shift(self) -> tuple[float, ...]:
        """What is added to each channel then."""
        rows = zip(self.student.mean, self.teacher.mean, self.teacher.std, strict=True)
        return tuple((mean * self.ratio - their_mean) / their_std for mean, their_mean, their_std in rows)

    def apply(self, image: Tensor, labels: Tensor) -> Tensor:
        """Return images (N, C, H, W) changed; padding, which is 0 for the one, is 0 for the other.

        labels: (N, H, W), 255 in padding, where the image is 0 throughout.
        """
        scale, shift = (image.new_tensor(values).view(1, -1, 1, 1) for values in (self.scale, self.shift))
        changed = torch.addcmul(shift, image, scale)
        padding = (labels == IGNORE) & (image == 0).all(1)
        return changed.masked_fill(padding[:, None], 0)


class Teacher:
    """A network of class maps with what a student needs of it. Nothing of it is trained or kept.

    name: as the recipe says. place: where it lies. card, sha256: its card, and the hash of its weights. classes: of
    each class of the student the teacher's number. maps: names of maps that are taken besides its logits.
    """

    def __init__(self, net: nn.Module, card: Card, *, name: str, place: Path, classes: Sequence[int]):
        self.net, self.card, self.name, self.place = net.requires_grad_(False).eval(), card, name, place
        self.sha256 = hash_of(place)
        self.classes = tuple(classes)
        self.maps: tuple[str, ...] = ()
        self._asked: tuple[torch.device, str] | None = None
        self._runner: Runner | None = None

    @property
    def in_fast_form(self) -> bool:
        """Tell whether its fast form gives all that is taken."""
        return self._runner is not None and self._runner.form is not self.net

    @property
    def precision(self) -> str:
        """Return the precision that it runs in."""
        return "fp32" if self._runner is None else self._runner.precision

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: averaged weights of the student need no second teacher."""
        return self

    @torch.no_grad()
    def run(self, image: Tensor, precision: str) -> tuple[SemanticLogits, dict[str, Tensor]]:
        """Return output and maps of images normalised for the teacher, in float32; its classes are the student's."""
        runner = self._runner_on(image.device, precision)
        with torch.random.fork_rng(devices=[]), taken(runner.form, self.maps) as maps:
            output: Output = runner.output(Inputs(image))
        assert isinstance(output, SemanticLogits)
        logits = output.logits
        if self.classes != tuple(range(logits.shape[1])):
            logits = logits[:, list(self.classes)]
        return output._replace(logits=logits), {name: values.float() for name, values in maps.items()}

    def _runner_on(self, device: torch.device, precision: str) -> Runner:
        if self._runner is None or self._asked != (device, precision):
            runner = Runner(self.net, self.card.inputs, device, "fp32")
            self._runner = runner.with_precision(precision) if self._same_maps(runner) else runner.plain()
            self._asked = (device, precision)
        return self._runner

    def _same_maps(self, runner: Runner) -> bool:
        """Tell whether the fast form has all maps that are taken, and gives them as the network does."""
        trial = noise_inputs(self.card.inputs, TRIAL_SIZE).to(runner.device).given()
        found: list[Mapping[str, Tensor]] = []
        for net in (self.net, runner.form):
            try:
                with torch.autocast(runner.device.type, enabled=False), taken(net, self.maps) as maps:
                    net(trial)
            except (AttributeError, UsageError):  # no layer of that name, or it never runs: others do its work
                return False
            found.append(maps)
        return all(
            plain.shape == found[1][name].shape
            and float((plain - found[1][name]).abs().max()) <= TOLERANCES["fp32"] * float(plain.abs().max())
            for name, plain in found[0].items()
        )


# ---- loading
def load_teacher(
    path: str,
    *,
    run: str | Path | None,
    student: Card,
    by: str,
    on_classes: bool,
    batch: tuple[int, Size],
    crop: Size | None,
    device: torch.device,
) -> Teacher:
    """Load the network that a student is to learn from.

    Args:
        path: what `sa.load` takes.
        run: the student's run folder, where it has a name.
        student: the student's card.
        by: how classes are found, "names" or "numbers".
        on_classes: whether its logits are used, so that its classes must be the student's.
        batch: images of a batch, and their (height, width).
        crop: the size of all of them, where the recipe says one.
        device: where it will run.

    Raises:
        WeightsError: nothing usable there.
        UsageError: it cannot teach this student, or does not fit the memory.
    """
    place = find_model(path)
    if run is not None and lies_in(place, Path(run)):
        raise UsageError(f"it lies in {run}, which this run writes; copy it elsewhere, or choose another run.dir")
    card = read_card(place)
    _check_card(card, student, crop)
    classes = _classes(card, student, by) if on_classes else ()
    _check_memory(card, place, batch, device)
    net, card = load_pretrained(place)
    classes = classes or tuple(range(len(card.classes)))
    return Teacher(net, card, name=path, place=place, classes=classes)


def hash_of(place: Path) -> str:
    """Return the sha256 of the weights in a model folder, or of a checkpoint."""
    return sha256(place if place.is_file() else place / WEIGHTS_FILE, error=WeightsError)


def lies_in(place: Path, folder: Path) -> bool:
    """Tell whether a model lies in a folder, links followed."""
    return place.resolve().is_relative_to(folder.expanduser().resolve())


def _check_card(card: Card, student: Card, crop: Size | None) -> None:
    """Raise UsageError where the card tells that a network cannot teach."""
    gives = find_entry(card.architecture)[0].output
    if gives != CLASS_MAPS:
        raise UsageError(f"{card.architecture} gives {gives}; a teacher is a network of class maps, {CLASS_MAPS}")
    if len(card.inputs) > 1:
        names = ", ".join(spec.name for spec in card.inputs[1:])
        raise UsageError(f"it takes {names} besides the image, which the student's images do not have for it")
    ours, theirs = student.inputs[0].channels, card.inputs[0].channels
    if ours != theirs:
        raise UsageError(f"it takes images of {theirs} channel{'s' * (theirs > 1)}, the student's have {ours}")
    window = card.inference.crop
    if window is not None and crop != window:
        here = "of any size" if crop is None else f"of {crop[0]}x{crop[1]}"
        raise UsageError(
            f"it predicts by windows of {window[0]}x{window[1]}, and training images are {here}: "
            f"transforms.crop=[{window[0]}, {window[1]}] makes them what it knows"
        )


def _classes(card: Card, student: Card, by: str) -> tuple[int, ...]:
    """Return the teacher's number of each class of the student."""
    ours, theirs = student.classes, card.classes
    if by == "numbers" and len(ours) != len(theirs):
        raise UsageError(f"it has {_counted(theirs)}, the student {len(ours)}: {_few(ours)}")
    if by == "numbers" or ours == theirs:
        return tuple(range(len(ours)))
    lost, further = [one for one in ours if one not in theirs], [one for one in theirs if one not in ours]
    if lost or further:
        faults = [f"without {_few(lost)}"] if lost else []
        faults += [f"with {_few(further)}"] if further else []
        raise UsageError(
            f"it has {_counted(theirs)} and not the student's {len(ours)}: {', '.join(faults)}"
            + ("; if its numbers mean the same: distill.classes=numbers" if len(ours) == len(theirs) else "")
        )
    twice = [name for name in dict.fromkeys(ours) if max(ours.count(name), theirs.count(name)) > 1]
    if twice:
        raise UsageError(f"more than one class is called {_few(twice)}, so that names do not tell which is which")
    return tuple(theirs.index(name) for name in ours)


def _counted(classes: Sequence[str]) -> str:
    return f"{len(classes)} class{'es' * (len(classes) != 1)}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def value_fault(images: SegmentationData, teacher: Preprocessing, stated: float | None) -> tuple[str, str]:
    """Return the type of a dataset's stored values, and why they cannot be meant on the teacher's scale, or ""."""
    image = images.load(0).image
    depth = image.dtype.name
    if stated is not None:
        return depth, ""
    fault = scale_fault(depth, float(image.min()), float(image.max()), teacher.max_value)
    return depth, f"{fault} (distill.max_value says which value is full scale)" if fault else ""


# ---- memory
def _check_memory(card: Card, place: Path, batch: tuple[int, Size], device: torch.device) -> None:
    """Raise UsageError where the least that a teacher needs is more than is free. The student's own comes on top."""
    free = free_memory(device)
    weights, maps = least_memory(card, batch)
    if free is None or weights + maps <= free:
        return
    count, (height, width) = batch
    raise UsageError(
        f"it does not fit the memory: at least {weights / MIB:,.0f} MB for its weights and {maps / MIB:,.0f} MB for "
        f"maps of {count} images of {height}x{width}, and {free / MIB:,.0f} MB are free on {device.type}; a smaller "
        "train.batch or transforms.crop, or a smaller teacher"
    )


def least_memory(card: Card, batch: tuple[int, Size]) -> tuple[int, int]:
    """Return bytes that a network needs at least: its weights with their copies, and the largest layer's maps.

    Convolutions are kept a second time, as the fast form has them. Maps are found by sending shapes through.
    """
    architecture = load_architecture(find_entry(card.architecture)[0].name)
    config, problems = read_config(architecture, card.config)
    if problems:  # told where the network is loaded
        return 0, 0
    net = build_empty(architecture, config).eval()
    try:
        resize(net, card.surgery, where=card.architecture)
    except WeightsError:  # told there, too
        return 0, 0
    tensors = [*net.parameters(), *net.buffers()]
    weights = sum(one.numel() * one.itemsize * (2 if one.ndim == 4 else 1) for one in tensors)
    largest = 0

    def look(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal largest
        maps = [one for one in (*given, output) if isinstance(one, Tensor)]
        largest = max(largest, sum(one.numel() * one.itemsize for one in maps))

    handles = [module.register_forward_hook(look) for module in net.modules() if not any(module.children())]
    count, size = batch
    try:
        with torch.no_grad():
            net(noise_inputs(card.inputs, size, count=count, device="meta").given())
    except (NotImplementedError, RuntimeError):  # a network that asks for values; its weights alone are known
        return weights, largest
    finally:
        for handle in handles:
            handle.remove()
    return weights, largest


def told(teacher: Teacher) -> str:
    """Return the line of the log that says who teaches."""
    parameters = sum(parameter.numel() for parameter in teacher.net.parameters())
    rules = teacher.card.preprocessing
    numbers = ["[" + ", ".join(f"{value:.4g}" for value in values) + "]" for values in (rules.mean, rules.std)]
    return (
        f"teacher: {teacher.card.architecture} ({teacher.name}), {parameters / 1e6:.2f} M parameters; its input: mean "
        f"{numbers[0]}, std {numbers[1]} of values / {rules.max_value:g}"
    )


def source_with(card: Card, teacher: Teacher) -> Card:
    """Return the student's card with what it was learned from."""
    licence = f", licence {teacher.card.licence}" if teacher.card.licence else ""
    who = f"{teacher.card.architecture} {teacher.name} (sha256 {teacher.sha256}{licence})"
    return replace(card, source=f"{card.source}, distilled from {who}")


def with_lasting_name(config: Config) -> Config:
    """Return the recipe with the place that its teacher's name means today, where links are on the way to it.

    `runs/semantic/last` is another run as soon as this one begins.
    """
    if config.distill is None or local_model(config.distill.teacher) is None:
        return config
    given = Path(config.distill.teacher).expanduser().absolute()
    if given.resolve() == given:
        return config
    distill = config.distill.model_copy(update={"teacher": str(given.resolve())})
    return config.model_copy(update={"distill": distill})
