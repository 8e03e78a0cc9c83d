"""The version of the package, for what the package itself imports."""

__version__ = "0.1.0"
