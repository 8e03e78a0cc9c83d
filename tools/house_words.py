"""The words of this project, so that they stay: a list of words that have another one here, and one meaning a class.

docs/glossary.md says what the words mean. Where a word of the list is right, `EXCEPTIONS` names the file and why.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word that is not used here. pattern: where a line has it; rooms: folders that it holds for, () for all."""

    pattern: re.Pattern[str]
    today: str
    rooms: tuple[str, ...] = ()


def _word(pattern: str, today: str, *rooms: str) -> Word:
    return Word(re.compile(pattern, re.IGNORECASE), today, rooms)


_MAPS = r"(?:maps?|logits|features?|pixels)"
_NETWORKS = tuple(f"src/segatlas/{room}/" for room in ("models", "layers", "encoders", "ops"))

WORDS = (
    _word(r"pictures?", "image"),
    _word("图片", "图像"),
    _word(r"(?<![a-z])bands?(?![a-z])", "chunk, rows or channels"),
    _word(r"(?<![a-z])void(?![a-z])", "ignore"),
    _word(r"unlabell?ed|\bnot labell?ed", "ignored"),
    _word(r"(?<![a-z])verbs?(?![a-z])", "command"),
    _word(r"\b(?:a|an|the|its|their|each|by) shares?\b|(?<!-)\bshares? of\b", "fraction, ratio or probability"),
    _word(rf"\b(?:raise[sd]?|raising)(?: \w+){{0,2}} (?:{_MAPS}|bilinearly)\b", "upsample"),
    _word(rf"\b{_MAPS}(?: \w+)? raised\b|\braise[sd]? (?:inside|to the (?:size|canvas|padded))\b", "upsample"),
    _word(r"data(?:set)? doctor|findings of the doctor", "data check"),
    _word(r"\.multiple\b", "size_divisibility"),
    _word(r"side by side", "concatenated", *_NETWORKS),
)
"""Lines of code, texts and documents. Case does not count."""

NAME_WORDS = {
    "beside": "sidecar",
    "raise": "upsample",
    "raised": "upsampled",
    "raiser": "upsampling",
    "raising": "upsampling",
    "share": "fraction, ratio or probability",
    "shares": "fractions",
}
"""Parts of the names that code gives (variables, arguments, functions, classes). Names of tests are sentences."""

CLASS_NAMES = {
    "Coding": "LabelEncoding",
    "Diagnosis": "CheckReport",
    "Found": "Match",
    "Inventory": "FileListing",
    "LossTerm": "LossConfig",
    "MaskFacts": "MaskStats",
    "Parts": "TrainingComponents",
    "Survey": "ScanResult",
    "Tally": "PredictionSummary",
    "Term": "LossConfig",
}

EXCEPTIONS = (
    ("tests/frozen/", ".*", "what earlier months wrote"),
    ("docs/results/", ".*", "results as they were measured"),
    ("tools/house_words.py", ".*", "this list"),
    ("tests/tools/test_house_words.py", ".*", "its test"),
    ("src/segatlas/renamed.py", ".*", "public names of earlier versions"),
    ("src/segatlas/evaluation/report.py", "pictures", "an attribute of earlier versions"),
    ("src/segatlas/metrics/scores.py", "pictures", "an attribute of earlier versions"),
    ("src/segatlas/data/transforms/color.py", "share", "an attribute of earlier versions"),
    ("src/segatlas/losses/cross_entropy_dice.py", "dice_share", "an attribute of earlier versions"),
    ("tests/test_renamed.py", ".*", "public names of earlier versions"),
    ("src/segatlas/config/old_keys.py", ".*", "keys of earlier versions"),
    ("tests/config/test_old_keys.py", ".*", "keys of earlier versions"),
    ("tests/training/test_resume.py", "pictures", "files of earlier versions"),
    ("tools/frozen.py", ".*", "keys of earlier versions"),
    ("tools/frozen_recipes.py", ".*", "keys of earlier versions"),
    ("tests/tools/test_shape_proof.py", ".*", "keys of earlier versions"),
    ("docs/glossary.md", ".*", "says which words are not used"),
    ("src/segatlas/data/datasets/camvid.py", "void", "the name of a class of CamVid"),
    ("src/segatlas/losses/queries.py", "void", "the key that says what such pixels train"),
    ("docs/generated/losses.md", "void", "that key"),
    ("src/segatlas/criteria/query_masks.py", "void", "that key"),
    ("src/segatlas/ops/query_truth.py", "void", "that key"),
    ("tests/criteria/test_query_criterion.py", "void", "that key"),
    ("tools/parity_query_rules.py", "void", "MMDetection's name of such pixels"),
    ("tools/beside_mmsegmentation.py", "void", "that key"),
    ("tools/beside_mmdetection.py", "void", "that key"),
    ("docs/objects-beside-peers.md", "void", "that key"),
    ("docs/from-mmsegmentation.md", "void", "that key"),
    ("src/segatlas/recipes/oneformer/", "void", "that key"),
    ("src/segatlas/recipes/maskformer/", "void", "that key"),
    ("src/segatlas/recipes/_base_/mask2former_train.yaml", "void", "that key"),
    ("src/segatlas/recipes/_base_/eomt_train.yaml", "void", "that key"),
    ("docs/architecture.md", "void", "that key"),
    ("docs/recipes.md", "val_share", "a key of earlier versions"),
    ("docs/python.md", "raise_logits|pictures", "names of earlier versions"),
    ("docs/datasets.md", "void", "the name of a class of CamVid"),
    ("src/segatlas/data/datasets/cityscapes.py", "unlabeled", "the name of a class of Cityscapes"),
    ("src/segatlas/data/datasets/foreign.py", "pictures", "the name of a folder that people have"),
    ("docs/weak-labels.md", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("docs/generated/recipe.md", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("docs/generated/recipes.md", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("src/segatlas/config/rules.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("src/segatlas/config/schema.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("src/segatlas/data/further_images.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("src/segatlas/training/semi.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("src/segatlas/recipes/weak/", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("tools/weak_runs.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("tests/fakes/small_recipes.py", "unlabelled", "the key of a folder of images that nobody labelled"),
    ("tests/training/test_semi.py", "unlabelled", "the key of a folder of images that nobody labelled"),
)
"""(Beginning of a path, the words it may have as a pattern, reason)."""

SUFFIXES = (".md", ".py", ".yaml", ".yml")
SIBLINGS = ("src/segatlas/models/", "src/segatlas/encoders/")
"""Files that hold one paper each: their classes may have the same names."""


def word_breaches(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, rule) for every word in a file that has another one here. name: its path in the project."""
    if not name.endswith(SUFFIXES):
        return
    allowed = [re.compile(words, re.IGNORECASE) for start, words, _ in EXCEPTIONS if name.startswith(start)]
    words = [word for word in WORDS if not word.rooms or name.startswith(word.rooms)]
    for number, line in enumerate(text.splitlines(), start=1):
        for word in words:
            for found in word.pattern.finditer(line):
                if not any(one.fullmatch(found.group()) for one in allowed):
                    yield number, f"'{found.group()}': the word here is {word.today}"
    if name.endswith(".py"):
        yield from _name_breaches(ast.parse(text), allowed)


def _name_breaches(tree: ast.AST, allowed: Sequence[re.Pattern[str]]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for name in _names_given(node):
            if any(one.fullmatch(name) for one in allowed):
                continue
            parts = re.findall(r"[a-z]+|[A-Z][a-z]*", name) if not name.isupper() else name.split("_")
            for part in parts if not name.startswith("test_") else ():
                if part.lower() in NAME_WORDS:
                    yield getattr(node, "lineno", 0), f"name {name}: the word here is {NAME_WORDS[part.lower()]}"
        if isinstance(node, ast.ClassDef) and node.name in CLASS_NAMES:
            yield node.lineno, f"class {node.name} is called {CLASS_NAMES[node.name]} here"


def _names_given(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node gives to something."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def repeated_classes(files: Iterable[tuple[str, str]]) -> Iterator[tuple[str, int, str]]:
    """Yield (path, line, rule) for classes of the package that have one name and two meanings.

    Files of one paper each may repeat names among them, and a class may have the name of the one that it extends.
    files: (path in the project, text).
    """
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, text in files:
        if not (name.startswith("src/") and name.endswith(".py")):
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and node.name not in {_last_part(base) for base in node.bases}:
                places[node.name].append((name, node.lineno))
    for one, found in sorted(places.items()):
        if len(found) > 1 and not all(name.startswith(SIBLINGS) for name, _ in found):
            for name, line in found:
                others = ", ".join(other for other, _ in found if other != name)
                yield name, line, f"class {one} is the name of another one too: {others}"


def _last_part(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
