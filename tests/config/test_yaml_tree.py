from __future__ import annotations

import pytest

from segatlas.config import yaml_tree
from segatlas.errors import ConfigError


def parse(text: str) -> object:
    node, problems = yaml_tree.parse(text, "a.yaml")
    assert node is not None
    assert problems == []
    return node.plain()


def refuse(text: str) -> tuple[int | None, str]:
    with pytest.raises(ConfigError) as caught:
        yaml_tree.parse(text, "a.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "a.yaml"
    return problem.line, problem.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        ("5e-4", 5e-4),
        (".5", 0.5),
        ("2.", 2.0),
        ("-3", -3),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("off", "off"),
        ("001", "001"),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2026-11-20", "2026-11-20"),
        (".inf", ".inf"),
        ("'3'", "3"),
        ('"true"', "true"),
        ("[256, 2.5, x]", [256, 2.5, "x"]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"key: {text}")["key"]  # type: ignore[index]
    assert found == value
    assert type(found) is type(value)


def test_the_key_on_stays_a_text() -> None:
    assert parse("on: logits\nno: 1") == {"on": "logits", "no": 1}


def test_every_key_and_list_item_knows_its_line() -> None:
    text = "a:\n  b: 1\n\n  # note\n  c:\n    - x\n    -\n      d: 2\n"
    node, _ = yaml_tree.parse(text, "a.yaml")
    assert node is not None
    c = node.value["a"].value["c"]
    lines = [node.value["a"], node.value["a"].value["b"], c, *c.value, c.value[1].value["d"]]
    assert [n.place.line for n in lines] == [1, 2, 5, 6, 8, 8]
    assert all(n.place.file == "a.yaml" for n in lines)


def test_a_duplicate_key_is_reported_with_both_lines_and_the_first_value_kept() -> None:
    node, problems = yaml_tree.parse("a:\n  b: 1\n  b: 2\n", "a.yaml")
    assert node is not None
    assert node.plain() == {"a": {"b": 1}}
    assert [(p.key, p.line, p.message) for p in problems] == [("a.b", 3, "key given twice (first on line 2)")]


def test_a_dotted_key_is_reported_with_the_nested_spelling() -> None:
    _, problems = yaml_tree.parse("train.lr: 3\n", "a.yaml")
    assert [p.key for p in problems] == ["train.lr"]
    assert "`train: {lr: ...}`" in problems[0].message


@pytest.mark.parametrize("text", ["a: 1\nb:\n\tc: 2\n", "a: 1\nb:\n  c: 1\n\td: 2\n", "a: 1\n\tb: 2\n"])
def test_a_tab_is_named_with_its_line(text: str) -> None:
    line, message = refuse(text)
    assert line == 1 + text[: text.index("\t")].count("\n")
    assert message == "a tab; YAML is indented with spaces only"


def test_broken_yaml_names_the_line() -> None:
    line, message = refuse("a: [1, 2\nb: 3\n")
    assert line == 2
    assert message.startswith("not valid YAML")


def test_a_control_character_names_the_line() -> None:
    assert refuse("a: 1\nb: \x07\n")[0] == 2


def test_two_documents_in_one_file_are_refused() -> None:
    assert "not valid YAML" in refuse("a: 1\n---\nb: 2\n")[1]


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system ['false']\n", "a: !thing 3\n", "a: !!int x\n"])
def test_tags_are_problems_and_run_nothing(text: str) -> None:
    _, problems = yaml_tree.parse(text, "a.yaml")
    assert [p.line for p in problems] == [1] or "python" in text
    if "python" not in text:
        assert "tags" in problems[0].message


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert "too deeply" in refuse("a: &x [*x]\n")[1]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "too large" in refuse("\n".join(lines))[1]


def test_anchors_are_shared_values() -> None:
    assert parse("a: &size [1, 2]\nb: *size\n") == {"a": [1, 2], "b": [1, 2]}


def test_an_empty_text_has_no_tree() -> None:
    assert yaml_tree.parse("# only a note\n", "a.yaml") == (None, [])


def test_mappings_merge_and_everything_else_is_replaced() -> None:
    below, _ = yaml_tree.parse("a: {x: 1, y: 2}\nl: [1, 2, 3]\ns: 1\n", "below.yaml")
    above, _ = yaml_tree.parse("a: {y: 3, z: 4}\nl: [9]\ns: {t: 1}\n", "above.yaml")
    assert below is not None
    assert above is not None
    merged = yaml_tree.merge(below, above)
    assert merged.plain() == {"a": {"x": 1, "y": 3, "z": 4}, "l": [9], "s": {"t": 1}}
    assert merged.value["a"].value["x"].place.file == "below.yaml"
    assert merged.value["a"].value["y"].place.file == "above.yaml"


@pytest.mark.parametrize(
    "value",
    [
        "1e3",
        "001",
        "true",
        "null",
        "on",
        "no",
        "",
        "a: b",
        "ü",
        "- x",
        "2026-11-20",
        1e-7,
        1.0,
        12,
        None,
        True,
        [1, 2.5],
    ],
)
def test_what_is_written_is_read_back_with_its_type(value: object) -> None:
    found = parse(yaml_tree.write({"key": value}))["key"]  # type: ignore[index]
    assert found == value
    assert type(found) is type(value)


def test_lists_of_single_values_are_written_on_one_line() -> None:
    assert yaml_tree.write({"crop": [256, 256], "losses": [{"name": "dice"}]}) == (
        "crop: [256, 256]\nlosses:\n  - name: dice\n"
    )
