"""From a recipe with `distill:` to everything that training needs: the parts of any run, and a teacher beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from segatlas.config.distillation import DECODED, FEATURES, LOGITS, ChannelWise, DistillConfig
from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.data.transforms.copy_paste import copy_paste_of
from segatlas.errors import ConfigError, Problem, UsageError
from segatlas.inference.runner import resolve_device
from segatlas.recipe import Config
from segatlas.structures import Batch, SemanticLogits
from segatlas.training import building
from segatlas.training.building import TrainingComponents, told_with_key
from segatlas.training.distillation import ComparedTerm, Distillation, Pair
from segatlas.training.logbook import LOGGER
from segatlas.training.taken_maps import Size, check_name, covers, encoder_strides, taken
from segatlas.training.teacher import Change, Teacher, load_teacher, source_with, told, value_fault

KEY = "distill.teacher"
TRIED = 2
"""Training images that are sent through both networks before a run begins."""


def build_parts(config: Config, *, dry: bool = False) -> TrainingComponents:
    """Build the parts of a run with a teacher; every fault of it is raised here, before a run exists.

    Raises what `building.build_parts` and `load_teacher` raise, and ConfigError where a term is on maps that one of the
    two networks does not have.
    """
    parts, given = building.build_parts(config, dry=dry), config.distill
    assert given is not None
    stream = SampleStream(parts.train, parts.pipeline, config.seed, copy_paste_of(config.transforms))
    sample = collate([stream[(0, index)] for index in range(min(TRIED, config.train.batch_size, len(parts.train)))])
    height, width = sample.inputs.image.shape[-2:]
    with told_with_key(KEY, given.teacher):
        teacher = load_teacher(
            given.teacher,
            run=config.run.dir,
            student=parts.card,
            by=given.classes,
            on_classes=any(term.on == LOGITS for term in given.terms),
            batch=(min(config.train.batch_size, len(parts.train)), (height, width)),
            crop=config.transforms.crop_size,
            device=resolve_device(config.train.device),
        )
        depth, fault = value_fault(parts.train, teacher.card.preprocessing, given.max_value)
        if fault:
            raise UsageError(fault)
    change = Change(
        student=parts.card.preprocessing, teacher=teacher.card.preprocessing, depth=depth, stated=given.max_value
    )
    terms = _compared(given, parts.net, teacher)
    precision = "fp32" if config.train.precision == "fp32" else "bf16"
    shapes, lines = _looked_at(terms, parts.net, teacher, change, sample, precision)
    channels = {
        pair: (ours[0], theirs[0])
        for one in terms
        if isinstance(one.term, ChannelWise)
        for pair, (ours, theirs) in shapes.items()
        if pair in one.pairs and ours[0] != theirs[0]
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        criterion = Distillation(
            parts.criterion, terms=terms, teacher=teacher, change=change, channels=channels, precision=precision
        )
    lines = [told(teacher), *lines, *_scale_told(config, teacher)]
    for line in lines:
        LOGGER.info("%s", line)
    notices = (*parts.notices, *lines) if dry else parts.notices
    return replace(parts, criterion=criterion, card=source_with(parts.card, teacher), notices=notices)


def _compared(given: DistillConfig, net: nn.Module, teacher: Teacher) -> tuple[ComparedTerm, ...]:
    """Return the terms with the pairs of maps that they are on, and have the teacher's taken."""
    found, problems = [], []
    for index, term in enumerate(given.terms):
        key = f"distill.terms.{index}"
        try:
            if term.on == FEATURES:
                pairs = _common(net, teacher.net)
            elif term.on == LOGITS:
                pairs = (Pair(LOGITS, LOGITS),)
            else:
                pairs = (Pair(term.on, term.teacher_on or term.on),)
                check_name(net, term.on)
                key = f"{key}.teacher_on" if term.teacher_on else key
                check_name(teacher.net, term.teacher_on or term.on)
        except UsageError as error:
            key = key if key.endswith("on") else f"{key}.on"
            problems.append(Problem(key=key, got=term.on, message=str(error)))
            continue
        found.append(ComparedTerm(term=term, pairs=pairs))
    if problems:
        raise ConfigError("recipe", problems)
    pairs = tuple(pair for one in found for pair in one.pairs)
    teacher.maps = tuple(dict.fromkeys(pair.teacher for pair in pairs if pair.teacher != LOGITS))
    return tuple(found)


def _common(net: nn.Module, teacher: nn.Module) -> tuple[Pair, ...]:
    """Return the maps of both encoders at the strides that both have."""
    ours, theirs = encoder_strides(net), encoder_strides(teacher)
    pairs = tuple(Pair(f"{FEATURES}.{stride}", f"{FEATURES}.{stride}") for stride in ours if stride in theirs)
    if not pairs:
        strides = [", ".join(map(str, one)) or "none" for one in (ours, theirs)]
        raise UsageError(
            f"no common feature: strides of the student's encoder {strides[0]}, of the teacher's {strides[1]}; name a "
            f"map of each with on and teacher_on, or take '{DECODED}' or '{LOGITS}'"
        )
    return pairs


Shapes = Mapping[Pair, tuple[tuple[int, int, int], tuple[int, int, int]]]
"""Of each pair of maps the (C, h, w) of the student's and of the teacher's."""


def _looked_at(
    terms: Sequence[ComparedTerm], net: nn.Module, teacher: Teacher, change: Change, sample: Batch, precision: str
) -> tuple[Shapes, list[str]]:
    """Send training images through both networks; return the shapes of what is compared, and a line on each.

    Raises ConfigError where something named is no map over the image.
    """
    assert isinstance(sample.targets, Tensor)
    shapes: dict[Pair, tuple[tuple[int, int, int], tuple[int, int, int]]] = {}
    lines = []
    wanted = dict.fromkeys(pair.student for one in terms for pair in one.pairs if pair.student != LOGITS)
    with told_with_key("distill.terms", ""):
        theirs, their_maps = teacher.run(change.apply(sample.inputs.image, sample.targets), precision)
        was_training = net.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]), taken(net.eval(), tuple(wanted)) as maps:
            ours = net(sample.inputs)
        net.train(was_training)
        assert isinstance(ours, SemanticLogits)
        for one in terms:
            for pair in one.pairs:
                own = ours.logits if pair.student == LOGITS else maps[pair.student]
                other = theirs.logits if pair.teacher == LOGITS else their_maps[pair.teacher]
                found = (_shape(pair.student, own, ours.canvas), _shape(pair.teacher, other, theirs.canvas))
                shapes[pair] = found
                named = pair.student if pair.student == pair.teacher else f"{pair.student} and {pair.teacher}"
                sizes = [" x ".join(map(str, shape)) for shape in found]
                lines.append(f"{one.label}: {named}, student {sizes[0]}, teacher {sizes[1]}")
    lines.append(f"the teacher runs in its {'fast' if teacher.in_fast_form else 'plain'} form, {teacher.precision}")
    return shapes, lines


def _shape(name: str, maps: Tensor, canvas: Size) -> tuple[int, int, int]:
    channels, height, width = maps.shape[1:]
    if not covers((height, width), canvas):
        raise UsageError(
            f"{name}: it gives a tensor of shape {tuple(maps.shape)}, which covers no grid of {canvas[0]}x{canvas[1]} "
            "pixels with its channels first; take another layer"
        )
    return channels, height, width


def _scale_told(config: Config, teacher: Teacher) -> list[str]:
    theirs = teacher.card.preprocessing.resize
    if theirs is None or theirs == config.transforms.resize:
        return []
    return [f"the teacher predicts images resized to {theirs}; here it sees the student's crops as they are"]
