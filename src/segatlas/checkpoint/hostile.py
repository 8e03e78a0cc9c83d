"""Values of a file that nobody checked: what they make fail is the file's fault and told as such."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segatlas.checkpoint.validation import FieldsError
from segatlas.errors import UsageError, WeightsError
from segatlas.printable import shortened


@contextmanager
def told_as_weights_error(message: str) -> Iterator[None]:
    """Turn what values of a foreign file make fail inside into a WeightsError that begins with `message`.

    For code that takes such values as they are: an importer that reads widths from shapes, or a network that is built
    from a card's numbers. A file may hold any value at all, so any of these errors may be met.
    """
    try:
        yield
    except WeightsError:
        raise
    except (UsageError, FieldsError) as error:
        raise WeightsError(f"{message}\n{error}") from None
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        text = shortened(str(error).partition("\n")[0], 200)
        raise WeightsError(f"{message} ({type(error).__name__}: {text})") from error
