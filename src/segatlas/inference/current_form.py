"""The fast form of a network as its weights are now, made once by whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import nn

from segatlas.inference.fast_form import fast_form, weights_state
from segatlas.structures import InputSpec


class CurrentForm:
    """Keeps the fast form of a network, and makes it anew when the network's weights have changed.

    Any number of threads may ask: one makes the form, the others wait for it. Weights must not change while a thread
    predicts.
    """

    def __init__(self, net: nn.Module, inputs: Sequence[InputSpec], precision: str):
        self.net = net
        self.inputs = tuple(inputs)
        self.precision = precision
        self._lock = threading.Lock()
        self._made: tuple[object, nn.Module] | None = None  # the weights' state, and the form made from it

    def get(self) -> nn.Module:
        """Return the form for the weights as they are; `net` itself where no fast form gives its numbers."""
        state = weights_state(self.net)
        made = self._made
        if made is None or made[0] != state:
            with self._lock:
                made = self._made
                if made is None or made[0] != state:
                    made = self._made = (state, self.make())
        return made[1]

    def make(self) -> nn.Module:
        """Return the form for the weights as they are, made anew."""
        return fast_form(self.net, self.inputs, self.precision)

    def __getstate__(self) -> dict[str, object]:
        """Leave the form out of copies and pickles: it is made again where it is needed."""
        return {**self.__dict__, "_lock": None, "_made": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take a lock of one's own."""
        self.__dict__.update(state, _lock=threading.Lock())


class PlainForm(CurrentForm):
    """The network itself, in place of its fast form."""

    def get(self) -> nn.Module:
        """Return the network."""
        return self.net
