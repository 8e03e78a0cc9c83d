"""Train what the movers of first_use.py bring: run by the Python of the peers, with the folder of that way.

    PEERS/bin/python tools/first_use_peers.py HOME --shims ../shared/parity

Writes smp_unet.pth (segmentation-models-pytorch, U-Net of one logit), work_dirs/ with a config and a checkpoint as
MMSegmentation saves them (PSPNet), and of each a file with what it gives for the first photo.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

STEPS, BATCH = 60, 4
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLASSES = ("background", "building")
CONFIG = f"""
norm = dict(type='BN', requires_grad=True)
data_preprocessor = dict(type='SegDataPreProcessor', mean={list(MEAN)}, std={list(STD)}, bgr_to_rgb=True,
                         pad_val=0, seg_pad_val=255, size=(256, 256))
model = dict(type='EncoderDecoder', data_preprocessor=data_preprocessor, pretrained=None,
             backbone=dict(type='ResNetV1c', depth=18, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
                           strides=(1, 2, 1, 1), norm_cfg=norm, contract_dilation=True),
             decode_head=dict(type='PSPHead', in_channels=512, in_index=3, channels=128, pool_scales=(1, 2, 3, 6),
                              dropout_ratio=0.1, num_classes=2, norm_cfg=norm, align_corners=False,
                              loss_decode=dict(type='CrossEntropyLoss')),
             auxiliary_head=dict(type='FCNHead', in_channels=256, in_index=2, channels=64, num_convs=1,
                                 concat_input=False, num_classes=2, norm_cfg=norm, align_corners=False,
                                 loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
             train_cfg=dict(), test_cfg=dict(mode='whole'))
train_dataloader = dict(batch_size={BATCH}, dataset=dict(type='BaseSegDataset', data_root='mm',
    metainfo=dict(classes={CLASSES}, palette=[[0, 0, 0], [255, 0, 0]]),
    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train')))
train_cfg = dict(type='IterBasedTrainLoop', max_iters={STEPS}, val_interval={STEPS})
"""


def batches(home: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (N, 3, H, W) uint8 RGB and labels (N, H, W) int64."""
    files = sorted((home / "mm" / "img_dir" / "train").iterdir())
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        chosen = [files[index] for index in draw.choice(len(files), BATCH, replace=False)]
        masks = [home / "mm" / "ann_dir" / "train" / path.name for path in chosen]
        images, labels = (np.stack([np.asarray(Image.open(path)) for path in paths]) for paths in (chosen, masks))
        yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64))


def normalised(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) as both networks take them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images.float() - mean) / std


def train_smp(home: Path) -> None:
    """Train a U-Net with one logit, as its users do for two classes."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    net = smp.Unet("resnet18", encoder_weights=None, classes=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for images, labels in batches(home):
        loss = F.binary_cross_entropy_with_logits(net(normalised(images))[:, 0], labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.eval().state_dict(), home / "smp_unet.pth")
    keep(home, "smp", net)


def train_mmseg(home: Path) -> None:
    """Train a PSPNet by MMSegmentation's own losses, and save it as its runner does."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    work = home / "work_dirs"
    work.mkdir()
    (work / "pspnet_buildings.py").write_text(CONFIG, encoding="utf-8")
    init_default_scope("mmseg")
    config = Config.fromfile(work / "pspnet_buildings.py")
    torch.manual_seed(0)
    net = MODELS.build(config.model)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for images, labels in batches(home):
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
        taken = net.data_preprocessor({"inputs": list(images.flip(1)), "data_samples": samples}, training=True)
        loss, _ = net.parse_losses(net.loss(taken["inputs"], taken["data_samples"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    meta = {
        "dataset_meta": {"classes": CLASSES, "palette": [[0, 0, 0], [255, 0, 0]]},
        "cfg": config.pretty_text, "epoch": 0, "iter": STEPS, "seed": 0, "mmengine_version": "0.10.7",
    }  # fmt: skip
    state = {"state": {}, "param_groups": []}
    torch.save({"meta": meta, "state_dict": net.state_dict(), "optimizer": state}, work / f"iter_{STEPS}.pth")
    keep(home, "mm", lambda x: net.encode_decode(x, [{"img_shape": x.shape[-2:]}]))


@torch.no_grad()
def keep(home: Path, name: str, net: nn.Module) -> None:
    """Write a network's logits and labels of the first photo."""
    photo = home / "photos" / "first.png"
    inputs = normalised(torch.from_numpy(np.asarray(Image.open(photo))).permute(2, 0, 1)[None])
    logits = net(inputs)
    labels = logits[0].argmax(0) if logits.shape[1] > 1 else (logits[0, 0] > 0).long()
    torch.save({"input": inputs, "logits": logits, "labels": labels}, home / f"{name}_reference.pt")


def main() -> None:
    """Train both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--shims", type=Path, required=True, help="folder of ref_shims.py")
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.shims))
    import ref_shims

    ref_shims.install()
    first = min((asked.home / "photos").glob("*.png"))
    shutil.move(first, first.with_name("first.png"))
    train_smp(asked.home)
    train_mmseg(asked.home)


if __name__ == "__main__":
    main()
