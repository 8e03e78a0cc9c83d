"""Every record says all about the numbers that its class gives, and loads no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fakes.results import semantic_metrics, semantic_pair

from segatlas.metrics import METRICS, Number, create_for_training, load_metric, monitored, monitoring
from segatlas.tasks import TASKS
from segatlas.testing import check_metric


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in TASKS for name in TASKS[task].metrics])
def test_a_metric_keeps_the_rules_of_all(task: str, name: str) -> None:
    record = load_metric(name)
    assert record.name == name
    check_metric(record, target=TASKS[task].target)


@pytest.mark.parametrize("task", TASKS)
def test_the_metrics_of_a_task_have_numbers_of_different_names_and_one_to_rank_by(task: str) -> None:
    names = [name for name in TASKS[task].metrics if name in METRICS]
    numbers = [number.name for name in names for number in load_metric(name).numbers]
    assert len(set(numbers)) == len(numbers)
    assert not names or monitored(names)


def test_training_counts_only_what_it_may_monitor() -> None:
    assert monitoring(TASKS["semantic"].metrics) == ("confusion",)
    assert list(monitored(TASKS["semantic"].metrics)) == ["miou", "pixel_accuracy", "mean_accuracy"]


def test_training_leaves_what_costs_much_to_eval_and_keeps_what_else_the_recipe_says() -> None:
    names = TASKS["instance"].metrics
    scores = create_for_training(names, ["a"], {"boundary": True, "max_detections": 7}).compute()
    assert "at most 7 predictions" in scores.settings[-1]
    (precision,) = (part for part in create_for_training(names, ["a"])._parts if part[0].name == "average_precision")
    assert precision[1].views == ("",)
    assert not {"boundary_ap", "class_agnostic_ap"} & set(monitored(names))


def test_records_are_listed_without_torch() -> None:
    code = "from segatlas.metrics import METRICS, load_metric; [load_metric(n) for n in METRICS]; import sys; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def test_what_was_left_out_is_none_and_what_no_metric_gives_is_an_error() -> None:
    scores = semantic_metrics(["a", "b"], boundary=False).compute()
    assert (scores.boundary_iou, scores.mean_boundary_f) == (None, None)
    assert "mean_boundary_iou" not in scores.definitions
    with pytest.raises(AttributeError, match="no number 'iuo'; there are: miou"):
        _ = scores.iuo


def test_numbers_are_written_by_their_format_and_undefined_ones_as_a_dash() -> None:
    fraction, plain = Number(name="a", definition="A."), Number(name="b", definition="B.", format="plain")
    objects = Number(name="c", definition="C.", format="count", unit="object")
    assert [fraction.text(0.12345), fraction.text(0.12345, 1, unit=False)] == ["12.35 %", "12.3"]
    assert [plain.text(0.12345), plain.text(0.12345, 1)] == ["0.1235", "0.123"]
    assert [objects.text(1), objects.text(2), objects.text(2, unit=False)] == ["1 object", "2 objects", "2"]
    assert [number.text(float("nan")) for number in (fraction, plain, objects)] == ["–"] * 3


def test_options_reach_the_metric_that_takes_them() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    label, prediction = np.kron(generator.integers(0, 2, (2, 10, 10)), np.ones((4, 4))).astype(np.uint8)
    found = []
    for width in (0.02, 0.1):
        metrics = semantic_metrics(["a", "b"], boundary_width=width, split="val")
        metrics.update(*semantic_pair(prediction, label))
        found.append(metrics.compute())
    assert found[0].iou == found[1].iou
    assert found[0].boundary_iou != found[1].boundary_iou
    assert found[1].settings == ("boundary width 10.0 % of the diagonal",)
