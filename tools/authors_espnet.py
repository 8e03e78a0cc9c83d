"""The published files of ESPNet and ESPNetV2 beside their authors' own code.

    python tools/authors_espnet.py FILES --espnet DIR --edgenets DIR [--images F ...] [--camvid DIR] [--only WORD ...]
    python tools/authors_espnet.py FILES --espnet DIR --edgenets DIR --goldens

FILES is a folder with the authors' files: `espnet_p_2_q_3.pth`, `encoder_espnet_p_2_q_3.pth` (those of their folder
`pretrained/encoder`, renamed), `espnet_p_2_q_8_camvid.pth`, `espnetv2_s_2.0_city_1024x512.pth` and so on. DIR are work
trees of github.com/sacmehta/ESPNet and github.com/sacmehta/EdgeNets. Nothing of either lies in this project.

Each file is converted as `segatlas models convert` does it, and compared in three ways:

- logits of one noise image in the sizes that theirs takes, odd ones among them: the largest difference over the largest
  logit;
- label maps of real images (`--images`, files of Cityscapes): of the same pixels, resized as the card says; and theirs
  of the file as their program resizes it, which has numbers between those of pixels, or takes Pillow's filter;
- `--camvid`: CamVid's test split through `segatlas eval`, beside theirs: ignored pixels left out, and as they count.

`--goldens` writes what their networks compute instead: with weights filled by a rule to
`tests/conversion/importers/goldens`, with their files' to `tests/conversion/importers/espnet_files.json`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")]

from fakes.golden import digest, filled, golden_input, names_crc  # noqa: E402

from make_goldens import GOLDENS, recognised  # noqa: E402
from segatlas.conversion.converting import convert_file  # noqa: E402
from segatlas.data.transforms.warp import resize_image  # noqa: E402
from segatlas.evaluation import evaluate  # noqa: E402
from segatlas.files import sha256, whole_file  # noqa: E402
from segatlas.hub.loading import load_pretrained  # noqa: E402
from segatlas.inference import load  # noqa: E402

DIGESTS = GOLDENS.parent / "espnet_files.json"
DIGEST_SIZE = (64, 96)
CLOSE = 1e-6
"""Largest difference of logits accepted, over the largest logit."""
MEAN, STD = np.float32([72.3923111, 82.90893555, 73.15840149]), np.float32([45.3192215, 46.15289307, 44.91483307])
"""Of blue, green and red of Cityscapes, as ESPNet's program states them."""
SIZES = {"espnet": ((144, 240), (135, 239)), "espnet_c": ((144, 240), (133, 201)), "espnetv2": ((144, 240), (143, 175))}
"""Sizes of the noise: multiples of 8 or 16, and one that is none where theirs takes it."""
CAMVID_MEAN = np.float32([110.25682941, 108.36229848, 104.99073696])
CAMVID_STD = np.float32([72.06398503, 72.65216472, 69.85317193])
"""The same of CamVid, by the rule of their training: the mean over training images of each one's mean and deviation."""
TIE = 1e-3
"""A label whose score is less above the next, over the deviation of all scores, is a tie."""
RESIZED = (1024, 512)
"""Width and height that ESPNet's program resizes images to."""
LABELLED = 11
"""Classes of CamVid; the output behind them is for pixels without a label."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the name of a file tells.

    kind: espnet, espnet_c or espnetv2. outputs: of the classifier. blocks: at stride 8, of ESPNet. scale: of ESPNetV2.
    trained_form: the finest skip is that of their training code. size: (width, height) that images are resized to.
    """

    kind: str
    outputs: int
    blocks: int = 0
    scale: float = 0.0
    trained_form: bool = False
    size: tuple[int, int] = RESIZED


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Work trees of the authors' two repositories."""

    espnet: Path
    edgenets: Path


def published(name: str) -> Published:
    """Return what the name of a file tells."""
    if found := re.fullmatch(r"espnetv2_s_([\d.]+)_(city|pascal)_(\d+)x(\d+)", name):
        size = (int(found[3]), int(found[4]))
        return Published(kind="espnetv2", outputs=20 if found[2] == "city" else 21, scale=float(found[1]), size=size)
    found = re.fullmatch(r"(encoder_)?espnet_p_2_q_(\d)(_camvid)?", name)
    if found is None:
        raise SystemExit(f"{name}: no name of a published file")
    kind, is_camvid = "espnet_c" if found[1] else "espnet", bool(found[3])
    return Published(kind=kind, outputs=12 if is_camvid else 20, blocks=int(found[2]), trained_form=is_camvid)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"authors_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(trees: Trees, facts: Published) -> nn.Module:
    """Build the authors' own network."""
    if facts.kind == "espnetv2":
        if str(trees.edgenets) not in sys.path:
            sys.path.insert(0, str(trees.edgenets))
        module = importlib.import_module("model.segmentation.espnetv2")
        told = argparse.Namespace(s=facts.scale)
        built: nn.Module = module.ESPNetv2Segmentation(told, classes=facts.outputs, dataset="city")
        return built.eval()
    module = _module(trees.espnet / ("train" if facts.trained_form else "test") / "Model.py")
    made = module.ESPNet_Encoder if facts.kind == "espnet_c" else module.ESPNet
    built = made(facts.outputs, 2, facts.blocks)
    return built.eval()


def loaded(trees: Trees, file: Path) -> nn.Module:
    """Build the authors' own network with the weights of a file."""
    net = theirs(trees, published(file.stem))
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=True)
    return net


@torch.no_grad()
def their_logits(net: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of an image in their channel order, before any resize."""
    found: list[Tensor] = []
    last = getattr(net, "bu_dec_l4", net)
    hook = last.register_forward_hook(lambda _, __, out: found.append(out))
    net(x)
    hook.remove()
    return found[0]


def turned(facts: Published, x: Tensor) -> Tensor:
    """Return an RGB image in the order in which the authors' network takes it."""
    return x if facts.kind == "espnetv2" else x.flip(1)


def logit_rows(trees: Trees, file: Path, folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield a line for each size, and whether it is as it should be."""
    facts, net = published(file.stem), loaded(trees, file)
    ours, _ = load_pretrained(folder)
    for size in SIZES[facts.kind]:
        noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        noise = noise / scale_of(facts)
        expected = their_logits(net, turned(facts, noise))
        with torch.no_grad():
            got = ours.eval()(noise).logits
        kept = got.shape[1]
        worst = float((got - expected[:, :kept]).abs().max() / expected.abs().max())
        line = f"{file.stem}  {size[0]}x{size[1]}  {kept} of {expected.shape[1]} outputs  {worst:.1e}"
        yield line, got.shape[2:] == expected.shape[2:] and worst <= CLOSE


def their_input(facts: Published, image: Path) -> Tensor:
    """Return a file as the authors' program gives it to their network, (1, 3, H, W).

    ESPNet's normalises first and resizes numbers, with OpenCV; ESPNetV2's resizes pixels, with Pillow.
    """
    if facts.kind == "espnetv2":
        return normalised(facts, np.asarray(Image.open(image).convert("RGB").resize(facts.size, Image.BILINEAR)))
    stored = cv2.imread(str(image))
    assert stored is not None
    resized = cv2.resize((stored.astype(np.float32) - MEAN) / STD, facts.size) / np.float32(255)
    return _as_batch(resized)


def normalised(facts: Published, pixels: np.ndarray) -> Tensor:
    """Return pixels (H, W, 3) in RGB, of the size that is wanted, as the authors' network takes them."""
    if facts.kind == "espnetv2":
        x = _as_batch(pixels / np.float32(255))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return (x - mean[:, None, None]) / std[:, None, None]
    return _as_batch((pixels[..., ::-1].astype(np.float32) - MEAN) / STD / np.float32(255))


def _as_batch(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))[None]


@torch.no_grad()
def their_scores(net: nn.Module, facts: Published, x: Tensor) -> Tensor:
    """Return the scores (outputs, H, W) of which the authors' program takes the largest."""
    scores: Tensor = net(x)
    if facts.kind == "espnet_c":  # their torch, 0.3, aligned corners in bilinear upsampling
        scores = nn.functional.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=True)
    return scores[0]


def label_rows(trees: Trees, file: Path, folder: Path, image: Path) -> Iterator[tuple[str, bool]]:
    """Yield a line: how many labels of the same pixels are equal, and how many where each resizes the file itself."""
    facts, net = published(file.stem), loaded(trees, file)
    predictor = load(folder, device="cpu")
    kept = len(predictor.card.classes)
    pixels = resize_image(np.asarray(Image.open(image).convert("RGB")), facts.size[::-1])
    scores = their_scores(net, facts, normalised(facts, pixels))[:kept]
    best = scores.topk(2, dim=0)
    is_tie = (best.values[0] - best.values[1] < TIE * scores.std()).numpy()
    labels = predictor.predict(pixels).semantic
    differing = (labels != best.indices[0].numpy()) & ~is_tie
    whole = their_scores(net, facts, their_input(facts, image))[:kept].argmax(0).numpy()
    line = f"{file.stem}  {image.stem}  {kept} classes: {differing.sum()} of {labels.size} labels differ"
    yield f"{line}; {(labels == whole).mean():.2%} equal after their own resize", not differing.any()


def camvid_rows(trees: Trees, file: Path, folders: Sequence[Path], root: Path) -> Iterator[tuple[str, bool]]:
    """Yield the mean IoU of CamVid's test split, theirs and ours, counted in each way.

    Args:
        trees: work trees of the authors' repositories.
        file: the published file for CamVid.
        folders: it converted, as by itself and with every output as a class.
        root: CamVid in SegNet's layout.
    """
    facts, net = published(file.stem), loaded(trees, file)
    counts = their_confusion(net, facts, root)
    eleven, twelve = (
        our_confusion(folder, root, grouping) for folder, grouping in zip(folders, ("segnet", "segnet_12"), strict=True)
    )
    for told, theirs_there, ours_there in (
        ("11 outputs, ignored pixels left out", counts[LABELLED][:LABELLED, :LABELLED], eleven),
        ("12 outputs, ignored pixels left out", counts[facts.outputs][:LABELLED], twelve[:LABELLED]),
        ("12 outputs, ignored pixels counted", counts[facts.outputs], twelve),
    ):
        a, b = mean_iou(theirs_there), mean_iou(ours_there)
        pixels = int(np.abs(theirs_there - ours_there).sum()) // 2
        yield f"{file.stem}  {told}: theirs {a:.4%}, ours {b:.4%}; {pixels} pixels elsewhere", abs(a - b) <= 1e-5


@torch.no_grad()
def their_confusion(net: nn.Module, facts: Published, root: Path) -> dict[int, np.ndarray]:
    """Return pixels by truth and prediction, ignored ones among both, of the first eleven outputs and of all."""
    counts = {outputs: np.zeros((facts.outputs, facts.outputs), np.int64) for outputs in (LABELLED, facts.outputs)}
    for image in sorted((root / "test").iterdir()):
        stored = cv2.imread(str(image))
        assert stored is not None
        truth = np.asarray(Image.open(root / "testannot" / f"{image.stem}.png")).astype(np.int64)
        scores = net(_as_batch((stored.astype(np.float32) - CAMVID_MEAN) / CAMVID_STD / np.float32(255)))[0]
        for outputs, matrix in counts.items():
            codes = facts.outputs * truth + scores[:outputs].argmax(0).numpy()
            matrix += np.bincount(codes.ravel(), minlength=matrix.size).reshape(matrix.shape)
    return counts


def our_confusion(folder: Path, root: Path, grouping: str) -> np.ndarray:
    """Return the same as `segatlas eval` counts it."""
    words = [f"data.root={root}", f"data.grouping={grouping}"]
    report = evaluate(
        folder, "unet_camvid", "test", overrides=words, device="cpu", boundary=False, sizes=False, progress=False
    )
    return report.confusion


def mean_iou(matrix: np.ndarray) -> float:
    """Return the mean IoU of CamVid's eleven classes; rows are the truth."""
    hits = np.diag(matrix)[:LABELLED]
    return float((hits / (matrix.sum(1)[:LABELLED] + matrix.sum(0)[:LABELLED] - hits)).mean())


GOLDEN_CASES = (
    ("espnet", (55, 95), Published(kind="espnet", outputs=5, blocks=1)),
    ("espnet, 20 outputs", (64, 96), Published(kind="espnet", outputs=20, blocks=3)),
    ("espnet, CamVid's form", (64, 96), Published(kind="espnet", outputs=12, blocks=1, trained_form=True)),
    ("espnet_c", (61, 93), Published(kind="espnet_c", outputs=5, blocks=1)),
    ("espnetv2, s = 0.5", (63, 95), Published(kind="espnetv2", outputs=5, scale=0.5)),
    ("espnetv2, s = 1.0, 20 outputs", (128, 160), Published(kind="espnetv2", outputs=20, scale=1.0)),
)
"""Key, size and network of each golden."""


@torch.no_grad()
def write_goldens(trees: Trees) -> None:
    """Fill the authors' networks by the rule of `tests/fakes/golden.py`, run them in float64, keep digests."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, size, facts in GOLDEN_CASES:
        net = theirs(trees, facts).double()
        state = net.state_dict()
        for name, tensor in state.items():
            if tensor.is_floating_point():
                tensor.copy_(filled(name, tuple(tensor.shape)))
        source, told = recognised(state, {})
        logits = their_logits(net, turned(facts, golden_input((1, 3, *size))))
        kept = logits[:, : told["fields"]["num_classes"]]
        golden = {"key": key, "size": list(size), **told, "names_crc": names_crc(state), "logits": digest(kept)}
        found.setdefault(source, []).append(golden)
    for source, goldens in found.items():
        lines = ",\n".join(json.dumps(one) for one in sorted(goldens, key=lambda one: one["key"]))
        with whole_file(GOLDENS / f"{source}.json") as temporary:
            temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{source}.json: {len(goldens)} goldens")


@torch.no_grad()
def write_digests(trees: Trees, files: Sequence[Path]) -> None:
    """Keep of each file its hash, how many parameters its network has, and a digest of its logits in float64."""
    found = {}
    for file in files:
        facts, net = published(file.stem), loaded(trees, file).double()
        logits = their_logits(net, turned(facts, golden_input((1, 3, *DIGEST_SIZE)) / scale_of(facts)))
        found[file.stem] = {
            "sha256": sha256(file),
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "logits": digest(logits),
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in found.items())
    with whole_file(DIGESTS) as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{DIGESTS.name}: {len(found)} files")


def scale_of(facts: Published) -> float:
    """Return what an image of deviation 1 is divided by."""
    return 1 if facts.kind == "espnetv2" else 255


def main(words: Sequence[str] | None = None) -> int:
    """Compare, print a line each, and return 1 where one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, help="folder with the authors' files")
    parser.add_argument("--espnet", type=Path, required=True, help="work tree of the authors' ESPNet")
    parser.add_argument("--edgenets", type=Path, required=True, help="work tree of the authors' EdgeNets")
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="images of Cityscapes")
    parser.add_argument("--camvid", type=Path, help="CamVid in SegNet's layout")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of files")
    parser.add_argument("--goldens", action="store_true", help="write what theirs compute, compare nothing")
    args = parser.parse_args(words)
    trees = Trees(espnet=args.espnet, edgenets=args.edgenets)
    torch.set_num_threads(1)
    files = [file for file in sorted(args.files.glob("*espnet*.pth")) if all(word in file.stem for word in args.only)]
    if args.goldens:
        write_goldens(trees)
        write_digests(trees, files)
        return 0
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            for line, good in rows(trees, file, Path(folder) / file.stem, args.images, args.camvid):
                print(line if good else f"{line}  DIFFERS", flush=True)
                wrong += not good
    print(f"{len(files)} files, {wrong} lines differ")
    return int(wrong > 0 or not files)


def rows(
    trees: Trees, file: Path, folder: Path, images: Sequence[Path], camvid: Path | None
) -> Iterator[tuple[str, bool]]:
    """Yield all lines of a file; both forms of those with an output for pixels without a label."""
    whole = folder.with_name(f"{folder.name}_whole")
    convert_file(file, folder)
    convert_file(file, whole, stated={"last_output": "class"})
    for form in (folder, whole):
        yield from logit_rows(trees, file, form)
        if published(file.stem).outputs == 20:
            for image in images:
                yield from label_rows(trees, file, form, image)
    if camvid is not None and published(file.stem).trained_form:
        yield from camvid_rows(trees, file, (folder, whole), camvid)


if __name__ == "__main__":
    sys.exit(main())
