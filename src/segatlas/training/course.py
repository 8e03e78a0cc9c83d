"""What a training learns from: labelled pixels, or classes of whole images. All else is the same for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.data.transforms.copy_paste import copy_paste_of
from segatlas.recipe import Config
from segatlas.structures import Batch
from segatlas.tasks import TASKS, TRUTHS
from segatlas.training.building import TrainingComponents, build_parts
from segatlas.training.data_module import SegmentationDataModule
from segatlas.training.finish import finish_run
from segatlas.training.module import SegmentationModule
from segatlas.training.run import RunFolder


@dataclass(frozen=True, kw_only=True)
class Course:
    """The parts of a training that follow from what it learns from.

    build: (recipe, dry=) -> data, network, criterion. module, data: for the trainer. finish: (recipe, folder, val) ->
    the report of the best weights, None where there are none. kept: the run's file or folder that later work begins
    with. sheets: whether images of results are drawn at each validation. truth: what images are learned with, in words.
    first_batch: (recipe, parts, images) -> the first batch of a dry run.
    """

    build: Callable[..., TrainingComponents]
    module: type[SegmentationModule]
    data: type[SegmentationDataModule]
    finish: Callable[[Config, RunFolder, Any], Any]
    kept: Callable[[RunFolder], Path]
    sheets: bool
    truth: str
    first_batch: Callable[[Config, TrainingComponents, int], Batch]


def course_of(config: Config) -> Course:
    """Return the course of a recipe: `pretrain` says that whole images have classes, `semi` that some have nothing."""
    if config.semi is not None:
        from segatlas.training import semi

        return Course(
            build=semi.build_semi_parts,
            module=semi.SemiModule,
            data=semi.SemiDataModule,
            finish=finish_run,
            kept=lambda folder: folder.model,
            sheets=True,
            truth=TRUTHS[TASKS[config.task].target],
            first_batch=_first_batch,
        )
    if config.pretrain is None:
        return Course(
            build=_builder(config),
            module=SegmentationModule,
            data=SegmentationDataModule,
            finish=finish_run,
            kept=lambda folder: folder.model,
            sheets=True,
            truth=TRUTHS[TASKS[config.task].target],
            first_batch=_first_batch,
        )
    from segatlas.training import pretraining

    return Course(
        build=pretraining.build_parts,
        module=pretraining.PretrainingModule,
        data=pretraining.PretrainingDataModule,
        finish=pretraining.finish_run,
        kept=lambda folder: folder.pretrained,
        sheets=False,
        truth="classes of images",
        first_batch=pretraining.first_batch,
    )


def _builder(config: Config) -> Callable[..., TrainingComponents]:
    """Return what builds the parts: with a teacher beside them where the recipe has one."""
    if config.distill is None:
        return build_parts
    from segatlas.training import distilling

    return distilling.build_parts


def _first_batch(config: Config, parts: TrainingComponents, images: int) -> Batch:
    stream = SampleStream(parts.train, parts.pipeline, config.seed, copy_paste_of(config.transforms))
    return collate([stream[(0, index)] for index in range(images)])
