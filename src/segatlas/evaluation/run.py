"""Score a model on a split of a dataset."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segatlas.checkpoint.card import Card
from segatlas.config.encoder_keys import encoder_name
from segatlas.config.schema import EvalConfig
from segatlas.data.dataset import SegmentationData
from segatlas.data.sample import Sample
from segatlas.data.value_range import scale_fault
from segatlas.errors import DataError, UsageError
from segatlas.evaluation.image_counts import ImageCounts
from segatlas.evaluation.labels_seen import LabelsSeen
from segatlas.evaluation.object_cases import ObjectCases
from segatlas.evaluation.report import DataFacts, EvalSettings, ImageScore, Report, ScoredModel
from segatlas.evaluation.source_controls import ControlledSources, read_controls
from segatlas.evaluation.sources import DataSource, EvaluationPlan, make_plan, open_split
from segatlas.inference import Predictor, load, parse_views
from segatlas.inference.images import GivenImage, with_sources
from segatlas.inference.runner import Precision
from segatlas.metrics import MetricSet, Scores, create, load_metric
from segatlas.metrics.metric import Prediction
from segatlas.printable import printable
from segatlas.safe_console import progress_bar
from segatlas.structures import InstancesTarget, SegmentsTarget, Target
from segatlas.tasks import TASKS, Task

LOGGER = logging.getLogger("segatlas")

MOST_NAMED = 12
"""Classes that a warning names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """A model and a split that were opened and found to fit; nothing is predicted yet. See `open_evaluation`.

    path: what the caller named, None for a Predictor. wanted: the recipe's `eval:` with what was asked instead. window:
    the size asked for, None for the card's mode. max_value: the full scale asked for, None for the card's. other_data:
    the data are not those of the model's own run. controls: sources that are left out or shuffled. question: equal for
    two evaluations that ask the same of the same model.
    """

    predictor: Predictor
    path: str | None
    plan: EvaluationPlan
    dataset: SegmentationData
    wanted: EvalConfig
    window: int | tuple[int, int] | None
    max_value: float | None
    other_data: bool
    warnings: tuple[str, ...]
    controls: ControlledSources | None = None

    @property
    def task(self) -> Task:
        """The record of the model's task."""
        return TASKS[self.predictor.card.task]

    @property
    def settings(self) -> EvalSettings:
        """How it predicts and scores."""
        controls = {} if self.controls is None else self.controls.controls
        sources = {name: control.text for name, control in controls.items()}
        return replace(_settings(self.predictor, self.task, self.wanted, self.window), sources=sources)

    @property
    def question(self) -> str:
        """16 hexadecimal digits of model, data, split and settings."""
        path = None if self.path is None else str(Path(self.path).resolve() if Path(self.path).exists() else self.path)
        root = None if self.plan.data.root is None else str(Path(self.plan.data.root).resolve())
        data = self.plan.data.model_dump(mode="json", exclude={"root", "workers", "store", "store_reserve_gb"})
        wanted = self.wanted.model_dump(mode="json")
        asked = [path, root, data, self.plan.seed, wanted, self.window, self.max_value]
        asked += [dict(self.settings.sources)] if self.settings.sources else []
        text = json.dumps([*asked, self.predictor.precision, str(self.predictor.device)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def results(
        self, skipped: list[str], *, skip_bad: bool = False, progress: bool = True, title: str = "evaluating"
    ) -> Iterator[tuple[int, Target, Prediction]]:
        """Predict every image; yield its number, its truth and what was found.

        Args:
            skipped: gets the faults of files that cannot be used, if skip_bad.
            skip_bad: leave them out in place of raising at the first.
            progress: show a bar on stderr.
            title: of the bar.

        Raises:
            DataError: a file that cannot be used, unless skip_bad.
        """
        watch = _ScaleWatch(self.predictor.card.preprocessing.max_value if self.max_value is None else None)
        yield from _results(
            self.predictor,
            self.dataset,
            self.wanted.batch,
            watch,
            skipped,
            skip_bad=skip_bad,
            progress=progress,
            title=title,
            controls=self.controls,
        )
        for warning in watch.warnings():
            LOGGER.warning("%s", warning)

    def new_metrics(self) -> MetricSet:
        """Return the metrics, with nothing counted. UsageError where an option does not fit the classes."""
        return create(self.task.metrics, self.predictor.card.classes, self.wanted.model_dump())

    def score(
        self, *, progress: bool = True, keep_worst: int = 8, skip_bad: bool = False, keep_counts: bool = False
    ) -> Report:
        """Predict every image and compare it with the truth; arguments and errors as in `evaluate`.

        keep_counts: also keep what each image adds to the counts, where the task counts pixels of classes.
        """
        metrics = self.new_metrics()
        kept = ImageCounts.empty(metrics) if keep_counts else None
        start = time.perf_counter()
        watch = _ScaleWatch(self.predictor.card.preprocessing.max_value if self.max_value is None else None)
        cases = ObjectCases(self.predictor.card.classes) if "instances" in self.task.result else None
        seen = LabelsSeen(self.predictor.card.classes, unnamed=self.plan.unnamed)
        images, skipped = self._score(metrics, watch, seen, cases, kept, skip_bad=skip_bad, progress=progress)
        seconds = time.perf_counter() - start
        if not images:
            raise DataError(f"no image of split {self.dataset.split!r} could be scored; first fault: {skipped[0]}")
        scores = metrics.compute()
        return Report(
            scores=scores,
            data=DataFacts(
                name=self.dataset.name,
                split=self.dataset.split,
                images=len(self.dataset),
                root=self.plan.data.root or "",
            ),
            model=_model_facts(self.predictor, self.path),
            settings=self.settings,
            images=tuple(images),
            worst=_worst(images, scores, keep_worst),
            objects={} if cases is None else cases.cases(),
            skipped=tuple(skipped),
            warnings=(*self.warnings, *seen.warnings(), *watch.warnings(), *_lost_classes(scores)),
            seconds=seconds,
            question=self.question,
            counts=kept,
        )

    def _score(
        self,
        metrics: MetricSet,
        watch: _ScaleWatch,
        seen: LabelsSeen,
        cases: ObjectCases | None,
        kept: ImageCounts | None,
        *,
        skip_bad: bool,
        progress: bool,
    ) -> tuple[list[ImageScore], list[str]]:
        """Predict and count every image. Returns each image's own score, and the faults of those left out."""
        skipped: list[str] = []
        scores: list[ImageScore] = []
        results = _results(
            self.predictor, self.dataset, self.wanted.batch, watch, skipped, skip_bad=skip_bad, progress=progress,
            controls=self.controls,
        )  # fmt: skip
        for index, target, result in results:
            seen.look_at(target)
            if kept is None:
                score = metrics.update(result, target)
            else:
                own = self.new_metrics()
                score = own.update(result, target)
                metrics.merge(own.state())
                kept.add(own)
            key = self.dataset.key(index)
            scores.append(ImageScore(key=key, file=str(self.dataset.files(index)[0]), score=score))
            if cases is not None and isinstance(target, InstancesTarget | SegmentsTarget):
                cases.look(key, result, target)
        return scores, skipped


def evaluate(
    model: str | Path | Predictor,
    data: DataSource | None = None,
    split: str | None = None,
    *,
    overrides: Sequence[str] = (),
    tta: str | Sequence[str] | None = None,
    window: int | tuple[int, int] | None = None,
    batch: int | None = None,
    max_value: float | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    offline: bool = False,
    commercial_ok: bool = False,
    boundary: bool | None = None,
    boundary_width: float | None = None,
    sizes: bool | None = None,
    size_bounds: Sequence[float] | None = None,
    small_classes: Sequence[str] | None = None,
    batch_stats: bool | None = None,
    sources: Mapping[str, str] | Sequence[str] = (),
    progress: bool = True,
    keep_worst: int = 8,
    skip_bad: bool = False,
) -> Report:
    """Predict every image of a split and compare it with the truth, in the images' own size.

    Args:
        model: a run folder, model folder, checkpoint, published name (whatever `load` takes), or a Predictor (whose own
            tta, window and batch statistics are put aside for the ones given here). Of a run, the best weights.
        data: a DataConfig, a Config, a recipe's path, or the root of a folder dataset; default: the run's own recipe.
        split: train, val or test; default: the recipe's `eval.split`, else val.
        overrides: "key=value" words for the recipe.
        tta: test-time augmentation, as "flips,scales:0.75,1.25". This and the next Nones: as the recipe's `eval:` says.
        window: predict by sliding windows of this size (h, w); default: the mode of the model's card.
        batch: images in one pass.
        max_value: the stored value that is full scale in these images, where it is not the one the model expects.
        device: auto, cpu, cuda or mps. This and the next three are used where `model` is a path.
        precision: fp32 or bf16.
        offline: download no published weights.
        commercial_ok: refuse weights whose licence is known to forbid commercial use.
        boundary: also boundary IoU and boundary F-score.
        boundary_width: width of the boundary as a fraction of the image's diagonal.
        sizes: also IoU and recall of small, medium and large objects.
        size_bounds: size from which on an object is medium, and large: pixels, or fractions of the image.
        small_classes: also mean IoU and recall of the classes of these names.
        batch_stats: batch norm by the statistics of the images that share a pass, see `Predictor`.
        sources: controls, {"prior": "absent"} or {"prior": "shuffled:1"}, see `source_controls`.
        progress: show a bar on stderr.
        keep_worst: how many of the lowest images the report names.
        skip_bad: report and leave out files that cannot be used, instead of raising at the first.

    Returns the report; `report.skipped` names what was left out.

    Raises:
        UsageError, ConfigError: it is not clear which data, or a fault in the recipe or in an argument.
        DataError: the data do not fit the model, a file cannot be used (unless skip_bad), or none can.
    """
    opened = open_evaluation(
        model,
        data,
        split,
        overrides=overrides,
        tta=tta,
        window=window,
        batch=batch,
        max_value=max_value,
        device=device,
        precision=precision,
        offline=offline,
        commercial_ok=commercial_ok,
        boundary=boundary,
        boundary_width=boundary_width,
        sizes=sizes,
        size_bounds=size_bounds,
        small_classes=small_classes,
        batch_stats=batch_stats,
        sources=sources,
    )
    return opened.score(progress=progress, keep_worst=keep_worst, skip_bad=skip_bad)


def open_evaluation(
    model: str | Path | Predictor,
    data: DataSource | None = None,
    split: str | None = None,
    *,
    overrides: Sequence[str] = (),
    tta: str | Sequence[str] | None = None,
    window: int | tuple[int, int] | None = None,
    batch: int | None = None,
    max_value: float | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    offline: bool = False,
    commercial_ok: bool = False,
    boundary: bool | None = None,
    boundary_width: float | None = None,
    sizes: bool | None = None,
    size_bounds: Sequence[float] | None = None,
    small_classes: Sequence[str] | None = None,
    batch_stats: bool | None = None,
    sources: Mapping[str, str] | Sequence[str] = (),
) -> Evaluation:
    """Open a model and a split and check that they fit, without predicting anything; arguments as in `evaluate`.

    Raises:
        UsageError, ConfigError, WeightsError, DataError: as in `evaluate`, but for what single files hold.
    """
    parse_views(() if tta is None else tta)  # a mistyped word should not wait for the weights
    path = str(model) if isinstance(model, str | Path) else None
    predictor = _open(model, device=device, precision=precision, offline=offline, commercial_ok=commercial_ok)
    controls = read_controls(sources, predictor.card)
    plan = make_plan(path, data, tuple(overrides), predictor.card)
    asked: dict[str, Any] = {"split": split, "batch": batch, "boundary": boundary, "sizes": sizes}
    asked |= {"boundary_width": boundary_width, "batch_stats": batch_stats}
    asked |= {
        "size_bounds": size_bounds and tuple(size_bounds),
        "small_classes": small_classes and tuple(small_classes),
    }
    asked["tta"] = (tta,) if isinstance(tta, str) else None if tta is None else tuple(tta)
    wanted = plan.eval.model_copy(update={name: value for name, value in asked.items() if value is not None})
    dataset, warnings = open_split(plan, wanted.split, predictor.card)
    controlled = ControlledSources(dataset, controls) if controls else None
    warnings += [] if controlled is None else controlled.warnings()
    if small_classes and TASKS[predictor.card.task].target != "SemanticTarget":
        raise UsageError(f"small_classes: they are classes of pixels; the task of this model is {predictor.card.task}")
    opened = Evaluation(
        predictor=_with_options(predictor, wanted, window, max_value),
        path=path,
        plan=plan,
        dataset=dataset,
        wanted=wanted,
        window=window,
        max_value=max_value,
        other_data=data is not None or any(word.startswith("data.") for word in overrides),
        warnings=tuple(warnings),
        controls=controlled,
    )
    opened.new_metrics()  # an option that does not fit the classes is refused now
    return opened


class _ScaleWatch:
    """Notes the ends of the values of all images, by type: one dark image says little about scale, a set does.

    Images that the model takes as further inputs are noted each under its name.
    """

    def __init__(self, max_value: float | None):
        self.max_value = max_value
        self._ends: dict[tuple[str, str], tuple[float, float]] = {}

    def look_at(self, sample: Sample, card: Card) -> None:
        """Take one sample into account."""
        self._note("images", sample.image)
        for spec in card.inputs[1:]:
            if spec.kind == "image" and spec.name in sample.sources:
                self._note(f"source {spec.name}", sample.sources[spec.name].array)

    def _note(self, name: str, image: np.ndarray) -> None:
        """Note the ends of (H, W, C); 8 bits reach their full scale by nature."""
        if image.dtype == np.uint8:
            low, high = 0.0, 255.0
        else:
            low, high = float(image.min()), float(image.max())
        known = self._ends.get((name, image.dtype.name), (low, high))
        self._ends[name, image.dtype.name] = (min(known[0], low), max(known[1], high))

    def warnings(self) -> list[str]:
        """Return what does not fit the model's scale."""
        if self.max_value is None:
            return []
        faults = {key: scale_fault(key[1], *ends, self.max_value) for key, ends in self._ends.items()}
        advice = "--max-value N says which value is full scale"
        return [f"{name}: {fault}; {advice}" for (name, _), fault in faults.items() if fault]


def _open(model: str | Path | Predictor, **options: Any) -> Predictor:
    if isinstance(model, str | Path):
        return load(model, **options)
    if isinstance(model, Predictor):
        return model
    raise UsageError(
        f"model: got a {type(model).__name__}, expected a path, a name or a Predictor; a network alone knows neither "
        "classes nor input: save_pretrained(net, FOLDER, classes=...) makes a folder of it"
    )


def _results(
    predictor: Predictor,
    dataset: SegmentationData,
    batch: int,
    watch: _ScaleWatch,
    skipped: list[str],
    *,
    skip_bad: bool,
    progress: bool,
    title: str = "evaluating",
    controls: ControlledSources | None = None,
) -> Iterator[tuple[int, Target, Prediction]]:
    """Predict every image and yield its number, its truth and what was found; note the faults of those left out."""
    items = _items(dataset, predictor.card, watch, controls)
    with progress_bar(title, total=len(dataset), shown=progress) as bar:
        for (index, target), result in predictor.predict_stream(items, batch=batch):
            if isinstance(result, Exception):
                fault = (
                    result if target is None else DataError(f"cannot be predicted: {result}", dataset.files(index)[0])
                )
                if not skip_bad:
                    raise fault
                skipped.append(str(fault))
            else:
                assert target is not None
                yield index, target, result
            bar.step()


def _items(
    dataset: SegmentationData, card: Card, watch: _ScaleWatch, controls: ControlledSources | None
) -> Iterator[tuple[tuple[int, Target | None], GivenImage | DataError]]:
    """Yield each image under its number and truth; under no truth what is wrong with the sample itself."""
    for index in range(len(dataset)):
        try:
            sample = dataset.load(index)
            if sample.target is None:
                raise DataError("has no mask, so there is nothing to compare with", dataset.files(index)[0])
            if controls is not None:
                sample = controls.applied(sample, index)
        except DataError as error:
            yield (index, None), error
        else:
            watch.look_at(sample, card)
            yield (index, sample.target), with_sources(sample, card)


def _lost_classes(scores: Scores) -> list[str]:
    """Return a warning of the classes that were never predicted though the truth has them."""
    lost = scores.never_predicted
    if not lost:
        return []
    more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
    names = ", ".join(printable(name) for name in lost[:MOST_NAMED])
    return [f"never predicted, though the truth has {'it' if len(lost) == 1 else 'them'}: {names}{more}"]


def _worst(images: Sequence[ImageScore], scores: Scores, count: int) -> tuple[ImageScore, ...]:
    """Return the images with the worst scores of their own, worst first; undefined ones are not among them."""
    defined = [image for image in images if not math.isnan(image.score)]
    sign = 1 if scores.image is None or scores.image.higher_is_better else -1
    return tuple(sorted(defined, key=lambda image: sign * image.score)[:count])


def _with_options(
    predictor: Predictor, wanted: EvalConfig, window: int | tuple[int, int] | None, max_value: float | None
) -> Predictor:
    """Return a predictor of the same network with other options."""
    return Predictor(
        predictor.model,
        predictor.card,
        device=predictor.device,
        precision=predictor.precision,
        tta=wanted.tta,
        window=window,
        max_value=max_value,
        check_scale=False,
        objects=predictor.objects,
        batch_stats=wanted.batch_stats,
    )


def _model_facts(predictor: Predictor, path: str | None) -> ScoredModel:
    card = predictor.card
    return ScoredModel(
        path=path or "(a Predictor)",
        architecture=card.architecture,
        encoder=encoder_name(card.config),
        parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
        source=card.source,
        licence=card.licence,
    )


def _settings(
    predictor: Predictor, task: Task, wanted: EvalConfig, window: int | tuple[int, int] | None
) -> EvalSettings:
    mode = predictor.card.inference
    options = [key for name in task.metrics for key in load_metric(name).options]
    if window is None:
        window = mode.crop if mode.mode == "slide" else None
    return EvalSettings(
        tta=wanted.tta,
        window=(window, window) if isinstance(window, int) else window,
        resize=predictor.card.preprocessing.resize,
        batch=wanted.batch,
        device=str(predictor.device),
        precision=predictor.precision,
        batch_stats=wanted.batch_stats,
        options={key: getattr(wanted, key) for key in options},
    )
