"""A fault in a network is named by the one rule that is meant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.models.architecture import Architecture
from segatlas.structures import Inputs, SemanticLogits, image_of
from segatlas.testing import MODEL_RULES, BrokenRules, check_model


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """num_classes: K. in_channels: C."""

    num_classes: int
    in_channels: int = 3


class Tiny(nn.Module):
    """A network of two convolutions, logits at stride 4, for faults to be planted into."""

    def __init__(self, config: TinyConfig):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(config.in_channels, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8))
        self.classifier = nn.Conv2d(8, config.num_classes, 1)

    def decode(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x).relu()
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        x = image_of(inputs)
        return SemanticLogits(self.classifier(self.decode(x)), canvas=(x.shape[-2], x.shape[-1]))


def record(build: Callable[[Any], nn.Module]) -> Architecture:
    return Architecture(
        name="tiny",
        title="Tiny",
        paper="",
        tasks=("semantic",),
        output=SemanticLogits,
        config=TinyConfig,
        build=build,
    )


class WrongStride(Tiny):
    def forward(self, inputs):
        out = super().forward(inputs)
        return out._replace(logits=out.logits[:, :, : -(-out.logits.shape[2] // 2)])


class WrongCanvas(Tiny):
    def forward(self, inputs):
        out = super().forward(inputs)
        return out._replace(canvas=(out.canvas[0] - 1, out.canvas[1]))


class IgnorePredicted(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.classifier = nn.Conv2d(8, 256, 1)


class KeepsState(Tiny):
    calls = 0

    def decode(self, x):
        self.calls += 1
        return super().decode(x) * (1 + self.calls / 10)


class UnusedParameter(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.spare = nn.Conv2d(8, 8, 1)


class RandomInEval(Tiny):
    def decode(self, x):
        return F.dropout(super().decode(x), training=True)


class ChangesItsInput(Tiny):
    def decode(self, x):
        return super().decode(x.mul_(0.5))


class DoubleOutput(Tiny):
    def forward(self, inputs):
        out = super().forward(inputs)
        return out._replace(logits=out.logits.double())


class EvenSizesOnly(Tiny):
    def decode(self, x):
        return super().decode(x.unflatten(3, (-1, 2)).flatten(3))


class LooksAtTheBatch(Tiny):
    def decode(self, x):
        return super().decode(x / x.std())


class UnsavedNumber(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.rand(())

    def decode(self, x):
        return super().decode(x) * self.scale


class NotFinite(Tiny):
    def decode(self, x):
        out = super().decode(x)
        return out / (out.amin(1, keepdim=True) * 0)


class AuxInEval(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.aux_head = nn.Conv2d(8, config.num_classes, 1)

    def forward(self, inputs):
        out = super().forward(inputs)
        return out._replace(aux={"fcn": self.aux_head(self.decode(image_of(inputs)))})


class UnlistedAux(AuxInEval):
    def forward(self, inputs):
        out = super().forward(inputs)
        return out._replace(aux={"edges": out.aux["fcn"]} if self.training else {})


class OtherOutput(Tiny):
    def forward(self, inputs):
        return super().forward(inputs).logits


class NoEncoder(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.backbone = self.encoder
        del self.encoder

    def decode(self, x):
        return self.backbone(x).relu()


class ThreeChannelsOnly(Tiny):
    def __init__(self, config):
        super().__init__(replace(config, in_channels=3))


class NeedsTwoImages(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.norm = nn.BatchNorm2d(8)

    def decode(self, x):
        out = super().decode(x)
        return out + self.norm(out.mean((2, 3), keepdim=True))


class TakesTensorsOnly(Tiny):
    def forward(self, inputs):
        return super().forward(inputs if isinstance(inputs, Tensor) else inputs.image * 2)


class LooksAtTheSize(Tiny):
    def decode(self, x):
        return super().decode(F.pad(x, (0, 1)) if x.shape[3] % 2 else x)


FAULTS = {
    WrongStride: "stride",
    WrongCanvas: "canvas",
    IgnorePredicted: "classes",
    KeepsState: "no_state",
    UnusedParameter: "gradients",
    RandomInEval: "no_randomness",
    ChangesItsInput: "untouched_inputs",
    DoubleOutput: "dtype",
    EvenSizesOnly: "any_size",
    LooksAtTheBatch: "one_by_one",
    UnsavedNumber: "saved",
    NotFinite: "finite",
    AuxInEval: "no_aux_in_eval",
    UnlistedAux: "aux_names",
    OtherOutput: "runs",
    NoEncoder: "parts",
    ThreeChannelsOnly: "channels",
    NeedsTwoImages: "one_image_trains",
    TakesTensorsOnly: "inputs_record",
}
"""Network with a fault -> the rule that names it."""


def test_a_network_without_a_fault_keeps_all_rules():
    check_model(record(Tiny), slow=True)


@pytest.mark.parametrize("network", FAULTS)
def test_a_fault_is_named_by_the_one_rule_that_is_meant(network):
    with pytest.raises(BrokenRules) as caught:
        check_model(record(network))
    assert [broken.rule for broken in caught.value.breaches] == [FAULTS[network]], caught.value
    assert f"tiny breaks 1 rule:\n  {FAULTS[network]}: " in str(caught.value)


def test_a_task_that_its_output_has_no_results_for_is_named():
    with pytest.raises(BrokenRules, match=r"record: .*\n.*SemanticLogits has no results for task panoptic"):
        check_model(replace(record(Tiny), tasks=("semantic", "panoptic")))


def test_two_faults_are_told_together_and_rules_can_be_chosen():
    class Two(UnusedParameter, AuxInEval):
        pass

    with pytest.raises(BrokenRules, match="tiny breaks 2 rules:") as caught:
        check_model(record(Two))
    assert [broken.rule for broken in caught.value.breaches] == ["no_aux_in_eval", "gradients"]
    check_model(record(Two), only=("stride",))
    check_model(record(Two), skip=("no_aux_in_eval", "gradients"))
    with pytest.raises(UsageError, match="unknown rule - did you mean 'stride'"):
        check_model(record(Tiny), only=("strides",))


def test_a_check_leaves_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_model(record(Tiny), only=("no_randomness", "saved"))
    assert torch.equal(torch.rand(1), expected)


def test_each_rule_has_a_sentence_and_needs_only_earlier_ones():
    names: list[str] = []
    for rule in MODEL_RULES:
        assert rule.text.endswith("."), rule.name
        assert set(rule.needs) <= set(names), rule.name
        names.append(rule.name)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("other", ["unet", nn.Module])
def test_what_is_no_record_is_refused(other):
    with pytest.raises(UsageError, match=r"architecture: got .*, expected the Architecture that a network's file ends"):
        check_model(other)


def test_a_network_whose_way_depends_on_the_size_exports_for_one_size_only_and_says_so_with_a_reason():
    fixed = record(LooksAtTheSize)
    check_model(fixed, only=("exports",))
    with pytest.raises(BrokenRules, match="tiny breaks 1 rule:\n  exports_dynamic: "):
        check_model(fixed, only=("exports", "exports_dynamic"))
    check_model(
        replace(fixed, exports_dynamic=False, not_dynamic_because="It tells odd sizes from even ones."),
        only=("record", "exports_dynamic"),
    )
    with pytest.raises(BrokenRules, match="exports_dynamic=False and not_dynamic_because go together"):
        check_model(replace(fixed, exports_dynamic=False), only=("record",))
