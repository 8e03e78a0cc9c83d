"""LMFFNet beside its authors' network: the same random weights, logits at the image's size.

    python tools/authors_lmffnet.py TREE

TREE is a work tree of github.com/Greak-1124/LMFFNet, whose `model/LMFFNet.py` is run. Norms and slopes are drawn, too,
so that none of them is an identity. One line a size: the largest difference, in units of the largest logit; it ends
with 1 where one is above 1e-5.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from segatlas.build.network import create_model
from segatlas.ops import upsample_logits

SIZES = ((64, 96), (360, 480), (40, 72))
CLOSE = 1e-5
PARTS = {".conv.": ".0.", ".bn_prelu.bn.": ".1.0.", ".bn_prelu.acti.": ".1.1.", ".bn.": ".0.", ".acti.": ".1."}
"""Names within a layer, theirs -> ours: convolution, norm and slopes in a row, or norm and slopes alone."""


def table() -> dict[str, str]:
    """Return layers of theirs -> ours."""
    found = {f"Init_Block.init_conv.{index}": f"encoder.stem.{index}" for index in range(3)}
    found |= {"FFM_A.bn_prelu": "encoder.merge.0", "FFM_A.conv1x1.conv": "encoder.merge.1"}
    for number, ours, blocks in ((1, "encoder.level4", 3), (2, "encoder.level8", 8)):
        found[f"downsample_{number}.conv3x3.conv"] = f"{ours}.down.conv"
        found[f"downsample_{number}.bn_prelu"] = f"{ours}.down.norm"
        for index in range(blocks):
            found |= _block(f"SEM_B_Block{number}.SEM_B_Block.SEM_Block_{number}{index}", f"{ours}.blocks.{index}")
        found[f"FFM_B{number}.PMCA.conv2x2.conv"] = f"{ours}.weighting.quarters"
        found |= {f"FFM_B{number}.PMCA.SE_Block.fc.{index}": f"{ours}.weighting.weigh.{index}" for index in range(3)}
        found |= {f"FFM_B{number}.bn_prelu": f"{ours}.merge.0", f"FFM_B{number}.conv1x1.conv": f"{ours}.merge.1"}
    found |= {"MAD.mid_layer_1x1.conv": "classifier.fine", "MAD.deep_layer_1x1.conv": "classifier.deep"}
    found |= {"MAD.DwConv1": "classifier.mix", "MAD.PwConv1.conv": "classifier.gate"}
    return found | {"MAD.DwConv2": "conv", "MAD.PwConv2.conv": "classifier.scores"}


def _block(theirs: str, ours: str) -> dict[str, str]:
    layers = {"conv3x3": "reduce", "dconv_left": "near", "dconv_right": "far", "bn_relu_1": "norm"}
    layers |= {"conv3x3_resume.conv3x3": "join", "conv3x3_resume.conv1x1_resume.conv": "widen"}
    return {f"{theirs}.{name}": f"{ours}.{own}" for name, own in layers.items()}


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return their tensors by our names."""
    layers, found = table(), {}
    for name, tensor in theirs.items():
        layer = max((layer for layer in layers if name.startswith(f"{layer}.")), key=len)
        rest = name[len(layer) :]
        for part, own in PARTS.items():
            rest = rest.replace(part, own)
        found[layers[layer] + rest] = tensor
    return found


def load_authors(tree: Path) -> nn.Module:
    """Return their network for eleven classes, every norm and slope drawn, in eval mode."""
    text = (tree / "model" / "LMFFNet.py").read_bytes().decode("utf-8", "replace")  # a comment is in another encoding
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "authors_lmffnet_model.py"
        file.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    net: nn.Module = module.LMFFNet(classes=11)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (part.bias, part.running_mean):
                nn.init.normal_(tensor)
        elif isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, 0, 0.5)
    return net.eval()


@torch.no_grad()
def differences(theirs: nn.Module) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield each size and by how much logits differ there."""
    ours = create_model("lmffnet", num_classes=11).eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    for size in SIZES:
        x = torch.randn(1, 3, *size)
        expected, out = theirs(x), ours(x)
        found = upsample_logits(out.logits, size, canvas=out.canvas)
        yield size, float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, help="work tree of the authors' repository")
    torch.manual_seed(0)
    worst = 0.0
    for size, difference in differences(load_authors(parser.parse_args().tree)):
        print(f"{size[0]}x{size[1]}: {difference:.1e} of the largest logit")
        worst = max(worst, difference)
    sys.exit(int(not worst <= CLOSE))


if __name__ == "__main__":
    main()
