"""Where the time of a network goes on this processor: each operation's fraction of it.

python tools/profile_network.py segformer_b0 --size 512 512
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from segatlas.build.network import create_model


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    net = create_model(given.network, num_classes=19).eval()
    for line in fractions(net, torch.randn(1, 3, *given.size), given.calls):
        print(line)


@torch.inference_mode()
def fractions(net: torch.nn.Module, image: torch.Tensor, calls: int) -> list[str]:
    """Return lines "%, milliseconds a call, operation", the largest first, down to one percent."""
    net(image)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(calls):
            net(image)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    lines = [(event.self_cpu_time_total / total, event) for event in events]
    return [
        f"{fraction:6.1%} {event.self_cpu_time_total / calls / 1000:8.1f} ms  {event.key}"
        for fraction, event in lines
        if fraction >= 0.01
    ]


if __name__ == "__main__":
    main()
