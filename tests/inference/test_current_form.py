"""One Predictor and many threads: each gets what it would get alone, bit for bit, from the first image on."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.inference import Predictor
from segatlas.inference import current_form as room
from segatlas.inference.fast_form import PackedConv2d

CLASSES = ("sky", "road", "car")
THREADS = 8


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = create_model("unet", encoder="resnet18_w32", decoder_channels=[16, 16, 8, 8], num_classes=len(CLASSES))
    change(made, 1)
    return made


def change(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)


def predictor(net: nn.Module, precision: str = "fp32", **options) -> Predictor:
    return Predictor(net, make_card(net, classes=CLASSES), device="cpu", precision=precision, **options)


def image(seed: int = 0, size=(40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def at_once(*jobs):
    """Run jobs in threads that start together; return their results in order, or upsample the first error."""
    barrier, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def run(place, job):
        barrier.wait()
        try:
            results[place] = job()
        except BaseException as error:  # handed to the thread that asserts
            results[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def same(got, expected) -> bool:
    return np.array_equal(got.semantic, expected.semantic) and np.array_equal(got.confidence, expected.confidence)


def first_predictions_agree(net: nn.Module, precision: str, **options) -> bool:
    alone = predictor(net, precision, **options).predict(image(), confidence=True)
    ours = predictor(net, precision, **options)
    job = partial(ours.predict, image(), confidence=True)
    return all(same(result, alone) for result in at_once(*[job] * THREADS))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", [{}, {"window": 32}, {"tta": "flips"}], ids=["whole", "windows", "views"])
def test_the_first_predictions_of_many_threads_are_those_of_one(net, precision, options):
    assert first_predictions_agree(net, precision, **options)


def test_after_a_change_of_weights_many_threads_predict_with_the_new_ones(net):
    ours = predictor(net)
    for seed in (2, 3):
        change(net, seed)
        alone = predictor(net).predict(image(), confidence=True)
        job = partial(ours.predict, image(), confidence=True)
        assert all(same(result, alone) for result in at_once(*[job] * THREADS))


def test_the_fast_form_is_made_once_for_all_threads(net, monkeypatch):
    made, make = [], room.fast_form
    monkeypatch.setattr(room, "fast_form", lambda *args: made.append(args) or make(*args))
    ours = predictor(net)
    at_once(*[partial(ours.predict, image())] * THREADS)
    assert len(made) == 1


def test_predict_iter_scores_and_other_predictors_of_one_network_run_at_once(net):
    images = [image(seed, size) for seed, size in enumerate([(40, 56), (40, 56), (33, 41)])]
    normalised = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    alone = predictor(net)
    expected = list(alone.predict_iter(images, confidence=True))
    scores = alone.scores(normalised)
    ours, others = predictor(net), [predictor(net) for _ in range(2)]
    jobs = [lambda: list(ours.predict_iter(images, confidence=True))] * 3
    jobs += [lambda p=p: list(p.predict_iter(images, confidence=True)) for p in others]
    *results, seen, seen_too = at_once(*jobs, *[lambda: ours.scores(normalised)] * 2)
    assert all(same(got, want) for result in results for got, want in zip(result, expected, strict=True))
    assert torch.equal(seen, scores)
    assert torch.equal(seen_too, scores)


class SlowToGive(nn.Module):
    """Stands in for a convolution; notes who takes its weight, and is slow enough that others come meanwhile."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.kept, self.taken = weight, []

    @property
    def weight(self) -> torch.Tensor:
        self.taken.append(threading.get_ident())
        time.sleep(0.02)
        return self.kept


def test_a_convolution_is_packed_by_one_thread_for_all():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 8, 3, padding=1).bfloat16().requires_grad_(False), torch.randn(1, 8, 24, 24)
    if not PackedConv2d.takes(conv):
        pytest.skip("this torch packs no weights")
    with torch.inference_mode():
        expected = PackedConv2d(conv)(x)
    packed = PackedConv2d(conv)
    packed.conv = slow = SlowToGive(conv.weight)
    results = at_once(*[torch.inference_mode()(lambda: packed(x))] * THREADS)
    assert all(torch.equal(result, expected) for result in results)
    assert len(slow.taken) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copied_predictor_predicts_the_same(net, copied):
    ours = predictor(net)
    expected = ours.predict(image(), confidence=True)
    assert same(copied(ours).predict(image(), confidence=True), expected)
