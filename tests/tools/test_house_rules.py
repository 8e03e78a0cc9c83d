"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delitem(sys.modules, "house_rules", raising=False)
    import house_rules

    return house_rules


@pytest.mark.parametrize(
    "text",
    [
        "if task == 'semantic':\n    pass",
        "wanted = cfg.task != 'instance'",
        "found = task in ('semantic', 'panoptic')",
        "found = 'panoptic' == task.name",
        "match task:\n    case 'instance':\n        pass",
    ],
)
def test_a_comparison_with_a_task_s_name_breaks_a_rule_outside_the_rooms_of_tasks(rules, text):
    (found,) = rules.task_breaches("training", text)
    assert "name of a task" in found[1]
    assert [*rules.task_breaches("cli", text)] == [found]
    for room in ("tasks", "criteria", "postprocess", "output", ""):
        assert not [*rules.task_breaches(room, text)]


def test_a_task_s_name_that_is_not_compared_breaks_no_rule(rules):
    assert not [*rules.task_breaches("models", "tasks = ('semantic',)\nif name == 'unet':\n    pass")]


def test_the_name_of_a_score_breaks_a_rule_in_training_and_inference(rules):
    text = "value = scores['miou']"
    for room in ("training", "inference"):
        assert [line for line, _ in rules.task_breaches(room, text)] == [1]
    assert not [*rules.task_breaches("metrics", text)]


def test_a_file_s_room_is_the_folder_or_the_file_below_the_package(rules):
    assert rules.room_of(rules.ROOT / "src/segatlas/training/fit.py") == "training"
    assert rules.room_of(rules.ROOT / "src/segatlas/recipe.py") == "recipe"
    assert rules.room_of(rules.ROOT / "tests/conftest.py") == ""


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("torch._C._select_conv_backend(x)", True),
        ("torch.ops.mkldnn._convolution_pointwise(x)", True),
        ("from torch.nn.modules.batchnorm import _BatchNorm", True),
        ("from torch.utils._pytree import tree_leaves", True),
        ("import torch._dynamo", True),
        ("state = tensor._version", True),
        ("print(torch.__version__)", False),
        ("from torch.nn import functional as F", False),
        ("changed = output._replace(logits=x)", False),
    ],
)
def test_what_torch_does_not_promise_is_found(rules, text, private):
    assert any(rules.is_private_torch(node) for node in ast.walk(ast.parse(text))) is private
