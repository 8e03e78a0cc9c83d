"""Networks of other libraries, filled by a rule of names and shapes, give the same logits when imported.

The digests are made by the libraries themselves, see `tools/make_goldens.py`; no library is needed here.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from fakes.golden import digest, filled_state, golden_input, hollow, names_crc

from segatlas.ops import raise_logits
from segatlas.weights.building import build_empty, make_config
from segatlas.weights.converting import recognise, rename_to_ours, rename_to_theirs
from segatlas.weights.importers import importers
from segatlas.weights.saving import filled

FOLDER = Path(__file__).parent / "goldens"
GOLDENS = {
    f"{path.stem}-{case['key']}-{case['size'][0]}x{case['size'][1]}": (path.stem, case)
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
}
LARGE = 60e6
"""Parameters above which a case is slow."""


def networks() -> list:
    """Each case with our network on the meta device; large ones are marked."""
    cases = []
    for name, (source, case) in GOLDENS.items():
        architecture, config = make_config(case["architecture"], case["fields"])
        large = sum(p.numel() for p in build_empty(architecture, config).parameters()) > LARGE
        cases.append(pytest.param(source, case, id=name, marks=[pytest.mark.slow] if large else []))
    return cases


def plain(config) -> dict:
    """Return a config as JSON has it: a golden's fields come from there."""
    return json.loads(json.dumps(asdict(config)))


@pytest.mark.parametrize(("source", "case"), networks())
def test_logits_have_the_digest_of_the_librarys_own_network(source, case):
    torch.set_num_threads(1)
    architecture, config = make_config(case["architecture"], case["fields"])
    state = hollow(build_empty(architecture, config).state_dict())
    layouts = [rename_to_theirs(importer, config, state) for importer in importers(source, case["architecture"])]
    theirs = next(layout for layout in layouts if names_crc(layout) == case["names_crc"])

    file = filled_state(theirs)
    [found] = recognise(file, case["settings"])
    assert (found.importer.source, found.importer.architecture) == (source, case["architecture"])
    _, recognised = make_config(found.importer.architecture, found.fields)
    assert plain(recognised) == plain(config)
    ours = rename_to_ours(found.importer, recognised, file)
    net = filled(architecture, recognised, ours, where=case["key"], network="ours").double()
    net.load_state_dict(ours)  # in full precision again

    height, width = case["size"]
    with torch.inference_mode():
        out = net(golden_input((1, config.in_channels, height, width)))
    logits, expected = out.logits, case["logits"]
    if list(logits.shape) != expected["shape"]:  # a library that raises inside its network
        mode, align_corners = out.resample
        logits = raise_logits(
            logits, (height, width), canvas=out.canvas, crop=(height, width), align_corners=align_corners, mode=mode
        )
    got = digest(logits)
    assert got["shape"] == expected["shape"]
    tolerance = 1e-6 * expected["absmax"]
    for fact in ("mean", "std", "absmax"):
        assert got[fact] == pytest.approx(expected[fact], rel=0, abs=tolerance), fact
    assert got["at"] == pytest.approx(expected["at"], rel=0, abs=tolerance)


def test_every_library_with_a_reference_has_a_golden():
    assert {source for source, _ in GOLDENS.values()} >= {"mmseg", "torchvision", "hf", "smp"}
