"""What every network promises, whatever gives its output; tried on a small variant, on the CPU.

The record that ends a model file is what is checked: it builds the network. Letters as in `segatlas.structures`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from segatlas.build.network import build_network
from segatlas.config.encoder_keys import FLAT
from segatlas.errors import ConfigError
from segatlas.inference.fast_form import fast_form
from segatlas.models.architecture import Architecture
from segatlas.models.host import aux_names_of
from segatlas.models.reading import read_config
from segatlas.postprocess import find
from segatlas.structures import (
    DetectedMasks,
    Inputs,
    InputSpec,
    Output,
    QueryMasks,
    changed,
    further_maps,
    maps_of,
    noise_inputs,
    samples_of,
)
from segatlas.tasks import TASKS
from segatlas.testing.rules import Rule, check_kind, require, seeded

K = 5
SIZE, TRAINING_SIZE = (64, 96), (64, 128)
ODD_SIZES = ((33, 47), (65, 129), (1, 1))
EXPORTED_AT, TAKEN_TOO = (2, (97, 129)), ((1, (64, 96)), (3, (65, 129)), (2, (161, 81)))
"""Count and size of the images that a program is exported with, and of those that it must take as well."""
MOST_PADDING = 32
LARGEST_STRIDE = 64
SAME = 1e-5
"""Relative error of float32 where sums may be taken in another order."""


class ModelCase:
    """A network that can be made again and again, each time with the same weights."""

    def __init__(self, architecture: Architecture, fields: Mapping[str, Any], build: Callable[[Any], nn.Module]):
        self.architecture = architecture
        self.fields = dict(fields)
        self.build = build
        self._seen: dict[tuple[int, int], Output] = {}

    def config(self, **fields: Any) -> Any:
        """Make the config of K classes, with some fields changed."""
        config, problems = read_config(self.architecture, {"num_classes": K, **self.fields, **fields})
        if problems:
            raise ConfigError(self.architecture.name, problems)
        return config

    def make(self, seed: int = 0, **fields: Any) -> nn.Module:
        """Build the network in eval mode."""
        with seeded(seed):
            return self.build(self.config(**fields)).eval()

    @cached_property
    def net(self) -> nn.Module:
        """A network for rules that leave it as it is."""
        return self.make()

    def takes(self, channels: int = 3) -> tuple[InputSpec, ...]:
        """Say what the network takes, the image first."""
        return self.architecture.inputs(self.config(in_channels=channels))

    def noise(self, size: tuple[int, int] = SIZE, count: int = 1, seed: int = 1, channels: int = 3) -> Tensor | Inputs:
        """Make inputs of noise: an image, with the sources that the network needs."""
        return noise_inputs(self.takes(channels), size, count=count, seed=seed).given()

    def seen(self, size: tuple[int, int] = SIZE) -> Output:
        """Return what `net` gives for one image of noise of that size: made once, and only read."""
        if size not in self._seen:
            self._seen[size] = self.output(self.noise(size))
        return self._seen[size]

    def maps(self, inputs: Tensor | Inputs, net: nn.Module | None = None, seed: int = 0) -> dict[str, Tensor]:
        """Return the maps that a network gives for a copy of these inputs."""
        return maps_of(self.output(inputs, net, seed))

    def output(self, inputs: Tensor | Inputs, net: nn.Module | None = None, seed: int = 0) -> Output:
        """Return what a network in eval mode gives for a copy of these inputs."""
        with torch.no_grad(), seeded(seed):
            found: Output = (net or self.net)(changed(inputs, torch.clone))
        return found


def check_model(
    architecture: Architecture,
    fields: Mapping[str, Any] | None = None,
    *,
    build: Callable[[Any], nn.Module] | None = None,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    slow: bool = False,
) -> None:
    """Check a network: that of a record as `ARCHITECTURE`, registered or not.

    Args:
        architecture: the record.
        fields: of the config, for a variant that is small enough; default: the record's `tiny`.
        build: makes a network of a config; default: what `create_model` makes of the record, a wrapper's host included.
        only: names of the rules to try, () = all.
        skip: names of rules to leave out.
        slow: also the rules that take a second or more: the exported program and the fast form.

    Raises:
        BrokenRules: naming every rule that does not hold.
        UsageError: no such rule, or no record.
    """
    check_kind("architecture", architecture, Architecture, "that a network's file ends with, ARCHITECTURE")
    made = build or partial(build_network, architecture)
    case = ModelCase(architecture, architecture.tiny if fields is None else fields, made)
    require(architecture.name, RULES, case, only=only, skip=skip, slow=slow)


def record(case: ModelCase) -> Iterator[str]:
    """Its record names tasks that results can be made for, and a frozen config with num_classes and in_channels."""
    config = case.architecture.config
    if not dataclasses.is_dataclass(config) or not getattr(config, "__dataclass_params__").frozen:  # noqa: B009
        yield f"{config.__name__} is no frozen dataclass"
        return
    missing = {"num_classes", "in_channels"} - {field.name for field in dataclasses.fields(config)}
    if missing:
        yield f"{config.__name__} has no {' and no '.join(sorted(missing))}"
    for name in sorted(FLAT.keys() & {field.name for field in dataclasses.fields(config)}):
        yield f"the field {name} of {config.__name__}: in recipes and cards that word is the encoder's"
    if case.architecture.exports_dynamic == bool(case.architecture.not_dynamic_because):
        yield "exports_dynamic=False and not_dynamic_because go together"
    for task in case.architecture.tasks:
        if task not in TASKS:
            yield f"task {task!r}; there are {', '.join(TASKS)}"
        find(case.architecture.output.__name__, task)


def runs(case: ModelCase) -> Iterator[str]:
    """It is built from its config, and gives the type of output that its record names."""
    output, expected = case.seen(), case.architecture.output
    if not isinstance(output, expected):
        yield f"{type(output).__name__}, expected {expected.__name__}"


def parts(case: ModelCase) -> Iterator[str]:
    """It has an `encoder`, which training may freeze or train at a rate of its own; a wrapper has its host's."""
    if not isinstance(getattr(case.net, "encoder", None), nn.Module):
        yield f"submodules {', '.join(dict(case.net.named_children()))}"


def finite(case: ModelCase) -> Iterator[str]:
    """Its output is finite, in float32 and under bfloat16 autocast."""
    for what, autocast in (("float32", False), ("bfloat16 autocast", True)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            maps = case.maps(case.noise(), case.make())
        for name, values in maps.items():
            if not values.isfinite().all():
                yield f"{name} has values that are not finite in {what}"


def dtype(case: ModelCase) -> Iterator[str]:
    """Of float32 images it makes float32 maps."""
    for name, values in maps_of(case.seen()).items():
        if values.dtype != torch.float32:
            yield f"{name} is {values.dtype}"


def untouched_inputs(case: ModelCase) -> Iterator[str]:
    """What it is given stays as it is."""
    inputs = case.noise()
    given = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
    before = given.changed(torch.clone)
    with torch.no_grad():
        case.make()(given.given())
    for name, now, was in [("image", given.image, before.image)] + [
        (name, source, before.sources[name]) for name, source in given.sources.items()
    ]:
        if not torch.equal(now, was):
            yield f"{name} was changed in place"


def classes(case: ModelCase) -> Iterator[str]:
    """A map of classes has one channel a class: nothing but 0..K-1 is ever predicted, never 255.

    Queries have one logit more, of no class.
    """
    output = case.seen()
    if isinstance(output, QueryMasks):
        if output.class_logits.shape[-1] != K + 1:
            yield f"class_logits has {output.class_logits.shape[-1]} numbers of {K} classes and none"
        return
    if isinstance(output, DetectedMasks):
        if any(not 0 <= int(label) < K for labels in output.labels for label in labels):
            yield f"labels {', '.join(str(labels.tolist()) for labels in output.labels)} of {K} classes"
        return
    found = maps_of(output)
    more = case.maps(case.noise(), case.make(num_classes=K + 2))
    of_classes = [name for name in found if found[name].shape[1] != more[name].shape[1]]
    counts = {name: (found[name].shape[1], more[name].shape[1]) for name in of_classes or found}
    if not of_classes or any(count != (K, K + 2) for count in counts.values()):
        told = ", ".join(f"{name} has {few} and {many}" for name, (few, many) in counts.items())
        yield f"with {K} and {K + 2} classes {told} channels"


def channels(case: ModelCase) -> Iterator[str]:
    """Images may have any number of channels, and there may be any number of classes."""
    for count, num_classes in ((1, 2), (5, 19)):
        net = case.make(in_channels=count, num_classes=num_classes)
        if not all(values.isfinite().all() for values in case.maps(case.noise(channels=count), net).values()):
            yield f"values that are not finite for {count} channels and {num_classes} classes"


def any_size(case: ModelCase) -> Iterator[str]:
    """Images may have any size, odd ones and a single pixel too."""
    for size in ODD_SIZES:
        for name, values in maps_of(case.seen(size)).items():
            if not values.isfinite().all():
                yield f"{name} has values that are not finite for an image of {size[0]} x {size[1]}"


def canvas(case: ModelCase) -> Iterator[str]:
    """Its canvas holds the image, and goes on by less than 32 pixels below and to the right."""
    for size in (SIZE, *ODD_SIZES):
        found = tuple(case.seen(size).canvas)
        if not all(0 <= ours - given < MOST_PADDING for ours, given in zip(found, size, strict=True)):
            yield f"canvas {found} for an image of {size}"


def stride(case: ModelCase) -> Iterator[str]:
    """All its maps cover the canvas, or its next larger multiple, at one stride of whole pixels, same for each size.

    Boxes lie on the canvas. What has no rows and columns, such as the classes of queries, covers nothing.
    """
    sizes = (SIZE, *ODD_SIZES)
    outputs = [case.seen(size) for size in sizes]
    if case.architecture.output is DetectedMasks:
        yield from _off_canvas(outputs)
        return
    possible = {(step, multiple) for step in range(1, LARGEST_STRIDE + 1) for multiple in range(1, MOST_PADDING + 1)}
    for size, output in zip(sizes, outputs, strict=True):
        shapes = {tuple(values.shape[-2:]) for values in maps_of(output).values() if values.ndim == 4}
        possible &= {
            (step, multiple)
            for step, multiple in possible
            if shapes == {tuple(-(-(-(-int(length) // multiple) * multiple) // step) for length in output.canvas)}
        }
        if not possible:
            yield f"maps of {sorted(shapes)} on a canvas of {tuple(output.canvas)}, image {size}"
            return


def _off_canvas(outputs: Sequence[Any]) -> Iterator[str]:
    """Name boxes that reach beyond their canvas."""
    for output in outputs:
        height, width = output.canvas
        for boxes in output.boxes:
            if len(boxes) and not (
                boxes.min() >= 0 and boxes[:, 0::2].max() <= width and boxes[:, 1::2].max() <= height
            ):
                yield f"boxes from {float(boxes.min())} to {float(boxes.max())} on a canvas of {height} x {width}"


def no_randomness(case: ModelCase) -> Iterator[str]:
    """In eval mode it draws no random numbers."""
    net, inputs = case.make(), case.noise()
    first, other, again = (case.maps(inputs, net, seed) for seed in (1, 2, 1))
    for name, values in first.items():
        if torch.equal(values, again[name]) and not torch.equal(values, other[name]):
            yield f"{name} depends on the seed"


def no_state(case: ModelCase) -> Iterator[str]:
    """In eval mode it keeps nothing from call to call."""
    net, inputs = case.make(), case.noise()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    first = case.maps(inputs, net)
    case.maps(case.noise(seed=2), net)
    again = case.maps(inputs, net)
    differing = [name for name, values in first.items() if not torch.equal(values, again[name])]
    differing += [name for name, values in net.state_dict().items() if not torch.equal(values, before[name])]
    if differing:
        yield f"{differing[0]} differs after other images were predicted"


def one_by_one(case: ModelCase) -> Iterator[str]:
    """What it gives for an image does not depend on the others of its batch."""
    both = case.noise(ODD_SIZES[0], count=2)
    together = case.maps(both)
    alone = [case.maps(samples_of(both, slice(index, index + 1))) for index in (0, 1)]
    for name, values in together.items():
        field, _, image = name.rpartition(".")
        single = alone[int(image)][f"{field}.0"] if image.isdigit() else torch.cat([one[name] for one in alone])
        error = relative(single, values)
        if not error <= SAME:
            yield f"{name} differs by {error:.1e} of its largest value"


def inputs_record(case: ModelCase) -> Iterator[str]:
    """It takes an `Inputs` with the image as it takes the image alone."""
    given = case.noise()
    whole = given if isinstance(given, Inputs) else Inputs(given)
    taken = case.maps(whole)
    for name, values in maps_of(case.seen()).items():
        if not torch.equal(taken[name], values):
            yield f"{name} differs"


def saved(case: ModelCase) -> Iterator[str]:
    """All that it has learned is in its state dict: saved and loaded into another network it gives the same."""
    other, expected = case.make(seed=1), maps_of(case.seen())
    other.load_state_dict(load(save(case.net.state_dict())), strict=True)
    for name, values in case.maps(case.noise(), other).items():
        if not torch.equal(values, expected[name]):
            yield f"{name} differs"


def results(case: ModelCase) -> Iterator[str]:
    """The results that are made of its output are of the image's own size and of its classes."""
    things = getattr(case.net, "things", ()) or tuple(index < K // 2 for index in range(K))
    for task in case.architecture.tasks:
        (found,) = find(case.architecture.output.__name__, task)(case.seen(), (50, 70), crop=SIZE, things=things)
        if found.class_map is not None and found.class_map.shape != (50, 70):
            yield f"a class map of {found.class_map.shape} for an image of (50, 70)"
        if found.class_map is not None and found.class_map.max() >= K:
            yield f"class {found.class_map.max()} of {K}"
        for one in found.objects or ():
            if one.rle.size != (50, 70) or not 0 <= one.class_index < K:
                yield f"an object of class {one.class_index} with a mask of {one.rle.size}"


def no_aux_in_eval(case: ModelCase) -> Iterator[str]:
    """Auxiliary outputs are made while training only."""
    found = case.seen().aux
    if found:
        yield f"{', '.join(found)} in eval mode"


def aux_names(case: ModelCase) -> Iterator[str]:
    """Auxiliary outputs while training are those that it lists: "fcn" of `aux_head`, or its `aux_names`."""
    net = case.make().train()
    listed = aux_names_of(net)
    found = tuple(net(case.noise(TRAINING_SIZE, count=2)).aux)
    if sorted(found) != sorted(listed):
        yield f"lists {', '.join(listed) or 'none'}, gives {', '.join(found) or 'none'}"


def gradients(case: ModelCase) -> Iterator[str]:
    """Every parameter learns: each gets a finite gradient, each matrix or kernel one that is not all zero."""
    net = case.make().train()
    for parameter in net.parameters():
        if not parameter.any():  # what begins at zero, so that its block begins as nothing, stops gradients there
            nn.init.normal_(parameter, std=0.1)
    output = net(case.noise(TRAINING_SIZE, count=2))
    auxiliary = [values for values in further_maps(output).values() if values.is_floating_point()]
    torch.stack([values.square().mean() for values in (*maps_of(output).values(), *auxiliary)]).sum().backward()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            yield f"{name} gets no gradient"
        elif not parameter.grad.isfinite().all():
            yield f"{name} gets a gradient that is not finite"
        elif parameter.ndim > 1 and not parameter.grad.any():
            yield f"{name} gets a gradient of zero"


def one_image_trains(case: ModelCase) -> Iterator[str]:
    """A batch of one image trains."""
    net = case.make().train()
    for name, values in maps_of(net(case.noise(TRAINING_SIZE))).items():
        if not values.isfinite().all():
            yield f"{name} has values that are not finite"


def exports(case: ModelCase) -> Iterator[str]:
    """Its exported program gives its numbers."""
    inputs = case.noise(ODD_SIZES[0])
    program: Any = torch.export.export(case.net, (inputs,)).module()
    ours = case.output(inputs)
    with torch.no_grad():
        theirs = program(inputs)
    for name, values in maps_of(ours).items():
        error = relative(getattr(theirs, name), values)
        if not error <= SAME:
            yield f"{name} differs by {error:.1e} of its largest value"
    for name in ("canvas", "resample"):
        if tuple(getattr(theirs, name)) != tuple(getattr(ours, name)):
            yield f"{name} is {tuple(getattr(theirs, name))}, and {tuple(getattr(ours, name))} of the network"


def exports_dynamic(case: ModelCase) -> Iterator[str]:
    """Its exported program takes batches and images of other sizes; where not, its record says so and why."""
    if not case.architecture.exports_dynamic:
        return
    count, size = EXPORTED_AT
    inputs = case.noise(size, count)
    free = torch.export.ShapesCollection()
    whole = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
    for tensor in (whole.image, *whole.sources.values(), *whole.present.values()):
        sides = range(tensor.ndim - 2, tensor.ndim) if tensor.ndim > 2 else ()  # flags have none
        free[tensor] = dict.fromkeys((0, *sides), torch.export.Dim.DYNAMIC)
    program: Any = torch.export.export(case.net, (inputs,), dynamic_shapes=free).module()
    for count, size in TAKEN_TOO:
        other = case.noise(size, count)
        ours = case.output(other)
        with torch.no_grad():
            theirs = program(other)
        for name, values in maps_of(ours).items():
            error = relative(getattr(theirs, name), values)
            if not error <= SAME:
                yield f"{name} differs by {error:.1e} of its largest value for {count} x {size[0]} x {size[1]}"
        if tuple(theirs.canvas) != tuple(ours.canvas):
            yield f"canvas is {tuple(theirs.canvas)}, and {tuple(ours.canvas)} of the network"


def fast_form_same(case: ModelCase) -> Iterator[str]:
    """Its fast form, which prediction runs, gives its numbers."""
    net, inputs, takes = case.make(), case.noise(ODD_SIZES[1]), case.takes()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.25)
    quick, plain = case.maps(inputs, fast_form(net, takes)), case.maps(inputs, net)
    exact, doubled = net.double(), changed(inputs, torch.Tensor.double)
    truth, fast_truth = case.maps(doubled, exact), case.maps(doubled, fast_form(exact, takes))
    for name, values in truth.items():
        if not relative(fast_truth[name], values) <= 1e-10:
            yield f"{name} differs in float64"
        # In float32 it may round as much as 1e-5 or, in a network that magnifies rounding, twice as much as the plain.
        if not relative(quick[name].double(), values) <= max(SAME, 2 * relative(plain[name].double(), values)):
            yield f"{name} differs in float32"


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a fraction of the largest expected value; NaN where either is NaN.

    It is infinite where there are more or fewer values, and 0 where there are none.
    """
    if found.shape != expected.shape:
        return math.inf
    if not found.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


_REPEATABLE = ("no_randomness", "no_state")

RULES = (
    Rule(check=record),
    Rule(check=runs, needs=("record",)),
    Rule(check=parts, needs=("runs",)),
    Rule(check=finite, needs=("runs",)),
    Rule(check=dtype, needs=("runs",)),
    Rule(check=untouched_inputs, needs=("runs",)),
    Rule(check=classes, needs=("runs",)),
    Rule(check=channels, needs=("finite", "classes")),
    Rule(check=any_size, needs=("finite",)),
    Rule(check=canvas, needs=("any_size",)),
    Rule(check=stride, needs=("canvas",)),
    Rule(check=no_randomness, needs=("finite",)),
    Rule(check=no_state, needs=("finite",)),
    Rule(check=one_by_one, needs=(*_REPEATABLE, "any_size")),
    Rule(check=inputs_record, needs=_REPEATABLE),
    Rule(check=saved, needs=_REPEATABLE),
    Rule(check=results, needs=("finite", "classes", "canvas", "stride")),
    Rule(check=no_aux_in_eval, needs=("runs",)),
    Rule(check=one_image_trains, needs=("finite",)),
    Rule(check=aux_names, needs=("one_image_trains",)),
    Rule(check=gradients, needs=("one_image_trains",)),
    Rule(check=exports, needs=(*_REPEATABLE, "any_size"), slow=True),
    Rule(check=exports_dynamic, needs=("exports",), slow=True),
    Rule(check=fast_form_same, needs=(*_REPEATABLE, "any_size"), slow=True),
)
