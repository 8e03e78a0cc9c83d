"""Cold start: fresh interpreters, from nothing to an import, a first mask, or a line of help."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import torch

from benchmarks.foreign import ROOT, loader_folder, mmseg, peer_module
from benchmarks.material import street_image
from benchmarks.networks import CLASSES, create, hf_segformer, smp_network
from benchmarks.rows import Call, Equality, NotHereError, Peer, Row, Target

SIDE = 512
MM_CONFIG = "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"
AT_MOST = 1.15
"""Our import over torch's."""
HEAVY = ("torchvision", "timm", "transformers", "lightning")
SHIMS = f"import sys; sys.path.insert(0, {str(loader_folder())!r}); import ref_shims; ref_shims.install(); "


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where models and the image lie."""

    path: Path

    @property
    def image(self) -> Path:
        return self.path / "image.png"


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="segatlas-peers-")


def make_folder(small: bool) -> Folder:
    folder = Folder(path=Path(_folder().name))
    cv2.imwrite(str(folder.image), street_image()[:SIDE, :SIDE, ::-1])
    return folder


def python(text: str, *words: str) -> str:
    """Run a fresh interpreter and return its last line; NotHereError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", text, *words], capture_output=True, text=True, env=environment, cwd=_folder().name
    )
    if done.returncode != 0:
        raise NotHereError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return (done.stdout.strip().splitlines() or [""])[-1]


def starting(text: str, given: Folder) -> Call:
    return lambda: python(text, str(given.path))


LOADED = f"; print([name for name in {HEAVY!r} if name in sys.modules])"
OUR_IMPORT = (
    "import sys, torch, segatlas, segatlas.inference, segatlas.hub.loading, segatlas.models.segformer, "
    "segatlas.encoders.mit" + LOADED
)
IMPORTS: dict[str, tuple[str, float | None]] = {
    "import torch": ("import torch", 1 / AT_MOST),
    "import segmentation_models_pytorch": ("import segmentation_models_pytorch", None),
    "import transformers' SegFormer": ("from transformers import SegformerForSemanticSegmentation", None),
    "import mmseg.apis": (SHIMS + "import mmseg.apis", None),
}


def nothing_heavy(given: Folder, own: str, other: str) -> Equality:
    heavy = ", ".join(HEAVY[:2])
    return Equality(holds=own == "[]", text=f"loads no {heavy}" if own == "[]" else f"loads {own}")


# To a first mask: each package loads SegFormer-B0 in its own format, the usual way, and predicts one image.

OURS_MASK = (
    "import sys, segatlas as sa; p = sa.load(sys.argv[1] + '/ours')"
    "; assert p.predict(sys.argv[1] + '/image.png').semantic.shape == (512, 512)" + LOADED
)
SMP_MASK = """
import sys, numpy, torch, segmentation_models_pytorch as smp
from PIL import Image
net = smp.from_pretrained(sys.argv[1] + "/smp").eval()
image = numpy.asarray(Image.open(sys.argv[1] + "/image.png").convert("RGB"))
mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
values = smp.encoders.preprocess_input(image, mean=mean, std=std, input_range=[0, 1])
with torch.inference_mode():
    mask = net(torch.from_numpy(values).permute(2, 0, 1)[None].float()).argmax(1)
assert mask.shape == (1, 512, 512)
"""
HF_MASK = """
import sys, torch
from PIL import Image
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor
net = SegformerForSemanticSegmentation.from_pretrained(sys.argv[1] + "/transformers").eval()
processor = SegformerImageProcessor()
inputs = processor(images=Image.open(sys.argv[1] + "/image.png").convert("RGB"), return_tensors="pt")
with torch.inference_mode():
    mask = processor.post_process_semantic_segmentation(net(**inputs), target_sizes=[(512, 512)])[0]
assert mask.shape == (512, 512)
"""
MM_MASK = (
    SHIMS
    + f"""
import os, mmseg
from mmengine.model import revert_sync_batchnorm
from mmseg.apis import inference_model, init_model
config = os.path.join(os.path.dirname(mmseg.__file__), ".mim", "configs", {MM_CONFIG!r})
net = revert_sync_batchnorm(init_model(config, sys.argv[1] + "/mmseg.pth", device="cpu"))
mask = inference_model(net, sys.argv[1] + "/image.png").pred_sem_seg.data
assert mask.shape == (1, 512, 512)
"""
)


def our_mask(given: Folder) -> Call:
    from segatlas.build.saving import save_pretrained

    save_pretrained(create("segformer_b0"), given.path / "ours", classes=[f"class {index}" for index in range(CLASSES)])
    return starting(OURS_MASK, given)


def smp_mask(given: Folder) -> Call:
    smp_network("Segformer", "mit_b0").save_pretrained(str(given.path / "smp"))  # type: ignore[operator]
    return starting(SMP_MASK, given)


def hf_mask(given: Folder) -> Call:
    hf_segformer("b0").save_pretrained(str(given.path / "transformers"))  # type: ignore[operator]
    return starting(HF_MASK, given)


def mm_mask(given: Folder) -> Call:
    module = mmseg("mmseg")
    config_type = peer_module("mmengine").Config
    config = config_type.fromfile(str(Path(str(module.__file__)).parent / ".mim" / "configs" / MM_CONFIG))
    config.model.backbone.init_cfg = None
    mmseg("mmengine.registry").init_default_scope("mmseg")
    net = mmseg("mmseg.registry").MODELS.build(config.model)
    meta = {"dataset_meta": {"classes": [f"class {index}" for index in range(150)], "palette": [[0, 0, 0]] * 150}}
    torch.save({"state_dict": net.state_dict(), "meta": meta}, given.path / "mmseg.pth")
    return starting(MM_MASK, given)


# Words of the command line that must not load torch.

OUR_WORDS = (
    "import sys; from segatlas.cli.main import main\n"
    "sys.argv = ['segatlas', *{words!r}]\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\n"
    "assert 'torch' not in sys.modules, 'torch was loaded'"
)
MOST_SECONDS = 0.3


def words_row(*words: str) -> Row:
    return Row(
        key="start_" + "_".join(word.strip("-") for word in words),
        group="start",
        part=f"segatlas {' '.join(words)}, without torch",
        inputs="a fresh interpreter",
        material=make_folder,
        ours=partial(starting, OUR_WORDS.format(words=words)),
        peers={},
        equal=None,
        threads=(2,),
        memory=False,
        clock="children",
        most_seconds=MOST_SECONDS,
    )


def import_peer(text: str, time: float | None) -> Peer:
    return Peer(make=partial(starting, text), target=Target(time=time))


MASKS: dict[str, Callable[[Folder], Call]] = {"smp": smp_mask, "transformers": hf_mask, "mmseg": mm_mask}

ROWS = (
    Row(
        key="start_import",
        group="start",
        part="importing all that predicting with our own encoders needs",
        inputs="a fresh interpreter, warm file cache",
        material=make_folder,
        ours=partial(starting, OUR_IMPORT),
        peers={name: import_peer(text, time) for name, (text, time) in IMPORTS.items()},
        equal=nothing_heavy,
        threads=(2,),
        memory=False,
        clock="children",
    ),
    Row(
        key="start_first_mask",
        group="start",
        part="from nothing to a first mask, SegFormer-B0",
        inputs=f"a fresh interpreter, an image of {SIDE} x {SIDE}",
        material=make_folder,
        ours=our_mask,
        peers={name: Peer(make=make) for name, make in MASKS.items()},
        equal=nothing_heavy,
        threads=(2,),
        memory=False,
        clock="children",
    ),
    words_row("--help"),
    words_row("models", "list"),
)
