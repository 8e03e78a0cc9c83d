from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from segatlas.config.losses import LossTerm
from segatlas.criteria import Criterion
from segatlas.errors import UsageError
from segatlas.losses import CrossEntropy, Dice
from segatlas.ops import raise_logits
from segatlas.structures import Resample, SemanticLogits


def term(name: str, **fields) -> LossTerm:
    return TypeAdapter(LossTerm).validate_python({"name": name, **fields})


BILINEAR = Resample()


def make(aux: tuple[str, ...] = (), resample: Resample = BILINEAR) -> tuple[SemanticLogits, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = {name: torch.randn((2, 3, 2, 3), generator=generator) for name in aux}
    output = SemanticLogits(torch.randn((2, 3, 4, 5), generator=generator), (16, 20), resample, heads)
    return output, torch.randint(0, 3, (2, 13, 18), generator=generator).to(torch.uint8)


def test_total_is_the_weighted_sum_of_the_lines():
    output, labels = make(("fcn",))
    criterion = Criterion([term("cross_entropy"), term("dice", weight=0.5), term("dice", on="aux.fcn", weight=0.4)])
    total, parts = criterion(output, labels)
    main = CrossEntropy()(output.logits, labels, output.canvas)
    dice = Dice()(output.logits, labels, output.canvas)
    aux = Dice()(output.aux["fcn"], labels, output.canvas)
    torch.testing.assert_close(total, main + 0.5 * dice + 0.4 * aux)
    assert parts == {"cross_entropy": main, "dice": dice, "aux.fcn.dice": aux}


def test_gradient_reaches_every_target_and_parts_carry_none():
    output, labels = make(("fcn",))
    output.logits.requires_grad_()
    output.aux["fcn"].requires_grad_()
    total, parts = Criterion([term("cross_entropy"), term("cross_entropy", on="aux.fcn")])(output, labels)
    total.backward()
    assert output.logits.grad.abs().sum() > 0
    assert output.aux["fcn"].grad.abs().sum() > 0
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("resample", [Resample("bilinear", True), Resample("nearest", False)])
def test_logits_are_raised_as_the_network_says(resample):
    output, labels = make(resample=resample)
    full = raise_logits(
        output.logits, (13, 18), canvas=output.canvas, mode=resample.mode, align_corners=resample.align_corners
    )
    expected = torch.nn.functional.cross_entropy(full, labels.long())
    torch.testing.assert_close(Criterion([term("cross_entropy")])(output, labels)[0], expected)


def test_equal_lines_get_names_of_their_own():
    output, labels = make(("fcn",))
    lines = [term("dice"), term("dice", smooth=5), term("dice", on="aux.fcn"), term("dice", smooth=9)]
    _, parts = Criterion(lines)(output, labels)
    assert list(parts) == ["dice", "dice.2", "aux.fcn.dice", "dice.3"]


def test_a_missing_head_is_named_with_those_there_are():
    output, labels = make(("fcn", "edge"))
    criterion = Criterion([term("cross_entropy", on="aux.fcm")])
    with pytest.raises(UsageError, match=r"no 'aux.fcm'; it has: logits, aux.fcn, aux.edge; did you mean 'aux.fcn'"):
        criterion(output, labels)
    with pytest.raises(UsageError, match="no auxiliary heads"):
        criterion(make()[0], labels)


def test_in_eval_mode_lines_on_missing_heads_are_left_out():
    output, labels = make()
    criterion = Criterion([term("cross_entropy"), term("dice", on="aux.fcn")]).eval()
    total, parts = criterion(output, labels)
    assert list(parts) == ["cross_entropy"]
    assert total == parts["cross_entropy"]
    with pytest.raises(UsageError, match="eval mode"):
        Criterion([term("dice", on="aux.fcn")]).eval()(output, labels)


def test_auto_class_weights_reach_the_lines_that_ask():
    output, labels = make()
    weights = [0.2, 1.0, 3.0]
    _, parts = Criterion([term("cross_entropy", class_weights="auto"), term("cross_entropy")], weights)(output, labels)
    weighted = CrossEntropy(class_weights=torch.tensor(weights))(output.logits, labels, output.canvas)
    assert parts["cross_entropy"] == weighted
    assert parts["cross_entropy.2"] == CrossEntropy()(output.logits, labels, output.canvas)


def test_what_cannot_be_served_is_refused():
    output, labels = make()
    with pytest.raises(UsageError, match="at least one"):
        Criterion([])
    with pytest.raises(UsageError, match="panoptic"):
        Criterion([term("dice")], task="panoptic")
    with pytest.raises(UsageError, match="'auto'"):
        Criterion([term("dice", class_weights="auto")])
    with pytest.raises(UsageError, match="tuple"):
        Criterion([term("dice")])((output.logits,), labels)
