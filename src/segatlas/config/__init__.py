"""Recipes: the schema, how they are read, and what is said about a faulty one. Holds no torch."""

from __future__ import annotations

from segatlas.config.loading import json_schema, recipes, to_yaml
from segatlas.config.schema import Config

__all__ = ["Config", "json_schema", "recipes", "to_yaml"]
