"""Rules by name, and how they are tried: all of them, so that everything that is wrong is told at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from segatlas.config.messages import unknown
from segatlas.errors import UsageError
from segatlas.printable import printable


def check_kind(name: str, found: Any, expected: type, place: str) -> None:
    """Raise UsageError where an argument is not of this type. place: where the right one is found, in words."""
    if not isinstance(found, expected):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        raise UsageError(
            f"{name}: got {'the class ' if isinstance(found, type) else ''}{kind}, "
            f"expected the {expected.__name__} {place}"
        )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing that is promised.

    check: takes the case and yields what is wrong, in words; nothing where the rule holds. An exception is a breach
        too. Its name and the first line of its docstring are those of the rule.
    needs: names of rules that must hold before this one says anything.
    slow: takes a second or more; tried only where it is asked for.
    """

    check: Callable[[Any], Iterator[str]]
    needs: tuple[str, ...] = ()
    slow: bool = False

    @property
    def name(self) -> str:
        """Name, as in `only` and `skip`."""
        return self.check.__name__

    @property
    def text(self) -> str:
        """What is promised, one sentence."""
        return (self.check.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A broken rule. rule: its name. text: what it promises. found: what is so instead."""

    rule: str
    text: str
    found: str


class BrokenRules(AssertionError):
    """Something breaks rules. breaches: one a broken rule."""

    def __init__(self, subject: str, breaches: Sequence[Breach]):
        self.breaches = tuple(breaches)
        lines = [f"  {one.rule}: {one.text}\n    found: {printable(one.found)}" for one in self.breaches]
        count = len(lines)
        super().__init__("\n".join([f"{subject} breaks {count} rule{'s' if count > 1 else ''}:", *lines]))


def require(
    subject: str,
    rules: Sequence[Rule],
    case: Any,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    slow: bool = False,
) -> None:
    """Try rules on a case in their order.

    Args:
        subject: what is checked, for the message.
        rules: a rule stands after those that it needs.
        case: what the rules take.
        only: names of the rules to try, () = all; those that they need are taken to hold.
        skip: names of rules to leave out.
        slow: also those that take a second or more. A rule named in `only` is tried in any case.

    Raises:
        BrokenRules: some do not hold.
        UsageError: `only` or `skip` names no rule.
    """
    names = [rule.name for rule in rules]
    for name in (*only, *skip):
        if name not in names:
            raise UsageError(f"{name}: {unknown('rule', name, names)}")
    chosen = [
        rule for rule in rules if rule.name not in skip and (rule.name in only if only else slow or not rule.slow)
    ]
    broken: dict[str, Breach] = {}
    silent: set[str] = set()
    for rule in chosen:
        if silent.intersection(rule.needs):
            silent.add(rule.name)
        elif found := _found(rule, case):
            broken[rule.name] = Breach(rule=rule.name, text=rule.text, found=found)
            silent.add(rule.name)
    if broken:
        raise BrokenRules(subject, tuple(broken.values()))


def _found(rule: Rule, case: Any) -> str:
    """Return what breaks a rule, "" where it holds. Each rule draws the same random numbers."""
    with seeded(0):
        try:
            return next(iter(rule.check(case)), "")
        except Exception as error:  # whatever the checked code raises is what it did wrong
            return f"{type(error).__name__}: {error}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the random numbers of torch, NumPy and Python from a seed, and leave them as they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
