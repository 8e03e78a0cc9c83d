"""Recipes that train as MMSegmentation does, beside MMSegmentation: settings, and what both compute.

    PYTHONPATH=src:tools PEERS/bin/python tools/beside_mmsegmentation.py settings rates losses draws scores [--seed 0]

PEERS is the environment that `../shared/parity/ref_env.sh` makes. Results are kept in `docs/from-mmsegmentation.json`,
and the tables of `docs/from-mmsegmentation.md` are written from it. Exits 1 where a number is beyond its limit.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SEGATLAS_SHARED", ROOT.parent / "shared"))
RESULTS, PAGE = ROOT / "docs" / "from-mmsegmentation.json", ROOT / "docs" / "from-mmsegmentation.md"
PAIRS = {
    "fcn_ade20k": "fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512",
    "fcn_cityscapes": "fcn/fcn_r50-d8_4xb2-80k_cityscapes-512x1024",
    "pspnet_ade20k": "pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512",
    "deeplabv3_ade20k": "deeplabv3/deeplabv3_r50-d8_4xb4-160k_ade20k-512x512",
    "deeplabv3plus_ade20k": "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512",
    "upernet_ade20k": "upernet/upernet_r50_4xb4-160k_ade20k-512x512",
    "upernet_vit_ade20k": "vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512",
    "upernet_mae_ade20k": "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512",
    "ocrnet_ade20k": "ocrnet/ocrnet_hr18_4xb4-160k_ade20k-512x512",
    "gcnet_ade20k": "gcnet/gcnet_r50-d8_4xb4-160k_ade20k-512x512",
    "isanet_ade20k": "isanet/isanet_r50-d8_4xb4-160k_ade20k-512x512",
    "nonlocal_net_ade20k": "nonlocal_net/nonlocal_r50-d8_4xb4-160k_ade20k-512x512",
    "dnlnet_ade20k": "dnlnet/dnl_r50-d8_4xb4-160k_ade20k-512x512",
    "psanet_ade20k": "psanet/psanet_r50-d8_4xb4-160k_ade20k-512x512",
    "pointrend_ade20k": "point_rend/pointrend_r50_4xb4-160k_ade20k-512x512",
    "fastfcn_ade20k_enc": "fastfcn/fastfcn_r50-d32_jpu_enc_4xb4-160k_ade20k-512x512",
    "semantic_fpn_ade20k": "sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512",
    "stdc_cityscapes": "stdc/stdc1_in1k-pre_4xb12-80k_cityscapes-512x1024",
    "segformer_cityscapes": "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024",
    "segmenter_ade20k": "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512",
    "setr_ade20k": "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512",
    "setr_ade20k_pup": "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512",
    "setr_ade20k_mla": "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512",
    "setr_cityscapes": "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768",
    "dpt_ade20k": "dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512",
}
"""Shipped recipe -> the peer's config: one of each architecture and optimiser that both have."""
RATES = ("fcn_ade20k", "pointrend_ade20k", "segformer_cityscapes", "upernet_mae_ade20k")
LOSSES = ("fcn_ade20k", "segformer_cityscapes", "ocrnet_ade20k", "stdc_cityscapes")


def main() -> int:
    """Run the parts that are named, keep their results and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["settings", "rates", "losses", "draws", "scores", "page"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="recipes of rates and losses, with commas; default: all of the list")
    parser.add_argument("--shims", type=Path, default=SHARED / "parity", help="folder of ref_shims.py")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    kept: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    good = True
    if args.parts != ["page"]:
        sys.path.insert(0, str(args.shims))
        import ref_shims

        ref_shims.install()
        from mmengine.logging import MMLogger

        MMLogger.get_instance("beside", log_level="ERROR")
        for name, result in results(args.parts, args.seed, args.only.split(",") if args.only else None):
            print(name, {key: value for key, value in result.items() if key != "rows"}, flush=True)
            kept[name] = result | {"date": str(date.today())}
            good &= bool(result.get("good", True))
            RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_page(kept)
    return 0 if good else 1


def results(parts: list[str], seed: int, only: list[str] | None) -> Any:
    """Yield (name, result) of the parts."""
    import torch

    from beside_training import draws, losses, rates, real_images, scores

    torch.set_num_threads(1)
    camvid = SHARED / "data" / "camvid"
    if "settings" in parts:
        for recipe, peer in PAIRS.items():
            yield f"settings {recipe}", {"peer": peer, "rows": settings(recipe, peer)}
    for recipe in only or RATES if "rates" in parts else ():
        yield f"rates {recipe}", rates(recipe, PAIRS[recipe], seed)
    for recipe in only or LOSSES if "losses" in parts else ():
        yield f"losses {recipe} float64", losses(recipe, PAIRS[recipe], seed)
        yield f"losses {recipe} float32", losses(recipe, PAIRS[recipe], seed, torch.float32, 1)
    if "draws" in parts:
        yield "draws fcn_ade20k", draws("fcn_ade20k", PAIRS["fcn_ade20k"], seed, real_images(camvid, 8))
    if "scores" in parts:
        peer = "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512"
        yield "scores segformer", scores(peer, seed, camvid, 20)


# ---- settings
def settings(recipe: str, peer: str) -> dict[str, tuple[str, str]]:
    """Return key -> (the peer's setting, ours), in the same words where they mean the same."""
    from beside_training import peer_config
    from segatlas.recipe import Config

    theirs, ours = _theirs(peer, peer_config(peer)), _ours(Config.load(recipe))
    return {key: (theirs[key], ours[key]) for key in theirs}


def _theirs(name: str, config: Any) -> dict[str, str]:
    wrap, steps = config.optim_wrapper, config.train_dataloader.dataset.pipeline
    optimizer, rules = wrap.optimizer, wrap.get("paramwise_cfg") or {}
    pipeline, pre = {step["type"]: step for step in steps}, config.model.data_preprocessor
    gpus = int(re.search(r"_(\d+)xb\d+", name).group(1))  # type: ignore[union-attr]
    factor = rules.get("custom_keys", {}).get("head", {}).get("lr_mult", 1.0)
    fall, warm = config.param_scheduler[-1], config.param_scheduler[:-1]
    resize = next(step for step in config.test_pipeline if step["type"] == "Resize")
    scale, jitter = sorted(pipeline["RandomResize"]["scale"]), pipeline["RandomResize"]["ratio_range"]
    mode = config.model.test_cfg
    spared = ", ".join(key for key, rule in rules.get("custom_keys", {}).items() if rule.get("decay_mult") == 0)
    spared = "norms and biases" if rules.get("num_layers") else spared
    return {
        "images a step": str(gpus * config.train_dataloader.batch_size),
        "batch x accumulated": f"{config.train_dataloader.batch_size} x {gpus} GPUs",
        "steps": str(config.train_cfg.max_iters),
        "optimiser": optimizer["type"].lower(),
        "lr": f"{optimizer['lr'] * factor:g}" + (f", encoder x {1 / factor:g}" if factor != 1 else ""),
        "layer decay": f"{rules.get('layer_decay_rate', 1.0):g}",
        "weight decay": f"{optimizer['weight_decay']:g}" + (f", not of: {spared}" if spared else ", of all"),
        "fall": f"poly {fall['power']:g} to {fall['eta_min']:g}",
        "warm-up": f"{warm[0]['end']} from {warm[0]['start_factor']:g}" if warm else "none",
        "clip": str((wrap.get("clip_grad") or {}).get("max_norm", "none")),
        "precision": "mixed" if "Amp" in wrap["type"] else "fp32",
        "resize": f"fit:{scale[0]}x{scale[1]}",
        "scale": f"{jitter[0]:g} to {jitter[1]:g}, uniform",
        "crop": "x".join(map(str, pipeline["RandomCrop"]["crop_size"])),
        "crop rule": f"10 tries, one class < {pipeline['RandomCrop']['cat_max_ratio']:g}",
        "padding": f"right and below, {pre.pad_val:g} / {pre.seg_pad_val}",
        "flip": f"{pipeline['RandomFlip']['prob']:g}",
        "colours": "each of four by 1/2, HSV" if "PhotoMetricDistortion" in pipeline else "none",
        "losses": _their_losses(config.model),
        "evaluation": f"{mode['mode']}, fit:{'x'.join(map(str, sorted(resize['scale'])))}"
        + (f", {mode['crop_size'][0]} by {mode['stride'][0]}" if mode["mode"] == "slide" else ""),
        "seed": str(config.get("randomness", {}).get("seed", "drawn anew")),
    }


def _their_losses(model: Any) -> str:
    terms = []
    for part in ("decode_head", "auxiliary_head"):
        heads = model.get(part) or []
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            for loss in head["loss_decode"] if isinstance(head["loss_decode"], list | tuple) else [head["loss_decode"]]:
                kind = "ohem" if head.get("sampler") else "dice" if "Dice" in loss["type"] else "ce"
                kind = "bce" if loss.get("use_sigmoid") and kind == "ce" else kind
                terms.append(f"{kind} {loss.get('loss_weight', 1.0):g}")
            if head.get("loss_se_decode"):
                terms.append(f"presence {head['loss_se_decode']['loss_weight']:g}")
    return ", ".join(sorted(terms))


def _ours(config: Any) -> dict[str, str]:
    train, moves, inputs = config.train, config.transforms, config.model.input
    optimizer, fall = train.optimizer, train.schedule
    spared = list(optimizer.no_decay) + ([] if optimizer.decay_encoder_norms else ["norm (encoder)"])
    spared = spared if optimizer.decay_norms else ["norms and biases", *spared]
    words = {"cross_entropy": ("ce",), "point_cross_entropy": ("ce",), "ohem": ("ohem",), "detail": ("bce", "dice")}
    terms = [f"{w} {t.weight:g}" for t in config.losses for w in words.get(t.name, ("presence",))]
    counted = [getattr(term, "count_ignored", True) for term in config.losses]
    least = fall.min_ratio * train.lr if fall.min_lr is None else fall.min_lr
    rounds = fall.span == "rest"
    resize = moves.resize or f"fit:{'1024x2048' if config.data.name == 'cityscapes' else 'own'}"
    shown = inputs.resize or resize
    return {
        "images a step": str(train.batch * train.accumulate),
        "batch x accumulated": f"{train.batch} x {train.accumulate}",
        "steps": str(train.steps),
        "optimiser": optimizer.name,
        "lr": f"{train.lr:g}"
        + (f", encoder x {optimizer.encoder_lr_factor:g}" if optimizer.encoder_lr_factor != 1 else "")
        + "".join(f", {name} x {factor:g}" for name, factor in optimizer.lr_factors.items()),
        "layer decay": f"{optimizer.layer_decay:g}",
        "weight decay": f"{optimizer.weight_decay:g}" + (f", not of: {', '.join(spared)}" if spared else ", of all"),
        "fall": f"{fall.name} {fall.power:g} to {least:g}" + ("" if rounds else ", beside the warm-up"),
        "warm-up": f"{fall.warmup} from {fall.warmup_ratio:g}" if fall.warmup else "none",
        "clip": "none" if train.clip is None else str(train.clip),
        "precision": "fp32" if train.precision == "fp32" else "mixed",
        "resize": resize,
        "scale": "{:g} to {:g}, {}".format(*moves.scale, moves.scale_draw),
        "crop": "x".join(map(str, moves.crop)),
        "crop rule": f"10 tries, one class < {moves.class_balance:g}",
        "padding": "right and below, 0 / 255" if moves.crop_padding == "end" else "around, 0 / 255",
        "flip": f"{moves.flip:g}",
        "colours": "each of four by 1/2, HSV" if moves.photometric and moves.photometric.kind == "steps" else "other",
        "losses": ", ".join(sorted(terms)) + ("" if all(counted) else ", over labelled pixels"),
        "evaluation": f"{inputs.mode}, {shown}" + (f", {inputs.crop[0]} by {inputs.stride[0]}" if inputs.crop else ""),
        "seed": str(config.seed),
    }


# ---- the page
def write_page(kept: dict[str, Any]) -> None:
    """Write the tables between the page's marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in {"settings": settings_table(kept), "numbers": numbers_table(kept)}.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, tail = text.split(begin)[0], text.split(end)[1]
        text = "\n".join([head + begin, "", *lines, "", end]) + tail
    PAGE.write_text(text, encoding="utf-8")


def settings_table(kept: dict[str, Any]) -> list[str]:
    """Return one line a recipe: what is the same, and what differs."""
    lines = ["| Recipe | Config of MMSegmentation | The same | Differs: theirs / ours |", "| --- | --- | --- | --- |"]
    for name, result in kept.items():
        if name.startswith("settings "):
            rows = result["rows"]
            same = [key for key, (theirs, ours) in rows.items() if theirs == ours]
            unlike = [f"{key}: {theirs} / {ours}" for key, (theirs, ours) in rows.items() if theirs != ours]
            lines.append(
                f"| `{name.removeprefix('settings ')}` | `{result['peer']}` | {len(same)} of {len(rows)}: "
                f"{', '.join(same)} | {'; '.join(unlike)} |"
            )
    return lines


def numbers_table(kept: dict[str, Any]) -> list[str]:
    """Return the table of what both computed."""
    lines = ["| What | Of | Result | Limit | Holds | Seed, date |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in kept.items():
        what, _, of = name.partition(" ")
        if what == "settings":
            continue
        where = f"{result['seed']}, {result['date']}"
        holds = "yes" if result["good"] else "**no**"
        if what == "rates":
            text = f"{result['steps']} steps, {result['parameters']} of {result['of']} parameters: "
            text, limit = f"{text}rate {result['rate']:.1e}, decay {result['decay']:.1e}", "1e-9"
        elif what == "losses":
            text = f"{result['steps']} steps, {result['from']:.4f} to {result['to']:.4f}: {result['worst']:.1e}"
            limit = "1e-6" if result["type"] == "float64" else "1e-5"
        elif what == "draws":
            text = ", ".join(f"{key} p = {number['p']:.2f}" for key, number in result["numbers"].items())
            text, limit = f"{result['draws']} draws, {text}", "p > 0.01"
        else:
            text = f"mIoU of {result['images']} images: {result['ours']:.4f} and {result['theirs']:.4f}"
            limit = "0.01"
        lines.append(f"| {what} | `{of}` | {text} | {limit} | {holds} | {where} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
