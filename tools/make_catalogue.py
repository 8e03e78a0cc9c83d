"""Write src/segatlas/hub/catalogue.json from the model indices of MMSegmentation and MMDetection.

    python tools/make_catalogue.py MMSEG/.mim MMDET/.mim      of the installed packages: each holds model-index.yml

Facts only: names, addresses, hashes (the 8 hex digits in a file's name), metrics. Slips of the index are corrected here
and nowhere else. The index gives no sizes: how many numbers a file's network has is counted on our own network, built
with shapes only (the meta device); downloads are bounded by it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.converting import tensors_of
from segatlas.files import whole_file
from segatlas.models.reading import load_architecture

OUT = Path(__file__).resolve().parent.parent / "src/segatlas/hub/catalogue.json"
COLLECTIONS = {
    "fcn": "fcn",
    "pspnet": "pspnet",
    "deeplabv3": "deeplabv3",
    "deeplabv3plus": "deeplabv3plus",
    "upernet": "upernet",
    "ocrnet": "ocrnet",
    "gcnet": "gcnet",
    "isanet": "isanet",
    "nonlocal_net": "nonlocal_net",
    "dnlnet": "dnlnet",
    "psanet": "psanet",
    "fastfcn": "fastfcn",
    "sem_fpn": "semantic_fpn",
    "point_rend": "pointrend",
    "resnest": None,
    "mobilenet_v2": None,
    "stdc": "stdc",
    "hrnet": "fcn",
    "segformer": "segformer",
    "vit": "upernet",
    "mae": "upernet",
    "beit": "upernet",
    "segmenter": "segmenter",
    "setr": "setr",
    "dpt": "dpt",
    "swin": "upernet",
    "convnext": "upernet",
    "segnext": "segnext",
    "poolformer": "semantic_fpn",
    "twins": None,
    "knet": "knet",
    "mask2former": "mask2former",
    "maskformer": "maskformer",
    "ddrnet": "ddrnet",
    "pidnet": "pidnet",
    "bisenetv1": "bisenetv1",
    "bisenetv2": "bisenetv2",
    "fastscnn": "fast_scnn",
    "icnet": "icnet",
    "cgnet": "cgnet",
    "erfnet": "erfnet",
}
"""Folder of the index -> our architecture; None = the entry's second word says which."""

OF_OBJECTS = ("mask2former", "maskformer")
"""Folders of MMDetection's index, which are our architectures."""

ARCHITECTURES = {
    "FCN": "fcn",
    "PSPNet": "pspnet",
    "DeepLabV3": "deeplabv3",
    "DeepLabV3+": "deeplabv3plus",
    "FPN": "semantic_fpn",
    "UPerNet": "upernet",
}
CONFIGS = {
    "twins_svt-l_uperhead_8x2_512x512_160k_ade20k": "twins_svt-l_uperhead_8xb2-160k_ade20k-512x512",
    "bisenetv1_r101-d32_lr5e-3_4x4_512x512_160k_coco-stuff164k": "bisenetv1_r101-d32_4xb4-160k_coco-stuff164k-512x512",
}
"""File -> its config, where the index names another one."""

SHORT_ARCHITECTURE = {"nonlocal_net": "nonlocal", "semantic_fpn": "semantic-fpn"}
FASTFCN_HEADS = {"DeepLabV3": "fastfcn-aspp", "PSPNet": "fastfcn-psp", "EncNet": "fastfcn-enc"}
BACKBONES = {
    "HRNetV2p-W18-Small": "hr18s",
    "HRNetV2p-W18": "hr18",
    "HRNetV2p-W48": "hr48",
    "M-V2-D8": "mobilenetv2",
    "STDC1": "1",
    "STDC2": "2",
    "R-101-D16-MG124": "r101-mg124",
}
DATASETS = {
    "cityscapes": "cityscapes",
    "ade20k": "ade20k",
    "voc12aug": "voc2012",
    "coco-stuff164k": "coco-stuff164k",
    "coco-stuff10k": "coco-stuff10k",
    "pascal-context-59": "pascal-context59",
    "pascal-context": "pascal-context",
    "loveda": "loveda",
    "potsdam": "potsdam",
    "vaihingen": "vaihingen",
    "isaid": "isaid",
    "mapillay": "mapillary",
}
"""What a config's name holds -> name of the dataset; the first that fits."""

ENCODERS = {
    "HRNetV2p-W18-Small": "hrnet_w18_small",
    "HRNetV2p-W18": "hrnet_w18",
    "HRNetV2p-W48": "hrnet_w48",
    "M-V2-D8": "mobilenet_v2_320",
    "STDC1": "stdc1",
    "STDC2": "stdc2",
}
"""What the index calls a backbone -> our encoder; the other names follow a rule, see `encoder_of`."""

NUM_CLASSES = {
    "cityscapes": 19,
    "ade20k": 150,
    "voc2012": 21,
    "coco-stuff164k": 171,
    "coco-stuff10k": 171,
    "pascal-context59": 59,
    "pascal-context": 60,
    "loveda": 7,
    "potsdam": 6,
    "vaihingen": 6,
    "isaid": 16,
    "mapillary": 65,
    "coco-panoptic": 133,
    "coco-instance": 80,
}
WIDTHS = {"resnet18": {"channels": 128, "aux_channels": 64}, "mobilenet_v2": {"aux_channels": 256}}
"""What an encoder's name begins with -> widths of the published heads that are not the usual ones."""
WITHOUT_AUX = ("segformer", "semantic_fpn")
"""Architectures that are published without an auxiliary head; so is what stands on an HRNet, but for OCRNet."""

TRANSFORMERS = (
    "vit",
    "mae",
    "beit",
    "segmenter",
    "setr",
    "dpt",
    "swin",
    "convnext",
    "twins",
    "segnext",
    "poolformer",
    "knet",
    "mask2former",
    "maskformer",
    *("ddrnet", "pidnet", "bisenetv1", "bisenetv2", "fastscnn", "icnet", "cgnet", "erfnet"),
)
"""Folders of transformers and what is named alike; config names tell our variant: `vit_deit-s16_mln_upernet_...`."""

NON_COMMERCIAL = "NVIDIA Source Code License for SegFormer (non-commercial)"
HOST = "download.openmmlab.com"


def main() -> None:
    """Read the indices named on the command line and write the catalogue."""
    folder, of_objects = (Path(word) for word in sys.argv[1:3])
    entries = [entry for name in COLLECTIONS for entry in read_collection(folder, name)]
    entries += [entry for name in OF_OBJECTS for entry in read_objects(of_objects, name)]
    entries.sort(key=lambda entry: (entry["architecture"], entry["file"]))
    by_name: dict[str, dict[str, Any]] = {}
    full = {entry["short"] for entry in entries if "fp16" not in entry["file"]}
    for entry in entries:
        if "fp16" in entry["file"] and entry["short"] in full:
            continue
        best = by_name.setdefault(entry["short"], entry)
        metric = "miou" if "miou" in entry else "pq" if "pq" in entry else "ap"
        if entry[metric] > best[metric]:
            by_name[entry["short"]] = entry
    for entry in entries:
        short = entry.pop("short")
        entry["name"] = short if by_name.get(short) is entry else entry["file"]
    lines = ",\n".join(json.dumps(dict(sorted(entry.items()))) for entry in entries)
    with whole_file(OUT) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{OUT}: {len(entries)} weights, {len(by_name)} short names")


def read_collection(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of one metafile of the index."""
    content = yaml.safe_load((folder / "configs" / name / "metafile.yaml").read_text(encoding="utf-8"))
    for model in content["Models"]:
        words = model["Metadata"]["Architecture"]
        architecture = COLLECTIONS[name] or ARCHITECTURES[words[1]]
        result = model["Results"][0] if isinstance(model["Results"], list) else model["Results"]
        url = re.sub(r"^https://[^/]+/", f"https://{HOST}/", model["Weights"])
        file = re.sub(r"(_\d{8}_\d{6})?-[0-9a-f]{8}\.pth$", "", url.rpartition("/")[2])
        config = CONFIGS.get(file, Path(model["Config"]).stem)
        dataset = next((known for mark, known in DATASETS.items() if mark in config), None)
        if dataset is None:
            raise SystemExit(f"{config}: its name holds no known dataset")
        variant = variant_of(architecture, config) if name in TRANSFORMERS else ""
        yield {
            "short": f"{variant.replace('_', '-')}-{dataset}" if variant else short_name(architecture, words, dataset),
            "architecture": architecture,
            "config": config,
            "file": file,
            "dataset": dataset,
            "numbers": count_of_variant(variant, dataset)
            if variant
            else count_numbers(architecture, words[0], words[-1], dataset),
            "url": url,
            "sha256": re.findall(r"-([0-9a-f]{8})\.pth$", url)[0],
            "miou": float(result["Metrics"]["mIoU"]),
            "miou_ms_flip": result["Metrics"].get("mIoU(ms+flip)"),
            "licence": NON_COMMERCIAL if architecture == "segformer" else "Apache-2.0",
        }


def read_objects(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of one metafile of MMDetection's index: segments where their PQ is stated, else objects."""
    content = yaml.safe_load((folder / "configs" / name / "metafile.yml").read_text(encoding="utf-8"))
    for model in content["Models"]:
        stated = {key: float(value) for result in model["Results"] for key, value in result["Metrics"].items()}
        dataset = "coco-panoptic" if "PQ" in stated else "coco-instance"
        config, url = Path(model["Config"]).stem, re.sub(r"^https://[^/]+/", f"https://{HOST}/", model["Weights"])
        variant = variant_of(name, config)
        if variant == "maskformer_r50":  # with a transformer on its last map
            variant = "maskformer_r50_panoptic"
        yield {
            "short": f"{variant.replace('_', '-')}-{dataset}",
            "architecture": name,
            "config": config,
            "file": re.sub(r"_\d{8}_\d{6}-[0-9a-f]{8}\.pth$", "", url.rpartition("/")[2]),
            "dataset": dataset,
            "numbers": count_of_variant(variant, dataset, "mmdet"),
            "url": url,
            "sha256": re.findall(r"-([0-9a-f]{8})\.pth$", url)[0],
            **({"pq": stated["PQ"]} if "PQ" in stated else {}),
            **({"ap": stated["mask AP"]} if "mask AP" in stated else {}),
            "licence": "Apache-2.0",
        }


def short_name(architecture: str, words: list[str], dataset: str) -> str:
    """Return e.g. pspnet-r50-ade20k; entries that share it are told apart by their file's name."""
    backbone = BACKBONES.get(words[0])
    if backbone is None:
        match = re.fullmatch(r"(R|S|MIT)-(B?\d+b?)(?:-D(\d+))?", words[0])
        assert match, words
        kind = {"R": "r", "S": "s", "MIT": ""}[match[1]]
        usual = architecture == "fastfcn" or match[3] in (None, "8")
        backbone = f"{kind}{match[2].lower()}" + ("" if usual else f"-d{match[3]}")
    if architecture == "stdc":
        return f"stdc{backbone}-{dataset}"
    if architecture == "fastfcn":
        return f"{FASTFCN_HEADS[words[2]]}-{backbone}-{dataset}"
    return f"{SHORT_ARCHITECTURE.get(architecture, architecture)}-{backbone}-{dataset}"


def variant_of(architecture: str, config: str) -> str:
    """Return our variant that a config of a plain transformer is, by its name."""
    heads = re.match(r"segmenter_vit-(.)_(mask|fcn)|setr_vit-l[-_](naive|pup|mla)|dpt_vit-(.)16", config)
    if heads:
        size, decoder, setr, dpt = heads.groups()
        segmenter = f"{size}_linear" if decoder == "fcn" else size
        return f"{architecture}_{segmenter or setr or f'vit_{dpt}'}"
    if architecture == "segnext":
        return config[: len("segnext_mscan-t")].replace("mscan-", "")
    if config.startswith("fpn_poolformer"):
        return f"semantic_{config[: len('fpn_poolformer_s12')]}"
    pyramid = re.match(r"(swin|convnext|beit)-([a-z]+)(?:-patch4-window(\d+))?", config)
    if pyramid:
        kind, size, window = pyramid.groups()
        short = "xl" if size == "xlarge" else size[0]
        return f"{architecture}_{kind}_{short}{'_w12' if window == '12' else ''}"
    twins = re.match(r"twins_(pcpvt|svt)-(.)_", config)
    if twins:
        return f"{architecture}_twins_{twins[1]}_{twins[2]}"
    real_time = re.match(
        r"ddrnet_23(?:-slim)?|pidnet-.|bisenetv1_r\d+|bisenetv2|fast_scnn|icnet_r\d+|cgnet|erfnet", config
    )
    if real_time:
        return real_time[0].replace("-", "_")
    queries = re.match(r"mask2?former_(?:r\d+|swin-.)", config)
    if queries:
        return queries[0].replace("-", "_")
    knet = re.match(r"knet-s3_(r50|swin-.)(?:-d8)?_([a-z0-9]+)_", config)
    if knet:
        return f"{architecture}_{knet[2]}_{knet[1].replace('-', '_')}"
    backbone = re.sub(r"^vit_", "", config.partition("_upernet_")[0]).replace("mae-base", "mae_b16")
    return f"{architecture}_{backbone.replace('-', '_')}"


@cache
def count_of_variant(variant: str, dataset: str, library: str = "mmseg") -> int:
    """Return how many numbers of four bytes the tensors of a published network hold, with what is stored besides."""
    fields: dict[str, Any] = {"num_classes": NUM_CLASSES[dataset]}
    if variant.startswith(("upernet", "setr", "ddrnet", "pidnet", "bisenet", "fast_scnn", "icnet")):
        fields["aux"] = True
    if variant.startswith("knet"):
        fields["host"] = {"aux": True}
    if variant.startswith("setr") and dataset == "cityscapes":
        fields |= {"encoder_options": {"image_size": (768, 768)}}
        fields |= {"aux_convs": 1} if variant == "setr_naive" else {}
    architecture, config = make_config(variant, fields)
    state = build_empty(architecture, config).state_dict()
    theirs = tensors_of(library, architecture.name, config, state)
    return sum(tensor.numel() * tensor.itemsize for tensor in theirs.values()) // 4


@cache
def count_numbers(architecture: str, backbone: str, head: str, dataset: str) -> int:
    """Return how many numbers the tensors of a published network hold, auxiliary heads and statistics included.

    Args:
        architecture: ours.
        backbone, head: first and last word of the index for the network.
        dataset: ours; it says how many classes there are.
    """
    encoder = encoder_of(backbone)
    variants = load_architecture(architecture).variants
    fields = next((dict(given) for given in variants.values() if given["encoder"] == encoder), {"encoder": encoder})
    if architecture == "fastfcn":
        fields = dict(variants[FASTFCN_HEADS[head].replace("-", "_")])
    fields |= next((widths for start, widths in WIDTHS.items() if encoder.startswith(start)), {})
    if architecture == "deeplabv3plus" and encoder.startswith("resnet18"):
        fields["low_channels"] = 12
    has_aux = architecture == "ocrnet" or not (architecture in WITHOUT_AUX or encoder.startswith("hrnet"))
    fields |= {"num_classes": NUM_CLASSES[dataset], **({"aux": True} if has_aux else {})}
    net = build_empty(*make_config(architecture, fields))
    return sum(tensor.numel() for tensor in net.state_dict().values())


def encoder_of(backbone: str) -> str:
    """Return our name of a backbone of the index: R-50-D8 has three convolutions in its stem, R-50b-D8 one."""
    if backbone in ENCODERS:
        return ENCODERS[backbone]
    kind, size = backbone.split("-")[:2]
    if kind == "MIT":
        return f"mit_{size.lower()}"
    if kind == "S":
        return f"resnest{size}"
    return f"resnet{size.removesuffix('b')}" + ("" if size.endswith("b") else "c")


if __name__ == "__main__":
    main()
