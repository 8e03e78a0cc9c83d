"""Networks of other libraries, filled by a rule of names and shapes, give the same logits when imported.

The digests are made by the libraries themselves, see `tools/make_goldens.py`; no library is needed here.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from fakes.golden_cases import GOLDENS, golden_differences

from segatlas.build.network import build_empty, make_config


def size(name: str) -> int:
    """Return a golden's parameters times its pixels."""
    case = GOLDENS[name][1]
    parameters = sum(p.numel() for p in build_empty(*make_config(case["architecture"], case["fields"])).parameters())
    return parameters * case["size"][0] * case["size"][1]


def networks() -> list[Any]:
    """Return each golden for a parameter: the smallest of a library and architecture is for every run; others slow."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, (source, case) in GOLDENS.items():
        kinds.setdefault((source, case["architecture"]), []).append(name)
    shown = {names[0] if len(names) == 1 else min(names, key=size) for names in kinds.values()}
    return [
        pytest.param(source, case, id=name, marks=[] if name in shown else [pytest.mark.slow])
        for name, (source, case) in GOLDENS.items()
    ]


NETWORKS = networks()


@pytest.mark.parametrize(("source", "case"), NETWORKS)
def test_logits_have_the_digest_of_the_librarys_own_network(source, case):
    assert golden_differences(source, case) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda case: case.update(names_crc=1), "no importer gives the library's names"),
        (lambda case: case["logits"].update(mean=case["logits"]["mean"] + 1e-5 * case["logits"]["absmax"]), "mean: "),
        (lambda case: case["logits"].update(shape=[1, 1, 1, 1]), "expected [1, 1, 1, 1]"),
        (lambda case: case["logits"].update(at={"999999999": 0.0}), "at 999999999: None"),
    ],
)
def test_the_comparison_names_what_is_not_as_the_library_had_it(change, named):
    source, case = next((source, case) for source, case in GOLDENS.values() if source == "torchvision")
    changed = copy.deepcopy(case)
    change(changed)
    [told] = golden_differences(source, changed)
    assert named in told


def test_every_architecture_with_a_golden_has_one_in_every_run():
    quick = {(source, case["architecture"]) for source, case in (p.values for p in NETWORKS if not p.marks)}
    assert quick == {(source, case["architecture"]) for source, case in GOLDENS.values()}
    assert len(NETWORKS) == len(GOLDENS)


def test_every_library_with_a_reference_has_a_golden():
    assert {source for source, _ in GOLDENS.values()} >= {"mmseg", "torchvision", "hf", "smp"}
