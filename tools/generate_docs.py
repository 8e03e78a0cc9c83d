"""Write the tables of `docs/generated/` from the code. `tests/docs/test_generated.py` compares them with a fresh run.

It also writes `hub/parameters.json`, how large each network is, for `segatlas models list`.

    python tools/generate_docs.py

Nothing in there is typed by hand: keys and losses come from the schema, networks and encoders are built with shapes
only (meta device) and counted, definitions and commands are those that the program prints.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "generated"
PARAMETERS = ROOT / "src" / "segatlas" / "hub" / "parameters.json"
HEAD = "<!-- Written by tools/generate_docs.py from the code; do not edit. -->\n\n"


CROPS = {"segmenter-l-ade20k": "640x640", "fast-scnn-cityscapes": "512x1024"}
"""Weights whose file is named after another crop than that of their config, or after none."""


def pages(networks: Iterable[str] | None = None) -> dict[str, str]:
    """Return file name -> text of every generated page; `networks`: the rows of `models`."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "commands.md": commands,
        "json-lines.md": json_lines,
        "recipe.md": recipe_keys,
        "losses.md": losses,
        "recipes.md": recipes,
        "models.md": lambda: models(networks),
        "encoders.md": encoders,
        "metrics.md": metrics,
        "findings.md": findings,
    }
    return {name: HEAD + "\n\n".join(make()) + "\n" for name, make in makers.items()}


def main() -> int:
    """Write the pages that changed."""
    from segatlas.files import whole_file

    OUT.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for path in OUT.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    from segatlas.models import list_models

    counts = {name: described(name).parameters for name in list_models()}
    texts = {OUT / name: text for name, text in texts.items()}
    for path, text in {**texts, PARAMETERS: json.dumps(counts, indent=0) + "\n"}.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with whole_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 0


# ---- recipes
def recipe_keys() -> Iterator[str]:
    from segatlas.recipe import common_keys

    yield "# Keys of a recipe"
    yield "What `segatlas config schema` prints. For editors, as a JSON Schema: `segatlas config schema --json`."
    _, rows = common_keys()
    groups = dict.fromkeys(_group(row.key) for row in rows)
    for group in groups:
        yield f"## {group}"
        chosen = [row for row in rows if _group(row.key) == group]
        yield table(
            ("Key", "Expects", "Default", "Meaning"),
            ((code(row.key), row.expects, code(row.default), row.meaning) for row in chosen),
        )
        if group == "data":
            yield from _own_keys_of_datasets()
        if group == "distill":
            yield from _keys_of_terms()


def _keys_of_terms() -> Iterator[str]:
    from segatlas.recipe import distillation_keys

    for title, rows in distillation_keys():
        yield f"### {title}"
        cells = ((code(row.key), row.expects, code(row.default), row.meaning) for row in rows)
        yield table(("Key", "Expects", "Default", "Meaning"), cells)


def _own_keys_of_datasets() -> Iterator[str]:
    from segatlas.data.datasets import DATASETS, dataset_class
    from segatlas.recipe import dataset_keys

    for title, rows in dataset_keys():
        yield f"### {title}"
        cells = ((code(row.key), row.expects, code(row.default), row.meaning) for row in rows)
        yield table(("Key", "Expects", "Default", "Meaning"), cells)
    none = [code(name) for name in DATASETS if not dataset_class(name).options.model_fields]
    yield f"These have no keys of their own: {', '.join(none)}."


def _group(key: str) -> str:
    first, dot, _ = key.partition(".")
    return first if dot else "top level"


def losses() -> Iterator[str]:
    from segatlas.recipe import loss_keys

    yield "# Losses"
    yield (
        "A line of `losses:` in a recipe is one of these; the weighted sum is minimised. "
        "Ignored pixels (255) play no part."
    )
    for title, rows in loss_keys():
        name, _, meaning = title.removeprefix("Loss ").partition(": ")
        yield f"## {name}" if title.startswith("Loss ") else "## Keys of every loss"
        if meaning:
            yield meaning
        columns = ("Key", "Expects", "Default", "Meaning")
        yield table(columns, ((code(r.key), r.expects, code(r.default), r.meaning) for r in rows))


def recipes() -> Iterator[str]:
    from segatlas import config

    yield "# Shipped recipes"
    yield "What `segatlas config schema --recipes` prints; `segatlas config show NAME` prints one whole."
    rows = []
    for name, path in config.recipes().items():
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip().rstrip(":")
        rows.append((code(name), title))
    yield table(("Name", "What it trains"), rows)


# ---- networks
@cache
def described(name: str) -> Any:
    """Return the facts of an architecture or variant."""
    from segatlas.build.describing import describe

    return describe(name)


def models(of: Iterable[str] | None = None) -> Iterator[str]:
    """Yield the tables of networks; rows of some alone, which hold every architecture, None meaning all."""
    from segatlas.build.describing import MEASURED_CLASSES, MEASURED_SIZE
    from segatlas.models import ARCHITECTURES

    height, width = MEASURED_SIZE
    names = [name for entry in ARCHITECTURES.values() for name in (entry.name, *entry.variants)]
    facts = {name: described(name) for name in (names if of is None else of)}
    yield "# Table of networks"
    yield (
        f"Parameters with {MEASURED_CLASSES} classes; GMACs are multiply-accumulates of convolutions and matrix "
        f"products for one {height}x{width} image (1 MAC = 2 FLOPs). `segatlas models info NAME` prints the same for "
        "one network. The last column is what stands behind `segatlas train`; all recipes: [Shipped "
        "recipes](recipes.md)."
    )
    rows = []
    for name, fact in facts.items():
        size, cost = f"{fact.parameters / 1e6:.2f} M", f"{fact.macs / 1e9:.2f}"
        if fact.host is not None:
            size, cost = f"host + {fact.parameters:,}", f"host + {cost}"
        paper = f"[{fact.title}]({fact.paper})"
        rows.append(
            (code(name), paper, ", ".join(fact.tasks), size, cost, code(" ".join(train_words(name))) or "no recipe")
        )
    yield table(("Name", "Paper", "Tasks", "Parameters", "GMACs", "Train"), rows)
    fixed = [entry for entry in ARCHITECTURES.values() if not entry.exports_dynamic]
    yield (
        "An exported program (`torch.export`) takes any batch and images of any height and width from 64 pixels on"
        + "".join(f"; not that of {code(entry.name)}: {entry.not_dynamic_because.rstrip('.')}" for entry in fixed)
        + "."
    )
    yield from published_weights(names)
    yield from torchvision_weights()
    yield from readable_files()
    for entry in ARCHITECTURES.values():
        yield f"## Fields of {entry.name}"
        yield "They stand in a recipe as `model.FIELD`, and in Python as arguments of `create_model`."
        fields = [
            (code(f.name), code(f.type), "required" if f.required else code(repr(f.default)), f.meaning)
            for f in facts[entry.name].fields
        ]
        yield table(("Field", "Type", "Default", "Meaning"), fields)


def train_words(name: str) -> list[str]:
    """Return the words behind `segatlas train` for an architecture or variant: the nearest recipe, and its change.

    The nearest recipe is one for the variant or that tells of `model.name=NAME`, then the one whose network shares most
    of the name; of those ADE20K's, then Cityscapes'. No words where no recipe is for the architecture.
    """
    from segatlas.models import lookup

    entry, variant = lookup(name)
    order = ("ade20k", "cityscapes")
    found = []
    for recipe, network in networks_of_recipes().items():
        folder, _, dataset = recipe.partition(f"{entry.name}_")
        if not folder and lookup(network)[0] is entry:
            rank = next((i for i, data in enumerate(order) if dataset.startswith(data)), len(order))
            shared = takewhile(lambda pair: pair[0] == pair[1], zip(network, name, strict=False))
            is_own = network == name == variant and any(data in dataset for data in order)
            told = is_own or re.search(rf"model\.name={name}\b", recipes_text()[recipe]) is not None
            found.append((not told, -len(list(shared)), rank, recipe, network))
    if not found:
        return []
    *_, recipe, network = min(found)
    return [recipe] if variant in (None, network) else [recipe, f"model.name={name}"]


@cache
def recipes_text() -> dict[str, str]:
    from segatlas import config

    return {recipe: file.read_text(encoding="utf-8") for recipe, file in config.recipes().items()}


@cache
def networks_of_recipes() -> dict[str, str]:
    from segatlas import config

    return {recipe: str(config.Config.load(recipe).model.name) for recipe in config.recipes()}


def published_weights(names: Iterable[str]) -> Iterator[str]:
    """Yield the table of weights that load by name: for ADE20K and Cityscapes the best of each backbone."""
    from segatlas.hub.catalogue import NON_COMMERCIAL, SOURCE, published, published_for

    network = {entry.name: name for name in names for entry in published_for(name)}
    yield "## Published weights"
    yield (
        "`segatlas predict NAME IMAGES --out FOLDER` and `sa.load(NAME)` download and convert them, see "
        "[Catalogue](../catalogue.md). Here: the best of each backbone on ADE20K (150 classes) and Cityscapes "
        f"(19 classes); all {len(published())}, for {len({entry.dataset for entry in published()})} datasets, are "
        "printed by `segatlas models list --published`. Networks in parentheses are forms of that architecture without "
        "a variant's name."
    )
    yield (
        f"mIoU in percent as published ({SOURCE}), not measured here. ADE20K: the 2000 images of val, shorter side "
        "512 (640 where the crop is), whole images; BEiT, ConvNeXt, MAE, Segmenter and SETR by windows of the crop's "
        "size. Cityscapes: the 500 images of val at 2048x1024, whole; where the crop is 768x768, 769x769 or 1024x1024, "
        "by windows of that size. The second number is of the same weights with "
        "several scales and mirrored images. Crop and steps are those of the training. `non-commercial` is the "
        f"{NON_COMMERCIAL.partition(' (')[0]}. Terms of the datasets come besides the licence."
    )
    rows = []
    for entry in published():
        if entry.name == entry.file or entry.dataset not in ("ade20k", "cityscapes"):
            continue
        crop = CROPS.get(entry.name) or re.findall(r"\d{3,4}x\d{3,4}", entry.file)[0]
        steps = re.findall(r"(\d+)k_", entry.file + "_")[0]
        best = "" if entry.miou_ms_flip is None else f"{entry.miou_ms_flip:.2f}"
        built = code(network[entry.name]) if entry.name in network else f"({code(entry.architecture)})"
        training = f"{crop}, {steps}k"
        licence = entry.licence if entry.is_commercial else "non-commercial"
        rows.append((code(entry.name), built, f"{entry.miou:.2f}", best, training, licence))
    yield table(("Name", "Network", "mIoU", "scales, flips", "Crop, steps", "Licence"), rows)


def torchvision_weights() -> Iterator[str]:
    """Yield the table of torchvision's own weights, from what torchvision says of them."""
    from torchvision.models import get_model_weights, list_models, segmentation

    yield "## Weights of torchvision"
    yield (
        "Not in the catalogue: get the file, then `segatlas models convert FILE --out FOLDER`. mIoU in percent as "
        "torchvision states it, on COCO val2017 with the 21 classes of PASCAL VOC, shorter side 520. torchvision names "
        "no licence for the weights; its code is under BSD-3-Clause."
    )
    rows = []
    for name in list_models(module=segmentation):
        for weights in get_model_weights(name):
            miou = weights.meta["_metrics"]["COCO-val2017-VOC-labels"]["miou"]
            file = weights.url.rpartition("/")[2]
            rows.append((f"[{file}]({weights.url})", code(name.partition("_")[0]), f"{miou:.1f}"))
    yield table(("File", "Network", "mIoU"), rows)


def readable_files() -> Iterator[str]:
    from segatlas.conversion.importers import importers, load_source
    from segatlas.models import ARCHITECTURES

    yield "## Files of other libraries"
    yield "Whose weights `segatlas models convert` reads and writes, see [Weights of other libraries](../importing.md)."
    titles: dict[str, list[str]] = {name: [] for name in ARCHITECTURES}
    for record in importers():
        title = load_source(record.source).title
        if title not in titles[record.architecture]:
            titles[record.architecture].append(title)
    yield table(("Network", "Libraries"), ((code(name), ", ".join(found)) for name, found in titles.items()))


def encoders() -> Iterator[str]:
    from segatlas.build.describing import encoder_facts
    from segatlas.build.encoder_weights import IMAGENET
    from segatlas.build.network import shapes_only
    from segatlas.encoders import ENCODERS
    from segatlas.encoders.spec import EncoderSpec, TokenEncoderSpec, create_encoder

    yield "# Table of encoders"
    yield (
        "Encoders written here. Besides them any backbone of timm that gives feature maps: `model.encoder=timm/NAME`. "
        "Channels and strides are those of the feature maps, finest first; parameters are the encoder's alone. "
        "`imagenet` says whether `model.encoder_weights=imagenet` knows where to find published weights."
    )
    rows = []
    for name in ENCODERS:
        with shapes_only():
            encoder = create_encoder(name)
        count = sum(p.numel() for p in encoder.parameters())
        channels, strides = (", ".join(map(str, values)) for values in (encoder.channels, encoder.strides))
        rows.append((code(name), channels, strides, f"{count / 1e6:.2f} M", "yes" if name in IMAGENET else "no"))
    yield table(("Name", "Channels", "Strides", "Parameters", "imagenet"), rows)
    yield "## Options of encoders"
    yield (
        "In a recipe they stand beside the encoder's name, `encoder: {name: resnet50, output_stride: 8}`; in Python, "
        "`create_model(..., encoder={...})` likewise."
    )
    first = {family: name for name, family in reversed(ENCODERS.items())}
    specs = [EncoderSpec(name=name) for name in reversed(first.values())]
    for spec in [*specs, EncoderSpec(name="timm/resnet10t"), TokenEncoderSpec(name="timm/test_vit")]:
        yield f"### {_family_title(spec, ENCODERS)}"
        facts = [(code(f.name), code(f.type), code(repr(f.default)), f.meaning) for f in encoder_facts(spec)]
        yield table(("Key", "Type", "Default", "Meaning"), facts)


def _family_title(spec: Any, encoders: Mapping[str, str]) -> str:
    names = [name for name, family in encoders.items() if family == spec.family_file(spec.name)]
    kind = "backbones of timm that give feature maps" if type(spec).__name__ == "EncoderSpec" else "encoders of tokens"
    return ", ".join(names) or kind


def metrics() -> Iterator[str]:
    from segatlas.metrics import METRICS, load_metric
    from segatlas.metrics.scores import IMAGES

    yield "# Definitions of metrics"
    yield (
        "TP, FP, FN are the pixels of a class rightly predicted, wrongly predicted and missed, summed over the whole "
        "set of images; ignored pixels (255) are left out of everything. Every `eval.json` carries these sentences. "
        "Numbers that `train.metric` may name are marked with a star; the first is the default."
    )
    for name in METRICS:
        record = load_metric(name)
        yield f"## {record.title[:1].upper()}{record.title[1:]}"
        if record.switch:
            yield f"Counted unless `eval.{record.switch}` is false."
        numbers = [*record.numbers, *([record.image] if record.image else [])]
        stars = {number.name: " \\*" if number.monitored else "" for number in numbers}
        yield table(("Name", "Definition"), ((code(n.name) + stars[n.name], n.definition) for n in numbers))
    yield "## Always"
    yield table(("Name", "Definition"), [(code(IMAGES.name), IMAGES.definition)])


def findings() -> Iterator[str]:
    from segatlas.data.checks import KINDS

    yield "# Findings of `data check`"
    yield "What `segatlas data check` looks for. With `--json` each finding carries its kind, files, fault and repair."
    yield table(("Kind", "Meaning"), ((code(kind), title) for kind, title in KINDS.items()))


# ---- the command line
def commands() -> Iterator[str]:
    import typer

    from segatlas.cli.main import COMMANDS, root

    yield "# Command line"
    yield "`segatlas COMMAND --help` prints the same."
    yield f"## segatlas\n\n{_options(root)}\n\n{_examples('')}"
    for name, command in COMMANDS.items():
        if not isinstance(command, typer.Typer):
            yield _command(name, command)
            continue
        yield f"## segatlas {name}"
        yield f"{command.info.help}\n\n{_examples(name)}"
        for part in command.registered_commands:
            assert part.callback is not None
            inner = part.name or part.callback.__name__.strip("_").replace("_", "-")
            yield _command(f"{name} {inner}", part.callback, level=3)


def _command(path: str, function: Callable[..., Any], level: int = 2) -> str:
    told = inspect.getdoc(function) or ""
    return "\n\n".join((f"{'#' * level} segatlas {path}", told, _options(function), _examples(path)))


def _examples(path: str) -> str:
    """Return a command's examples as a list: no blocks, which tests would run."""
    from segatlas.cli.examples import EXAMPLES

    return "Examples:\n\n" + "\n".join(f"- `segatlas {example}`" for example in EXAMPLES[path])


def json_lines() -> Iterator[str]:
    from segatlas.cli.json_lines import JSON_LINES, line_schema

    yield "# What --json prints"
    yield (
        "Every command takes `--json` and then prints one machine-readable last line, whose keys are below; the rest "
        "goes to stderr. `segatlas config schema --of COMMAND` prints the same as a JSON Schema. Later versions may "
        "add keys; none is taken away or changes its meaning. A command that fails prints no such line: its message "
        "goes to stderr, and the exit code is 2 where words, recipe or arguments are at fault, 1 for files, models and "
        "data."
    )
    for command in JSON_LINES:
        yield f"## segatlas {command}"
        if command == "config show":
            yield "The recipe: [Keys of a recipe](recipe.md)."
            continue
        schema = line_schema(command)
        members = schema.get("anyOf", [schema])
        yield "\n\n".join(part for member in members for part in _line(member, schema))


def _line(member: Mapping[str, Any], root: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Yield what a line means and the table of its keys, then the same of the groups inside it."""
    from segatlas.config.messages import SchemaWords

    words = SchemaWords(dict(root))
    group = words.resolve(dict(member))
    if group.get("type") == "array":
        yield from _line(group["items"], root, title or "A list. ")
        return
    meaning = (
        f"**{title}**: {group.get('description', '')}"
        if title.startswith("`")
        else title + group.get("description", "")
    )
    if "properties" not in group:
        yield meaning + "A JSON Schema."
        return
    yield meaning
    rows, inside = [], []
    for key, node in group["properties"].items():
        rows.append((code(key), _kind_of(node, words), node.get("description", "")))
        inside += [(key, inner) for inner in _groups_in(node, words)]
    yield table(("Key", "Holds", "Meaning"), rows)
    for key, inner in inside:
        yield from _line(inner, root, code(key))


def _groups_in(node: Mapping[str, Any], words: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the groups that a key holds: itself, items of its list, values of its names."""
    node = words.resolve(dict(node))
    if "properties" in node:
        yield node
    for inner in (*node.get("anyOf", ()), node.get("items"), node.get("additionalProperties")):
        if isinstance(inner, Mapping):
            yield from _groups_in(inner, words)


def _kind_of(node: Mapping[str, Any], words: Any) -> str:
    """Return in words what a key holds."""
    node = words.resolve(dict(node))
    if "anyOf" in node:
        return " or ".join(_kind_of(member, words) for member in node["anyOf"])
    if "properties" in node:
        return "a group"
    if node.get("type") == "array":
        return "list: " + _kind_of(node.get("items", {}), words)
    if node.get("type") == "object":
        values = node.get("additionalProperties")
        return "name -> " + (_kind_of(values, words) if isinstance(values, Mapping) else "any value")
    if "const" in node:
        return code(json.dumps(node["const"]))
    if "enum" in node:
        return ", ".join(code(str(value)) for value in node["enum"])
    kinds = {
        "null": "null",
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
    }
    return kinds.get(str(node.get("type")), "any value")


def _options(function: Callable[..., Any]) -> str:
    """Return the table of a command's arguments and options, drawn from its signature."""
    hints = get_type_hints(function, include_extras=True)
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], None)
        if info is None:
            raise TypeError(f"{function.__name__}: {name} has no typer.Option or typer.Argument")
        words = _words(name, info, kind, parameter.default)
        rows.append((words, info.help or "", _default(parameter.default)))
    return table(("Argument", "Meaning", "Default"), rows)


def _words(name: str, info: Any, kind: Any, default: Any) -> str:
    is_flag = _plain_type(kind) is bool
    if type(info).__name__ == "ArgumentInfo":
        return code(info.metavar or name.strip("_").upper())
    # In Annotated[...], typer.Option takes the first spelling as its first argument, which is called "default".
    first = (info.default,) if isinstance(info.default, str) else ()
    spelled = [word for word in (*first, *(info.param_decls or ())) if word.startswith("-")]
    long = f"--{name.strip('_').replace('_', '-')}"
    if is_flag and not spelled:
        return code(f"{long}/--no-{long[2:]}")
    value = "" if is_flag else f" {code(info.metavar or _kind(kind))}"
    return ", ".join(code(word) for word in spelled or (long,)) + value


def _plain_type(kind: Any) -> Any:
    """Return the type without `| None` and without the list around it."""
    while get_origin(kind) in (types.UnionType, typing.Union, list):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return kind


def _kind(kind: Any) -> str:
    plain = _plain_type(kind)
    if inspect.isclass(plain) and issubclass(plain, Enum):
        return "|".join(str(member.value) for member in plain)
    return {str: "TEXT", int: "N", float: "X", Path: "PATH"}.get(plain, "VALUE")


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    return "" if value is None or value is False or value == "" else code(str(value))


# ---- Markdown
def write_between(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replace what stands between the marks of a page."""
    from segatlas.files import whole_file

    content = path.read_text(encoding="utf-8")
    before, _, rest = content.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    with whole_file(path) as temporary:
        temporary.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.exit(main())
