from __future__ import annotations

import pytest
import torch
from fakes.logits import CANVAS, example

from segatlas.criteria.weighted_sum import Criterion
from segatlas.errors import UsageError
from segatlas.losses import CrossEntropy, Dice, PointCrossEntropy
from segatlas.structures import PointLogits, Resample, SemanticLogits


def output(align_corners: bool = False) -> tuple[SemanticLogits, torch.Tensor]:
    logits, labels = example()
    aux = {"fcn": logits.detach().flip(1), "edge": logits.detach()[:, :, :2] * 0.5}
    return SemanticLogits(logits, CANVAS, Resample("bilinear", align_corners), aux), labels


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_total_is_the_weighted_sum_of_the_terms_on_their_targets(align_corners):
    out, labels = output(align_corners)
    criterion = Criterion(
        [
            CrossEntropy(),
            CrossEntropy(on="aux.fcn", weight=0.4),
            Dice(on="aux.edge", weight=3.0),
        ]
    )
    total, values = criterion(out, labels)
    expected = {
        "cross_entropy": CrossEntropy()(out.logits, labels, CANVAS, align_corners),
        "aux.fcn.cross_entropy": CrossEntropy()(out.aux["fcn"], labels, CANVAS, align_corners),
        "aux.edge.dice": Dice()(out.aux["edge"], labels, CANVAS, align_corners),
    }
    assert list(values) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value.detach())
        assert not values[name].requires_grad
    first, second, third = expected.values()
    torch.testing.assert_close(total, first + 0.4 * second + 3.0 * third)
    assert total.ndim == 0
    assert total.requires_grad


def test_a_term_may_be_upsampled_otherwise_than_the_output():
    out, labels = output(align_corners=True)
    total, _ = Criterion([CrossEntropy(on="aux.fcn", align_corners=False)])(out, labels)
    torch.testing.assert_close(total, CrossEntropy()(out.aux["fcn"], labels, CANVAS, False))
    assert total != CrossEntropy()(out.aux["fcn"], labels, CANVAS, True)


def test_terms_that_occur_twice_have_names_of_their_own():
    terms = [Dice(), Dice(smooth=5.0), Dice(on="aux.fcn")] * 2
    _, values = Criterion(terms)(*output())
    assert list(values) == ["dice", "dice_2", "aux.fcn.dice", "dice_3", "dice_4", "aux.fcn.dice_2"]
    assert values["dice"] != values["dice_2"]


def test_a_missing_auxiliary_head_is_named_with_those_there_are():
    criterion = Criterion([CrossEntropy(on="aux.psp")])
    out, labels = output()
    with pytest.raises(UsageError, match=r"aux\.psp.*it has: aux\.fcn, aux\.edge"):
        criterion(out, labels)
    with pytest.raises(UsageError, match=r"aux\.psp.*model\.aux=true"):
        criterion(out._replace(aux={}), labels)


def test_class_weights_come_from_the_term_or_from_the_data():
    out, labels = output()
    numbers = (0.5, 2.0, 1.5, 3.0)
    expected = CrossEntropy()(out.logits, labels, CANVAS, class_weights=torch.tensor(numbers))
    given = Criterion([CrossEntropy(class_weights=numbers)])
    automatic = Criterion([CrossEntropy(class_weights="auto")], {"auto": torch.tensor(numbers)})
    for criterion in (given, automatic):
        torch.testing.assert_close(criterion(out, labels)[0], expected)
        assert not criterion.state_dict()
        assert len(list(criterion.buffers())) == 1


def test_automatic_weights_do_not_touch_terms_without():
    out, labels = output()
    total, _ = Criterion([CrossEntropy()], {"auto": torch.tensor([0.5, 2.0, 1.5, 3.0])})(out, labels)
    torch.testing.assert_close(total, CrossEntropy()(out.logits, labels, CANVAS))


def test_automatic_weights_must_be_given_where_asked_for():
    with pytest.raises(UsageError, match=r"cross_entropy: class_weights is 'auto'"):
        Criterion([CrossEntropy(class_weights="auto")])
    with pytest.raises(UsageError, match=r"cross_entropy: class_weights is 'median_frequency'"):
        Criterion([CrossEntropy(class_weights="median_frequency")], {"auto": torch.ones(4)})


def test_a_wrong_number_of_class_weights_is_an_error():
    with pytest.raises(UsageError, match="3 numbers, but the network has 4 classes"):
        Criterion([Dice(class_weights=(1.0, 2.0, 3.0))])(*output())


def test_no_term_at_all_is_an_error():
    with pytest.raises(UsageError, match="at least one loss"):
        Criterion([])


def test_points_have_a_loss_of_their_own_and_no_other():
    out, labels = output()
    points = PointLogits(torch.randn(2, 4, 6), torch.rand(2, 6, 2))
    out = out._replace(aux={"points": points})
    term = PointCrossEntropy(on="aux.points")
    total, values = Criterion([term])(out, labels)
    torch.testing.assert_close(total, PointCrossEntropy()(points, labels, CANVAS))
    assert list(values) == ["aux.points.point_cross_entropy"]
    with pytest.raises(UsageError, match=r"cross_entropy is on 'aux\.points', which gives PointLogits; it takes a map"):
        Criterion([CrossEntropy(on="aux.points")])(out, labels)
    with pytest.raises(
        UsageError, match=r"point_cross_entropy is on 'logits', which gives a tensor \(2, 4, 4, 5\); it takes logits at"
    ):
        Criterion([PointCrossEntropy()])(out, labels)
