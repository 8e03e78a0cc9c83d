"""Golden digests of importers: what the libraries' own networks compute, so that tests need no library.

    python tools/make_goldens.py --peers /path/to/reference/bin/python [KEY ...]

Run it in the project's environment. For every case of CASES that has no golden yet (or for those named, anew) it starts
this file in the reference environment. There the library's network is built, filled by the rule of
`tests/fakes/golden.py` under its own names and run in float64; names, settings and a digest of the logits come back.
Here the importer's config fields are read from them, and all goes to `tests/weights/importers/goldens/SOURCE.json`,
which `tests/weights/importers/test_goldens.py` compares with ours.

KEY names a network as `../shared/parity/ref_models.py` does (SEGATLAS_SHARED: where that folder is), e.g.
`mm:fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024` or `smp.Unet@resnet18`. One line in CASES makes a case: key, size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "weights" / "importers" / "goldens"
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch  # noqa: E402
from fakes.golden import digest, filled, golden_input, names_crc  # noqa: E402

SMALL = (64, 96)

CASES: tuple[tuple[str, tuple[int, int]], ...] = (
    ("mm:fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024", SMALL),
    ("segformer_b0", SMALL),
    ("hf.Segformer", SMALL),
    ("smp.Unet@resnet18", SMALL),
    ("smp.Unet@mobilenet_v2", (61, 93)),
    ("smp.Unet@mit_b0", (61, 93)),
)
"""(key, size of the picture). Sizes that are no multiple of the stride where the library takes them."""

USELESS = ("init_cfg", "train_cfg", "data_preprocessor", "pretrained", "loss_decode", "sampler")
"""Settings of MMSegmentation that say nothing about the network in eval mode."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keys", nargs="*", help="cases to make anew; default: those without a golden")
    parser.add_argument("--peers", help="Python of the reference environment")
    parser.add_argument("--peer", nargs=3, metavar=("KEY", "HxW", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        write_peer(*args.peer)
        return
    if not args.peers:
        parser.error("--peers is needed")
    known = {case["key"] for path in GOLDENS.glob("*.json") for case in json.loads(path.read_text(encoding="utf-8"))}
    for key, size in CASES:
        if key in args.keys or (not args.keys and key not in known):
            print(key, "->", make_case(key, size, args.peers))


def make_case(key: str, size: tuple[int, int], peers: str) -> str:
    """Make one golden and store it; return the file and what was recognised."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "peer.json"
        place = f"{size[0]}x{size[1]}"
        subprocess.run([peers, __file__, "--peer", key, place, str(file)], check=True, stdout=subprocess.DEVNULL)
        peer = json.loads(file.read_text(encoding="utf-8"))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in peer["tensors"].items()}
    source, case = recognised(tensors, own_settings(peer["settings"]))
    case = {"key": key, "size": list(size), **case, "names_crc": names_crc(tensors), "logits": peer["logits"]}
    path = GOLDENS / f"{source}.json"
    cases = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    cases = [other for other in cases if other["key"] != key] + [case]
    path.write_text(json.dumps(sorted(cases, key=lambda c: c["key"]), indent=1) + "\n", encoding="utf-8")
    return f"{path.name}: {case['architecture']} {case['fields']}"


def recognised(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the source, and architecture, fields and settings of a case."""
    from segatlas.weights.converting import recognise

    found = recognise(tensors, settings)
    if len(found) != 1:
        raise SystemExit(f"{len(found)} importers fit, expected one")
    importer, fields = found[0].importer, dict(found[0].fields)
    return importer.source, {"architecture": importer.architecture, "fields": fields, "settings": settings}


def own_settings(peer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that an importer would read, without what it never looks at."""
    if "text" in peer:
        from segatlas.weights.importers.mmseg.settings import read_settings

        return {"model": pruned(read_settings(peer["text"])["model"])}
    return {key: value for key, value in peer.get("json", {}).items() if key not in ("id2label", "label2id")}


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if key not in USELESS}
    return [pruned(item) for item in value] if isinstance(value, list) else value


@torch.no_grad()
def write_peer(key: str, size: str, file: str) -> None:
    """In the reference environment: build, fill, run, write what came out."""
    sys.path.insert(0, str(SHARED / "parity"))
    import ref_models

    ref = ref_models.build(key, seed=0)
    state = ref.model.state_dict()
    model = ref.model.double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(filled(name, tuple(tensor.shape)))
    height, width = map(int, size.split("x"))
    logits = peer_logits(ref, golden_input((1, 3, height, width)))
    settings: dict[str, Any] = {}
    if hasattr(ref, "cfg"):
        settings = {"text": ref.cfg.pretty_text}
    elif key.startswith("hf."):
        settings = {"json": model.config.to_dict()}
    tensors = {name: list(tensor.shape) for name, tensor in state.items()}
    payload = {"tensors": tensors, "settings": settings, "logits": digest(logits)}
    Path(file).write_text(json.dumps(payload, default=str), encoding="utf-8")


def peer_logits(ref: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the network's logits before any resize (torchvision resizes inside)."""
    if not hasattr(ref, "cfg"):
        out = ref.logits(x)
        return out["out"] if isinstance(out, dict) else out
    ref.run(x)
    # PointRend ends in point-wise heads: its only map-like raw output is the coarse one
    out = ref.outs[0] if "PointHead" in str(ref.cfg.model.decode_head) else ref.outs[-1]
    return out[0] if isinstance(out, tuple) else out


if __name__ == "__main__":
    main()
