"""The golden cases of `tests/conversion/importers/goldens`, and how one is compared with our network."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fakes.golden import digest, filled_state, golden_input, hollow, names_crc

from segatlas.build.assembling import filled
from segatlas.build.network import build_empty, make_config
from segatlas.conversion.importers import importers
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import WeightsError
from segatlas.ops import upsample_logits
from segatlas.structures import QueryMasks

FOLDER = Path(__file__).resolve().parent.parent / "conversion" / "importers" / "goldens"
GOLDENS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{path.stem}-{case['key']}-{case['size'][0]}x{case['size'][1]}": (path.stem, case)
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
}
"""Name -> the library and what `tools/make_goldens.py` wrote."""

CLOSE = 1e-6
"""Largest difference of a fact of the logits, in units of the largest logit."""


def golden_differences(source: str, case: dict[str, Any]) -> list[str]:
    """Fill the library's network by the rule, import it, and say what of it is not as the library had it."""
    torch.set_num_threads(1)
    architecture, config = make_config(case["architecture"], case["fields"])
    state = hollow(build_empty(architecture, config).state_dict())
    layouts = []
    for importer in importers(source, case["architecture"]):
        with suppress(WeightsError):  # one layout of a library may be for other encoders than the next
            layouts.append(rename_to_theirs(importer, config, state))
    theirs = next((layout for layout in layouts if names_crc(layout) == case["names_crc"]), None)
    if theirs is None:
        return ["no importer gives the library's names and shapes"]

    file = filled_state(theirs)
    recognised = recognise(file, case["settings"])
    found = [(fit.importer.source, fit.importer.architecture) for fit in recognised]
    if found != [(source, case["architecture"])]:
        return [f"recognised as {found}"]
    _, fields = make_config(case["architecture"], recognised[0].fields)
    ours = rename_to_ours(recognised[0].importer, fields, file)
    net = filled(architecture, fields, ours, where=case["key"], network="ours").double()
    net.load_state_dict(ours)  # in full precision again

    if hasattr(net, "words"):  # what `ref_models.py` tells it
        net.words = range(1, 78)
    height, width = case["size"]
    with torch.inference_mode():
        out = net(golden_input((1, config.in_channels, height, width)))
    differing = [] if plain(fields) == plain(config) else ["other fields of the config were read from the file"]
    for name, of_maps in case.get("maps", {}).items():
        levels = getattr(out, name) if architecture.output is QueryMasks else out.raw[name]
        whole = torch.cat([level.flatten() for level in levels]) if isinstance(levels, tuple) else levels
        if of_maps["shape"] != list(whole.shape):
            whole = whole.flatten()
        differing += [f"{name}: {told}" for told in _unlike(digest(whole), of_maps)]
    if "logits" not in case:
        return differing
    logits, expected = out.logits, case["logits"]
    if list(logits.shape) != expected["shape"]:  # a library that upsamples inside its network
        mode, align_corners = out.resample
        logits = upsample_logits(
            logits, (height, width), canvas=out.canvas, crop=(height, width), align_corners=align_corners, mode=mode
        )
    return differing + _unlike(digest(logits), expected)


def plain(config: Any) -> dict[str, Any]:
    """Return a config as JSON has it: a golden's fields come from there."""
    as_json: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return as_json


def _unlike(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    if got["shape"] != expected["shape"]:
        return [f"shape {got['shape']}, expected {expected['shape']}"]
    limit = CLOSE * expected["absmax"]
    pairs = {fact: (got[fact], expected[fact]) for fact in ("mean", "std", "absmax")}
    pairs |= {f"at {place}": (got["at"].get(place), value) for place, value in expected["at"].items()}
    return [f"{fact}: {a}, expected {b}" for fact, (a, b) in pairs.items() if a is None or not abs(a - b) <= limit]
