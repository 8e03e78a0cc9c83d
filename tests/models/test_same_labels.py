"""An image's labels depend neither on its batch nor on the number of threads."""

from __future__ import annotations

import pytest

from same_labels import compare
from segatlas.models import ARCHITECTURES

QUICK = "gcnet"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.slow]) for name in ARCHITECTURES]
)
def test_an_image_alone_in_a_batch_of_four_and_under_two_threads_gets_the_same_labels(name):
    found = compare(name)
    assert [one.where for one in found] == ["batch of 4, 1 thread", "alone, 2 threads", "batch of 4, 2 threads"]
    assert [one.differing for one in found] == [0, 0, 0]
    assert all(one.ties <= 4 for one in found)
    assert all(one.labels >= 4 * 97 * 129 for one in found)
