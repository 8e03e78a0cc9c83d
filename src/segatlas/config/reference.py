"""The reference of all recipe keys, drawn from the schema: for `segatlas config schema` and the docs."""

from __future__ import annotations

from dataclasses import dataclass

from segatlas.config.distillation import DistillConfig
from segatlas.config.messages import Schema, SchemaWords, show
from segatlas.config.schema import Config
from segatlas.config.section import Section


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """One key: dotted name, what it expects, its default as it would stand in a recipe, its meaning."""

    key: str
    expects: str
    default: str
    meaning: str


def reference(recipe: type[Config]) -> list[tuple[str, list[KeyRow]]]:
    """Return (title, rows) of a recipe's keys, then of the keys of each loss."""
    words = SchemaWords(recipe.model_json_schema())
    tables = [("Keys of a recipe", [_row(key, node, words) for key, node in words.leaves()])]
    mapping = words.root["properties"]["losses"]["items"]["discriminator"]["mapping"]
    shared: set[str] | None = None
    for name, target in mapping.items():
        term = words.resolve({"$ref": target})
        rows = [_row(key, node, words) for key, node in words.leaves(term) if key != "name"]
        if shared is None:
            common = [set(words.resolve({"$ref": other})["properties"]) for other in mapping.values()]
            shared = set.intersection(*common)
            tables.append(("Keys of every loss in `losses`, beside its name", [r for r in rows if r.key in shared]))
        own = [row for row in rows if row.key not in shared]
        tables.append((f"Loss {name}: {_first_line(term)}", own))
    return tables


def distillation_reference() -> list[tuple[str, list[KeyRow]]]:
    """Return (title, rows) of the keys of each term of `distill.terms`."""
    words = SchemaWords(DistillConfig.model_json_schema())
    tables = []
    for name, target in words.root["properties"]["terms"]["items"]["discriminator"]["mapping"].items():
        term = words.resolve({"$ref": target})
        rows = [_row(key, node, words) for key, node in words.leaves(term) if key != "name"]
        tables.append((f"Term {name} of `distill.terms`: {_first_line(term)}", rows))
    return tables


def rows_of(record: type[Section], section: str) -> list[KeyRow]:
    """Return the rows of a record whose keys stand in a section of a recipe."""
    words = SchemaWords(record.model_json_schema())
    return [_row(f"{section}.{key}", node, words) for key, node in words.leaves()]


def _row(key: str, node: Schema, words: SchemaWords) -> KeyRow:
    expects = words.expected(node)
    if any(member.get("type") == "null" for member in node.get("anyOf", ())):
        expects += ", or null"
    default = show(node["default"]) if "default" in node else ""
    groups = [_first_line(words.resolve(member)) for member in node.get("anyOf", ())]
    meaning = str(node.get("description", "")) or "".join(groups)
    return KeyRow(key=key, expects=expects, default=default, meaning=meaning)


def _first_line(term: Schema) -> str:
    return " ".join(str(term.get("description", "")).split("\n\n")[0].split())
