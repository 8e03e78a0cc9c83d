from __future__ import annotations

import numpy as np
import pytest

from segatlas.explain.errors_of_pixels import KINDS, RIGHT, pixel_errors

EDGE = 2


def label() -> np.ndarray:
    """Background 0 with two squares, of classes 1 and 2, and a wide strip of class 3."""
    made = np.zeros((80, 100), np.uint8)
    made[10:30, 10:34] = 1
    made[45:65, 12:32] = 2
    made[40:, 60:] = 3
    return made


def confused(prediction: np.ndarray) -> None:
    prediction[10:30, 10:34] = 2


def missed(prediction: np.ndarray) -> None:
    prediction[45:65, 12:32] = 0


def extra(prediction: np.ndarray) -> None:
    prediction[5:25, 70:90] = 1


def shifted(prediction: np.ndarray) -> None:
    prediction[45:65, 12:32] = 0
    prediction[50:70, 18:38] = 2


def ragged(prediction: np.ndarray) -> None:
    draw = np.random.default_rng(0)
    prediction[8:10, 10:34] = draw.integers(0, 2, (2, 24))  # grown in places, holes in others
    prediction[10:12, 10:34] = draw.integers(0, 2, (2, 24))


DAMAGES = {"confused": confused, "missed": missed, "extra": extra, "shifted": shifted, "ragged": ragged}


@pytest.mark.parametrize("kind", KINDS)
def test_each_damage_gives_errors_of_its_kind_alone(kind):
    true = label()
    prediction = true.copy()
    DAMAGES[kind](prediction)
    found = pixel_errors(true, prediction, EDGE)
    wrong = prediction != true
    assert wrong.sum() > 20
    assert (found[wrong] == KINDS.index(kind)).all()
    assert (found[~wrong] == RIGHT).all()


def test_several_damages_in_one_image_stay_apart():
    true = label()
    prediction = true.copy()
    for kind in ("ragged", "missed", "extra"):
        DAMAGES[kind](prediction)
    found = pixel_errors(true, prediction, EDGE)
    assert (found[45:65, 12:32] == KINDS.index("missed")).all()
    assert (found[5:25, 70:90] == KINDS.index("extra")).all()
    edge = found[8:12, 10:34]
    assert set(np.unique(edge)) == {KINDS.index("ragged"), RIGHT}


def test_a_part_of_a_region_taken_for_another_class_is_confused_but_for_its_edge():
    true = label()
    prediction = true.copy()
    prediction[40:, 60:75] = 0  # a wide strip of class 3, beside class 0
    found = pixel_errors(true, prediction, EDGE)
    assert (found[44:, 64:75] == KINDS.index("confused")).all()
    assert (found[40:, 60:62] == KINDS.index("ragged")).all()


def test_every_wrong_pixel_has_exactly_one_kind_and_ignored_ones_have_none():
    draw = np.random.default_rng(1)
    true = np.kron(draw.integers(0, 4, (8, 8)), np.ones((9, 9))).astype(np.uint8)
    prediction = np.roll(true, (2, -3), (0, 1))
    prediction[draw.random(true.shape) < 0.1] = 3
    true[draw.random(true.shape) < 0.1] = 255
    prediction[true == 255] = 255
    found = pixel_errors(true, prediction, EDGE)
    assert ((found != RIGHT) == ((true != prediction) & (true != 255))).all()
    assert found[found != RIGHT].max() < len(KINDS)


def test_a_map_without_a_label_or_without_an_error_has_none():
    true = label()
    assert (pixel_errors(true, true, EDGE) == RIGHT).all()
    nothing = np.full((5, 5), 255, np.uint8)
    assert (pixel_errors(nothing, nothing, EDGE) == RIGHT).all()
