"""Every number that is printed or stored carries its definition."""

from __future__ import annotations

import numpy as np

from segatlas.metrics import DEFINITIONS, SemanticMetrics


def test_every_number_has_a_definition_and_every_definition_a_number() -> None:
    metrics = SemanticMetrics(["a", "b"])
    metrics.update(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    scores = metrics.compute()
    names = set(scores.summary()) | set(scores.per_class()[0]) - {"class"}
    assert names | {"image_miou"} == set(DEFINITIONS)


def test_definitions_are_single_sentences() -> None:
    for name, text in DEFINITIONS.items():
        assert text.endswith("."), name
        assert ". " not in text, name
