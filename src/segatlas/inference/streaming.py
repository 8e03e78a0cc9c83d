"""What happens in a stream: seconds of reading, which goes on beside the network, and of the network; cuts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class StreamFacts:
    """Seconds so far. read: decoding frames, or waiting for them, and preparing them, in a thread of its own.

    network: passes through the network and making results of them. cuts: where temporal smoothing began anew.
    """

    read: float = 0.0
    network: float = 0.0
    cuts: int = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count a block as reading."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.read += time.perf_counter() - start

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count a block as the network's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.network += time.perf_counter() - start

    def taken(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, counting the time that each takes to come as reading."""
        coming = iter(items)
        while True:
            with self.reading():
                item = next(coming, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]


_END = object()
