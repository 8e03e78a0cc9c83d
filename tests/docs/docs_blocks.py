"""Finds the fenced blocks of a Markdown page and runs them, in one folder a page.

What is run and how:

- ```bash: a command a line (a line that ends in a backslash goes on). `segatlas` commands run in this process through
  the same typer application as on the command line; words in EXTRA, SMALL, LIMITS and TINY_UNET are added so that a
  command takes a moment instead of hours, and what would start several processes (torchrun, --devices) is a dry run. A
  comment `# exits N` behind a command states its exit code; otherwise 0 is expected.
- ```console: `$ command` lines as above; the lines below a command must occur in its output, `...` stands for any.
- ```python: run in one namespace a page; shipped recipes loaded by name get the words of SMALL too.
- ```yaml: loaded as a recipe; a first line `# NAME.yaml` also writes the block to that file for later commands.
- ```text and ```json are not run. Any other language is an error, and so is any command that is neither `segatlas` nor
  in ALLOWED: nothing is left out silently.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import segatlas
from segatlas.cli.main import app
from segatlas.config import Config as Schema
from segatlas.config import recipes
from segatlas.recipe import Config

ROOT = Path(__file__).resolve().parents[2]
RUN, READ = ("bash", "console", "python", "yaml"), ("text", "json")

SMALL = (
    "transforms.crop=null",
    "transforms.class_balance=1.0",
    "train.schedule.warmup=1",
    "log.tensorboard=false",
    "log.samples=1",
)
"""Laid over a recipe before the page's own words, which therefore win."""
LIMITS = ("train.batch=2", "train.device=cpu", "train.threads=1", "data.workers=0")
"""Laid over a recipe after the page's own words."""
TINY_UNET = ("model.encoder=null", "model.encoder_weights=null", "model.width=4")
"""Laid over a recipe where the page does not choose the network itself."""

EXTRA: dict[str, tuple[str, ...]] = {
    "eval": ("--device", "cpu"),
    "predict": ("--device", "cpu"),
    "bench --protocol": ("--size", "64x64", "--seconds", "0.01", "--threads", "1"),
    "bench": ("--size", "32x32", "--repeats", "1", "--threads", "1"),
    "data make-shapes": ("--train", "8", "--val", "4", "--test", "4", "--size", "32x48"),
    "data make-pairs": ("--train", "3", "--val", "2", "--test", "2", "--size", "32x32"),
}
"""Options added behind a command; the last one given counts."""


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    unknown = [word for word in words[1:] if "=" not in word and word not in targets]
    assert not unknown, f"the Makefile has no target {unknown}"


def check_files(words: list[str]) -> None:
    missing = [word for word in words[1:] if "/" in word and not (ROOT / word).exists()]
    assert not missing, f"no such file in the repository: {missing}"


def accept(words: list[str]) -> None:
    """Take the command as it is."""


ALLOWED: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "git clone": (accept, "needs the network"),
    "cd": (accept, "the test has its own folder"),
    "pip install": (accept, "would change the environment that runs the test"),
    "source": (accept, "changes a shell, there is none"),
    "make": (check_make, "builds environments, runs the tests themselves; the target must exist"),
    "python -m pytest": (check_files, "would run the tests inside the tests; the paths must exist"),
    "python tools/": (check_files, "has its own test; the file must exist"),
    "ruff": (accept, "is part of make check"),
    "tensorboard": (accept, "is a server that does not end"),
}
"""First words of a command that is not run -> what is checked instead, and why it is not run."""

TORCHRUN = re.compile(r"^torchrun (--[\w-]+[= ]\S+ )*-m segatlas ")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its page, the line it begins at, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a block, the exit code it announces, and the lines that its output must hold."""

    text: str
    exit_code: int = 0
    output: tuple[str, ...] = ()


def find_blocks(page: Path) -> list[Block]:
    blocks: list[Block] = []
    language, start, indent, lines = "", 0, 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"^(\s*)```(\S*)", line)
        if fence and not start:
            language, start, indent, lines = fence[2], number, len(fence[1]), []
        elif fence:
            blocks.append(Block(page=page, line=start, language=language, text="\n".join(lines) + "\n"))
            start = 0
        elif start:
            lines.append(line[indent:])
    assert not start, f"{page}: the block at line {start} has no end"
    return blocks


def find_commands(block: Block) -> Iterator[Command]:
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            first, *output = part.splitlines()
            yield parse_command(first, tuple(line.strip() for line in output if line.strip() not in ("", "...")))
        return
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield parse_command(line)


def parse_command(line: str, output: tuple[str, ...] = ()) -> Command:
    command, _, comment = line.partition(" #")
    exits = re.search(r"exits (\d+)", comment)
    return Command(text=" ".join(command.split()), exit_code=int(exits[1]) if exits else 0, output=output)


def files_named(page: Path) -> list[str]:
    """Return what a page's text, outside its blocks, calls by the name of a file or folder."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
    return [span for span in spans if re.fullmatch(r"[\w-][\w./-]*(/[\w-]*|\.(html|json|csv|txt|yaml|ckpt|png))", span)]


def run_block(block: Block, folder: Path, namespace: dict[str, Any], monkeypatch: Any) -> None:
    """Run one block; AssertionError naming the place where it does not do what the page says."""
    assert block.language in RUN + READ, f"{block.place}: blocks of language {block.language!r} are not known here"
    if block.language == "yaml":
        load_recipe(block, folder)
    elif block.language == "python":
        with monkeypatch.context() as patch:
            patch.setattr(segatlas.Config, "load", classmethod(small_load))
            source = textwrap.dedent(block.text)
            try:
                exec(compile("\n" * block.line + source, str(block.page), "exec"), namespace)
            except Exception as error:
                raise AssertionError(f"{block.place}: {type(error).__name__}: {error}\n{source}") from error
    elif block.language in ("bash", "console"):
        for command in find_commands(block):
            run_command(command, block.place)


def load_recipe(block: Block, folder: Path) -> None:
    name = re.match(r"# (\S+\.yaml)", block.text)
    path = folder / (name[1] if name else "block.yaml")
    path.write_text(block.text, encoding="utf-8")
    Config.load(path)


def run_command(command: Command, place: str) -> None:
    text = TORCHRUN.sub("segatlas ", command.text)
    if not text.startswith("segatlas"):
        start = next((start for start in ALLOWED if text.startswith(start)), None)
        assert start is not None, f"{place}: `{text}` is neither segatlas nor in ALLOWED"
        ALLOWED[start][0](shlex.split(text))
        return
    words = shlex.split(text)
    assert not {"|", ">", "&&", ";", "&"} & set(words), f"{place}: one plain command a line, got `{text}`"
    several = text != command.text or "--devices" in words
    result = CliRunner().invoke(app, small_words(words[1:]) + (["--dry-run"] if several else []))
    trace = f"\n{result.exception!r}" if result.exception and not isinstance(result.exception, SystemExit) else ""
    assert result.exit_code == command.exit_code, (
        f"{place}: `{text}` exits {result.exit_code}, expected {command.exit_code}{trace}\n{result.output}"
    )
    printed = " ".join(result.output.split())
    for line in command.output:
        assert " ".join(line.split()) in printed, f"{place}: `{text}` lacks: {line}\n{result.output}"


def small_words(words: list[str]) -> list[str]:
    """Return a command's words, with what makes it quick."""
    if words[0] in ("train", "distill") and "--resume" not in words:
        return [words[0], *small_train(words[1:])]
    for command, extra in EXTRA.items():
        first, *others = command.split()
        if words[0] == first and set(others) <= set(words) and "--help" not in words:
            return [*words, *extra]
    return words


def small_train(words: list[str]) -> list[str]:
    """Return the words behind `train`, a recipe's first, with the ones that make it small."""
    recipe = [] if "=" in words[0] or words[0].startswith("-") else words[:1]
    own = words[len(recipe) :]
    has_steps = any(word.startswith("train.steps=") for word in own) or any(
        Schema.load(name).train.steps is not None for name in recipe if name in recipes()
    )
    tiny = () if says_the_network(recipe, own) else TINY_UNET
    return [*recipe, *SMALL, *tiny, *own, *LIMITS, "train.steps=2" if has_steps else "train.epochs=1"]


def says_the_network(recipe: list[str], own: list[str]) -> bool:
    """Whether the page chooses the network: another one than a U-Net, a file with `model:`, or a word that does."""
    if recipe and recipe[0] not in recipes() and any(word.startswith("model.start_from=") for word in own):
        return True  # a folder's network is that of the weights
    if any(word.startswith(("model.name=", "model.encoder=")) for word in own):
        return True
    file = recipe[0] if recipe else own[own.index("--config") + 1]
    if file in recipes():
        return not file.startswith("unet")
    if Path(file).is_dir():  # a dataset, which its default recipe trains on: a U-Net where there are masks
        return False
    return "\nmodel:" in Path(file).read_text(encoding="utf-8")


_load = Config.load.__func__


def small_load(cls: type[Config], source: Any, *overrides: str, **options: Any) -> Config:
    """`Config.load` for Python blocks: a shipped recipe is made small, anything else is taken as it is."""
    if isinstance(source, str) and source in recipes():
        source, *overrides = small_train([source, *overrides])
    return _load(cls, source, *overrides, **options)
