"""Write the table of `docs/from-mmsegmentation.md` that leads from a training script around MMSegmentation to ours.

    PYTHONPATH=src:tools python tools/training_scripts.py

People keep a script a network there (`train_fcn.py` and the like: a config, a dataset, a work folder). The table names
our command for each; starting weights are read from the recipe, mIoU and its config from the catalogue.
`tests/tools/test_training_scripts.py` dry-runs every command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generate_docs import table, write_between
from segatlas.hub.catalogue import SOURCE, published
from segatlas.recipe import Config

PAGE = Path(__file__).resolve().parent.parent / "docs" / "from-mmsegmentation.md"
MARKS = ("<!-- scripts -->", "<!-- end of scripts -->")


@dataclass(frozen=True)
class Script:
    """A training script.

    words: what follows `segatlas train`, without data.root; "" where there is nothing yet. file: published weights that
    the index lists under another config.
    """

    name: str
    config: str
    words: str = ""
    file: str = ""


SCRIPTS = (
    Script("train_fcn", "fcn_r50-d8_4xb4-160k_ade20k-512x512", "fcn_ade20k"),
    Script("train_pspnet", "pspnet_r50-d8_4xb4-160k_ade20k-512x512", "pspnet_ade20k"),
    Script("train_deeplabv3plus", "deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512", "deeplabv3plus_ade20k"),
    Script("train_upernet", "upernet_r50_4xb4-160k_ade20k-512x512", "upernet_ade20k"),
    Script("train_ocrnet", "ocrnet_hr18_4xb4-160k_ade20k-512x512", "ocrnet_ade20k", "ocrnet_hr18_512x512_160k_ade20k"),
    Script("train_gcnet", "gcnet_r50-d8_4xb4-160k_ade20k-512x512", "gcnet_ade20k"),
    Script("train_isanet", "isanet_r50-d8_4xb4-160k_ade20k-512x512", "isanet_ade20k"),
    Script("train_nonlocal", "nonlocal_r50-d8_4xb4-160k_ade20k-512x512", "nonlocal_net_ade20k"),
    Script("train_dnlnet", "dnl_r50-d8_4xb4-160k_ade20k-512x512", "dnlnet_ade20k"),
    Script("train_psanet", "psanet_r50-d8_4xb4-160k_ade20k-512x512", "psanet_ade20k"),
    Script("train_segformer", "segformer_mit-b0_8xb2-160k_ade20k-512x512", "segformer_ade20k"),
    Script("train_segmenter", "segmenter_vit-b_mask_8xb1-160k_ade20k-512x512", "segmenter_ade20k"),
    Script("train_segnext", "segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512", "segnext_ade20k"),
    Script("train_setr", "setr_vit-l_naive_8xb2-160k_ade20k-512x512", "setr_ade20k"),
    Script("train_vit_deit", "vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512", "upernet_vit_ade20k"),
    Script("train_mask2former", "mask2former_r50_8xb2-160k_ade20k-512x512", "mask2former_ade20k"),
    Script("train_maskformer", "maskformer_r50-d32_8xb2-160k_ade20k-512x512", "maskformer_ade20k"),
    Script("train_pointrend", "pointrend_r50_4xb4-160k_ade20k-512x512", "pointrend_ade20k"),
    Script("train_knet", "knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512", "knet_ade20k"),
    Script(
        "train_mobilenetv2",
        "mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512",
        "deeplabv3plus_ade20k_mobilenet_v2",
    ),
    Script("train_poolformer", "fpn_poolformer_s12_8xb4-40k_ade20k-512x512", "semantic_fpn_poolformer_ade20k"),
    Script("train_fastfcn", "fastfcn_r50-d32_jpu_psp_4xb4-160k_ade20k-512x512", "fastfcn_ade20k"),
    Script(
        "train_resnest", "resnest_s101-d8_deeplabv3plus_4xb4-160k_ade20k-512x512", "deeplabv3plus_ade20k_resnest101"
    ),
    Script("train_sem_fpn", "fpn_r50_4xb4-160k_ade20k-512x512", "semantic_fpn_ade20k"),
    Script("train_stdc", "stdc1_4xb12-80k_cityscapes-512x1024", "stdc_cityscapes"),
    Script("train_twins", "twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512", "semantic_fpn_twins_ade20k"),
    Script(
        "train_swin",
        "swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512",
        "upernet_swin_ade20k",
    ),
)


def page() -> str:
    """Return the table and what its numbers are."""
    rows = []
    for script in SCRIPTS:
        command, start = "coming", ""
        if script.words:
            model = Config.load(*script.words.split()).model
            command = f"`segatlas train {script.words} data.root=DATA run.dir=work_dirs/{model.name}`"
            start = f"`{model.encoder_weights}`" if model.encoder_weights else "none, random"
        rows.append((f"`{script.name}`", command, f"`{script.config}`", start, published_miou(script)))
    head = ("Script", "Ours", "Config of MMSegmentation", "Starting weights", "mIoU")
    return f"{table(head, rows)}\n\nmIoU in percent as published for that config ({SOURCE}), not measured here."


def published_miou(script: Script) -> str:
    """Return what is published for a config, of several runs the highest; "" where nothing is."""
    found = [entry.miou or 0 for entry in published() if script.config == entry.config or script.file == entry.file]
    return f"{max(found):.2f}" if found else ""


def main() -> None:
    """Write the table into the page."""
    write_between(PAGE, page(), MARKS)


if __name__ == "__main__":
    main()
