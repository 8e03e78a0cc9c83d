"""The Chinese pages keep step with the English ones: the same blocks, numbers, names in code, headings and table rows.

Blocks are therefore run once, by `test_blocks.py` on the English page. The course has its own rules in `test_learn.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_blocks import ROOT, Block, find_blocks

CHINESE = sorted((ROOT / "docs" / "zh").glob("*.md"))
PAIRS = [(ROOT / "README.md", ROOT / "README.zh.md"), *((ROOT / "docs" / page.name, page) for page in CHINESE)]
BLOCK = re.compile(r"^```.*?^```\n", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\([^)\s]*\)")
NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:[.,:-]\d+)*(?:e-?\d+)?")
HAN = re.compile(r"[\u4e00-\u9fff]")


def commands(block: Block) -> tuple[str, list[str]]:
    """Return a block without what is written for readers: comments, and in ```text what stands right of two spaces."""
    lines = block.text.splitlines()
    if block.language == "text":
        lines = [re.split(r"\s{2,}", line)[0] for line in lines if not line.startswith(" ")]
    elif block.language != "yaml" or not lines[0].startswith("# "):
        lines = [line.partition("#")[0].rstrip() for line in lines]
    else:
        lines = lines[:1] + [line.partition("#")[0].rstrip() for line in lines[1:]]
    return block.language, [line for line in lines if line]


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def facts(page: Path) -> dict[str, object]:
    """Return what a page must have in common with the one in another language."""
    text = prose(page)
    code = {" ".join(span.split()) for span in CODE.findall(text)}
    words = CODE.sub("", LINK.sub("]", text))
    return {
        "headings": [len(found) for found in re.findall(r"^(#+) ", text, flags=re.MULTILINE)],
        "rows of tables": len(re.findall(r"^\|", text, flags=re.MULTILINE)),
        "names in code": code,
        "numbers": set(NUMBER.findall(words)),
    }


def ids(pair: tuple[Path, Path]) -> str:
    return str(pair[1].relative_to(ROOT))


@pytest.mark.parametrize("pair", PAIRS, ids=ids)
def test_a_chinese_page_has_the_blocks_of_the_english_one(pair: tuple[Path, Path]):
    english, chinese = ([commands(block) for block in find_blocks(page)] for page in pair)
    assert chinese == english


def test_the_chinese_readme_names_the_same_in_code_under_the_same_headings():
    english, chinese = map(facts, PAIRS[0])
    for name in ("headings", "rows of tables", "names in code"):
        assert chinese[name] == english[name], name


@pytest.mark.parametrize("pair", PAIRS[1:], ids=ids)
def test_a_chinese_page_has_the_headings_rows_names_and_numbers_of_the_english_one(pair: tuple[Path, Path]):
    english, chinese = map(facts, pair)
    for name, found in english.items():
        assert chinese[name] == found, f"{ids(pair)}: {name}"


@pytest.mark.parametrize("pair", PAIRS[1:], ids=ids)
def test_a_chinese_page_leads_to_the_same_pages_and_to_chinese_ones_where_there_are(pair: tuple[Path, Path]):
    names = [{link.name for link in links(page) if link.is_relative_to(ROOT / "docs")} for page in pair]
    assert names[0] | {pair[0].name} == names[1]
    there_are = {page.name for page in CHINESE}
    wrong = [link for link in links(pair[1]) if link.name in there_are and link.parent.name != "zh" and link != pair[0]]
    assert wrong == []


def links(page: Path) -> list[Path]:
    found = re.findall(r"\]\(([^)#:\s]+\.md)(?:#[^)\s]*)?\)", prose(page))
    return [(page.parent / link).resolve() for link in found]


def test_the_site_finds_chinese_words_and_lists_every_chinese_page():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in CHINESE if f": zh/{page.name}\n" not in site] == []
    (separator,) = re.findall(r"^ +separator: '(.*)'$", site, flags=re.MULTILINE)
    words = [word for word in re.split(separator, "训练网络，data.root=data/shapes (0.5, fp32)。") if word]
    assert words == [*"训练网络", "data", "root", "data", "shapes", "0.5", "fp32"]
    asked = [word for word in re.split(separator, "训* 练* 网络") if word]
    assert asked == [*"训练网络"]  # the site puts asterisks behind the parts of what is searched for


def test_every_page_that_beginners_read_is_there_in_chinese():
    assert [page.stem for page in CHINESE] == ["get-started", "own-data", "prediction", "training"]


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.stem)
def test_a_chinese_page_is_in_chinese(page: Path):
    text = LINK.sub("", CODE.sub("", prose(page)))
    assert len(HAN.findall(text)) > 0.3 * len(re.sub(r"\s", "", text))


@pytest.mark.parametrize(
    ("old", "new"),
    [("--split test", "--split val"), ("| `env.json` |", "| `env.yaml` |"), ("## 训练\n", ""), ("3.11", "3.10")],
)
def test_a_page_that_has_fallen_behind_is_found(old: str, new: str, tmp_path: Path):
    page = ROOT / "docs" / "zh" / "get-started.md"
    other = tmp_path / "page.md"
    text = page.read_text(encoding="utf-8")
    assert old in text
    other.write_text(text.replace(old, new), encoding="utf-8")
    blocks = [[commands(block) for block in find_blocks(one)] for one in (page, other)]
    assert facts(page) != facts(other) or blocks[0] != blocks[1]
