"""Every command, Python block and recipe in README, CONTRIBUTING and docs/ does what the page says.

How blocks are found, made small and run, and which commands are excused with which reason: `docs_blocks.py`.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from docs_blocks import (
    ROOT,
    Block,
    files_named,
    find_blocks,
    find_commands,
    parse_command,
    run_block,
    run_command,
    small_train,
)
from fakes.camvid import write_camvid, write_frames
from fakes.folder import write_folder
from fakes.foreign import foreign_state, small_network, write_checkpoint
from fakes.images import save_image
from fakes.model import make_model
from fakes.videos import write_video

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cache import cache_folder
from segatlas.data.shapes import make_shapes
from segatlas.hub.catalogue import find_published
from segatlas.recipe import Config

OTHERS = ("learn", "notebooks", "zh")
"""Folders of docs/ whose blocks `test_learn.py` runs, or that `test_chinese.py` finds equal to those of other pages."""
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.relative_to(ROOT / "docs").parts[0] not in OTHERS),
]
SHOWN = ("camvid", "center_shapes", "panoptic_fpn_shapes")
"""Pages of results, one a task, whose trainings run each time; the others are alike, and slow tests."""
BARE = ("README.md", "docs/get-started.md")
"""Pages that make their own data and runs; the others start from what `stage` prepares."""
SWITCHED_OFF = ("tensorboard/",)
"""Folders that runs have and the small ones here have not."""
NEED_VIDEO = ("video.md",)
"""Pages whose commands read and write video."""
NEED_FRAMES = ("multisource.md",)
"""Pages that train on frames with the one before."""
DOWNLOADED = ("pspnet-r50-ade20k", "pspnet-r50-cityscapes")
"""Published weights that the pages use."""
RUN = "runs/semantic/unet_shapes-001"


@pytest.fixture(scope="module", autouse=True)
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stands in for downloads: in the cache lie small networks where the weights would, and nothing can be fetched.

    Memory is not measured, for which `bench` starts a process for each piece; `tests/bench/test_memory.py` does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SEGATLAS_OFFLINE", "1")
        patch.setattr("segatlas.bench.measuring.measure_memory", lambda *_: 1.0)
        for name in DOWNLOADED:
            entry = find_published(name)
            make_model(cache_folder("models") / f"{entry.file}-{entry.sha256}", ("background", "circle", "square"))
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/shapes, data/camvid, the folders my-data and data/membranes, images, and a finished run."""
    from segatlas.training import train

    root = tmp_path_factory.mktemp("docs")
    torch.set_num_threads(1)
    write_images(root)
    make_shapes(root / "data" / "shapes", train=8, val=4, test=4, size=(32, 48))
    write_camvid(root / "data" / "camvid")
    write_folder(root / "data" / "membranes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train(Config.load(*small_train(["unet_shapes"])), quiet=True)
    return root


def write_images(root: Path) -> None:
    """Make my-data (three classes), photos that are predicted, and a checkpoint of another library."""
    write_checkpoint(root / "segformer.b0.512x512.ade.160k.pth", foreign_state("nvlabs", small_network("nvlabs")))
    write_folder(root / "my-data")
    write_two_dates(root)
    generator = np.random.default_rng(0)
    (root / "photos").mkdir()
    (root / "frames").mkdir()
    if find_spec("av"):
        write_video(root / "clip.mp4")
    stills = [root / "frames" / f"frame_{number}.png" for number in range(3)]
    for path in (root / "street.jpg", root / "photos" / "one.jpg", root / "photos" / "two.jpg", *stills):
        cv2.imwrite(str(path), generator.integers(0, 256, (32, 48, 3), dtype=np.uint8))


def write_two_dates(root: Path) -> None:
    """Make a model of two dates, images of both, and the same in folders."""
    net = create_model("fc_siam", num_classes=2, width=4)
    save_pretrained(net, root / "pairs-model", classes=["unchanged", "changed"])
    for name in ("after", "before"):
        for file in (root / f"{name}.png", root / name / "one.png", root / name / "two.png"):
            save_image(file, np.random.default_rng(len(name)).integers(0, 256, (32, 48, 3)).astype(np.uint8))


def is_shown(page: Path) -> bool:
    return page.parent.name != "results" or page.stem in SHOWN


def each_page() -> list[Any]:
    """Return the pages for a parameter."""
    marks = {True: [], False: [pytest.mark.slow]}
    return [pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks[is_shown(page)]) for page in PAGES]


@pytest.mark.parametrize("page", [page for page in PAGES if not is_shown(page)], ids=lambda page: page.stem)
def test_every_training_of_a_page_of_results_is_of_a_recipe_with_the_words_of_the_page(page: Path):
    commands = [command for block in find_blocks(page) if block.language == "bash" for command in find_commands(block)]
    trainings = [shlex.split(c.text)[2:] for c in commands if c.text.startswith("segatlas train ")]
    assert trainings
    for recipe, *own in trainings:
        assert Config.load(recipe, *own).data.root == dict(word.split("=", 1) for word in own)["data.root"]


@pytest.mark.parametrize("page", each_page())
def test_the_blocks_of_a_page_run(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    blocks = find_blocks(page)
    if page.name in NEED_VIDEO:
        pytest.importorskip("av", reason="PyAV is not installed; the extra [video] brings it")
    if any(block.language in ("bash", "console", "python") for block in blocks):
        if str(page.relative_to(ROOT)) in BARE:
            write_images(tmp_path)
        else:
            shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, symlinks=True)
        if page.name in NEED_FRAMES:
            write_frames(tmp_path / "data" / "camvid", size=(36, 48), further=8)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks:
        run_block(block, tmp_path, namespace, monkeypatch)
    assert not list(tmp_path.rglob("*.tmp"))
    if str(page.relative_to(ROOT)) in BARE:
        places = (tmp_path, tmp_path / "runs" / "semantic" / "last", ROOT)
        named = [name for name in files_named(page) if name not in SWITCHED_OFF]
        assert named
        assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md"])
def test_every_link_of_a_page_outside_docs_leads_to_a_file(name: str):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_a_command_that_nobody_knows_fails():
    with pytest.raises(AssertionError, match="neither segatlas nor in ALLOWED"):
        run_command(parse_command("rm -rf everything"), "page.md:1")


def test_a_make_target_that_does_not_exist_fails():
    with pytest.raises(AssertionError, match="no target"):
        run_command(parse_command("make coffee"), "page.md:1")


def test_an_exit_code_other_than_announced_fails():
    with pytest.raises(AssertionError, match="exits 2, expected 0"):
        run_command(parse_command("segatlas config check no_such_recipe"), "page.md:1")
    run_command(parse_command("segatlas config check no_such_recipe  # exits 2"), "page.md:1")


def test_output_that_a_page_shows_must_occur():
    run_command(parse_command("segatlas models list 'unet'", ("U-Net",)), "page.md:1")
    with pytest.raises(AssertionError, match="lacks: V-Net"):
        run_command(parse_command("segatlas models list 'unet'", ("V-Net",)), "page.md:1")


def test_an_unknown_language_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    block = Block(page=ROOT / "README.md", line=1, language="perl", text="")
    with pytest.raises(AssertionError, match="'perl'"):
        run_block(block, tmp_path, {}, monkeypatch)


def test_commands_go_on_after_a_backslash_and_console_output_is_kept(tmp_path: Path):
    page = ROOT / "README.md"
    bash = Block(page=page, line=1, language="bash", text="# note\nsegatlas train \\\n  unet  # exits 3\n")
    assert [(c.text, c.exit_code) for c in find_commands(bash)] == [("segatlas train unet", 3)]
    console = Block(page=page, line=1, language="console", text="$ segatlas doctor\nfirst\n...\nlast\n")
    assert [c.output for c in find_commands(console)] == [("first", "last")]
