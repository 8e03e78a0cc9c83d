"""What stands before the names of a network's tensors, and what stands beside the network.

Programs that train hold the network inside something else: a Lightning module calls it `model`, torch.compile and
parallel training put parts of their own into every name, averaging keeps a second copy, and losses or the statistics
of images lie beside it. One rule for all of them: names that begin alike are looked at without that beginning, and
what is beside them must be known to be no part of a network.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

_INSERTED = frozenset({"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that torch.compile, Fabric and FSDP put anywhere into names; no network has a layer of such a name."""

_OUTER = ("module", "model", "net", "network")
"""What a program calls the network that it holds; removed where all names begin so."""

_EXTRAS = frozenset(
    {
        *("mean", "std", "pixel_mean", "pixel_std", "data_preprocessor", "normalize"),
        *("loss", "losses", "loss_fn", "loss_func", "loss_function", "criterion", "criteria"),
        *("metric", "metrics", "n_averaged", "initted", "step", "steps"),
    }
)
"""What is known to be no part of a network: statistics of images, losses, metrics, counters of averaging."""

_EXTRA_ENDINGS = ("_loss", "_metric", "_metrics")

_METRIC_STATES = frozenset(
    {
        *("confmat", "tp", "fp", "tn", "fn", "correct", "num_batches", "samples"),
        *("mean_value", "sum_value", "max_value", "min_value", "sum_squared_error", "sum_abs_error"),
    }
)
"""What torchmetrics calls the states of its metrics, which a training may keep under any name; no layer has them."""

_MINOR_STATES = frozenset({"weight", "score", "value", "total", "thresholds"})
"""Further states of its metrics, whose names say nothing unless one of the others lies beside them."""

_LEAST = 0.3
"""Fraction of all names that must begin alike for a beginning to be looked at: two copies of a network are found."""

_DEPTH = 6


@dataclass(frozen=True, kw_only=True)
class PrefixedTensors:
    """The tensors of a file whose names begin with `prefix`, under names without it, and all others."""

    prefix: str
    inside: dict[str, Tensor]
    extras: dict[str, Tensor]

    def strangers(self) -> list[str]:
        """Return the names beside it that are not known to be no part of a network."""
        known = _metric_states(self.extras)
        return [name for name in self.extras if name not in known and not _is_known_extra(name, self.prefix)]


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the parts of names that training programs add.

    Parts of torch.compile and of parallel training go wherever they stand; `module`, `model`, `net` and `network` go
    where all names begin with them. Nothing is removed where two names would become one.
    """
    plain = {".".join(p for p in name.split(".") if p not in _INSERTED): tensor for name, tensor in tensors.items()}
    if len(plain) < len(tensors) or "" in plain:
        plain = dict(tensors)
    while plain:
        first = next(iter(plain)).partition(".")[0]
        if first not in _OUTER or not all(name.startswith(f"{first}.") for name in plain):
            break
        plain = {name.removeprefix(f"{first}."): tensor for name, tensor in plain.items()}
    return plain


def parts(tensors: Mapping[str, Tensor]) -> Iterable[PrefixedTensors]:
    """Yield what may be a network: all tensors, then those below each common beginning, shorter ones first."""
    level, states = [""], _metric_states(tensors)
    for _ in range(_DEPTH):
        following: list[str] = []
        for prefix in level:
            out = states | {n for n in tensors if not n.startswith(prefix) or (not prefix and _is_known_extra(n, ""))}
            inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name not in out}
            extras = {name: t for name, t in tensors.items() if name in out}
            yield PrefixedTensors(prefix=prefix, inside=inside, extras=extras)
            counts = Counter(name.partition(".")[0] for name in inside if "." in name)
            following += [f"{prefix}{n}." for n, count in counts.items() if count >= _LEAST * len(tensors)]
        level = following


def averaged(prefixes: Iterable[str]) -> list[str]:
    """Return those prefixes whose words say that the weights below them are averaged over training."""
    words = ("ema", "averaged", "swa")
    return [p for p in prefixes if any(word in part.lower().split("_") for part in p.split(".") for word in words)]


def _metric_states(names: Iterable[str]) -> set[str]:
    """Return the names that are states of a metric: all that lies beside one, under the same name, must be such too."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.rpartition(".")[0]].append(name)
    found: set[str] = set()
    for members in groups.values():
        last = {name.rpartition(".")[2] for name in members}
        if last & _METRIC_STATES and last <= _METRIC_STATES | _MINOR_STATES:
            found.update(members)
    return found


def _is_known_extra(name: str, prefix: str) -> bool:
    """Tell whether a name, taken below what it has in common with `prefix`, is known to be no part of a network."""
    own, outer = name.split("."), prefix.split(".")
    while len(own) > 1 and outer and own[0] == outer[0]:
        own, outer = own[1:], outer[1:]
    return own[0] in _EXTRAS or own[0].endswith(_EXTRA_ENDINGS)
