"""Reading ahead: a thread takes the next items and prepares them while the network works on those before."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

from segatlas.errors import SegAtlasError, UsageError
from segatlas.inference.images import GivenImage, PreparedImage

Key = TypeVar("Key")
Item = TypeVar("Item")
Made = TypeVar("Made")

PATIENCE = 1.0
"""Seconds that closing waits for the item that is being read; an iterator that gives nothing more is not waited for."""


def read_item(
    item: tuple[Key, GivenImage | Exception], prepare: Callable[[GivenImage], PreparedImage], *, whole: bool
) -> tuple[Key, PreparedImage | Exception]:
    """Return the item's key with its image ready for the network, or with what was wrong with it.

    Args:
        item: key and image; an exception in the image's place is handed on.
        prepare: reads an image.
        whole: normalise it now, for it goes through the network in one piece.

    Raises:
        UsageError: no pair.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
        raise UsageError(f"predict_stream takes pairs (key, image), got {found}; predict_iter takes images alone")
    key, image = item
    if isinstance(image, Exception):
        return key, image
    try:
        prepared = prepare(image)
        if whole:
            prepared.make_pixels()
    except (SegAtlasError, OSError) as error:
        return key, error
    return key, prepared


def read_ahead(items: Iterable[Item], make: Callable[[Item], Made], ahead: int) -> Generator[Made, None, None]:
    """Yield `make(item)` for each item, in order, while a thread takes and makes up to `ahead` further ones.

    `items` may be endless. What it or `make` raises is raised here, after all that came before. Closing this iterator
    ends the thread: it takes no further item.
    """
    coming, made = iter(items), SimpleQueue[Future[Made] | None]()
    room, closed = threading.Semaphore(ahead), threading.Event()

    def work() -> None:
        more = True
        while more and room.acquire() and not closed.is_set():
            future: Future[Made] = Future()
            try:
                item = next(coming, _END)
                if item is _END:
                    made.put(None)
                    return
                future.set_result(make(item))
            except BaseException as error:  # raised to who takes it
                future.set_exception(error)
                more = False
            made.put(future)

    # A daemon, because an iterator may wait for ever: that should not keep the interpreter from its end.
    thread = threading.Thread(target=work, name="segatlas-read", daemon=True)

    def close() -> None:
        closed.set()
        room.release()
        if thread is not threading.current_thread() and not sys.is_finalizing():
            thread.join(PATIENCE)

    thread.start()
    atexit.register(close)
    try:
        while (future := made.get()) is not None:
            room.release()
            yield future.result()
    finally:
        atexit.unregister(close)
        close()


def in_groups(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield up to `size` items at a time, without asking for more than these; before an error, what came before it."""
    complete = True
    while complete:
        group: list[Item] = []
        failed: Exception | None = None
        try:
            group.extend(islice(items, size))
        except Exception as error:
            failed = error
        if group:
            yield group
        if failed is not None:
            raise failed
        complete = len(group) == size


_END: Any = object()
