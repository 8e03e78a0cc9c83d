"""Streams: keys with results or errors in order, from anything that can be iterated, and a thread that ends."""

from __future__ import annotations

import io
import threading
from itertools import count
from queue import Queue

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segatlas.checkpoint.card import Card, Preprocessing
from segatlas.errors import DataError, UsageError
from segatlas.inference import Predictor, Segmentation, reader
from segatlas.inference.reader import in_groups, read_ahead
from segatlas.structures import SemanticLogits

THREAD = "segatlas-read"


class Brightness(nn.Module):
    """Class 1 where a pixel is bright."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        bright = (x.mean(1) - 0.5) * self.weight
        if x.shape[-1] == 13:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return SemanticLogits(torch.stack([-bright, bright], 1), canvas=tuple(x.shape[-2:]))


def predictor() -> Predictor:
    plain = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    card = Card(
        architecture="unet",
        config={},
        classes=("dark", "bright"),
        palette=((0, 0, 0), (255, 255, 255)),
        preprocessing=plain,
    )
    return Predictor(Brightness(), card, device="cpu")


def frame(seed: int = 0, size=(6, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def frames():
    return (frame(seed) for seed in count())


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD and thread.is_alive()]


def told(outcomes) -> list[object]:
    return [(key, type(one).__name__ if isinstance(one, Exception) else one.semantic.tolist()) for key, one in outcomes]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_keys_of_any_kind_come_back_in_order_with_results_or_errors(tmp_path, batch):
    ours = predictor()
    Image.fromarray(frame(3)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no image")
    items = [
        ({"file": 1}, tmp_path / "a.png"),
        (None, tmp_path / "bad.png"),
        ("same", frame(1)),
        ("same", frame(2, (4, 5))),
        (4, tmp_path / "missing.png"),
        (frame, frame(5)),
    ]
    kinds = [
        ours.predict(image).semantic.tolist() if number not in (1, 4) else "DataError"
        for number, (_, image) in enumerate(items)
    ]
    expected = list(zip([key for key, _ in items], kinds, strict=True))
    outcomes = list(ours.predict_stream(items, batch=batch))
    assert told(outcomes) == expected
    assert [outcomes[number][1].path for number in (1, 4)] == [tmp_path / "bad.png", tmp_path / "missing.png"]


def test_arrays_tensors_images_of_pillow_and_bytes_work_as_files_do(tmp_path):
    image = frame(8)
    Image.fromarray(image).save(tmp_path / "a.png")
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    given = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        image,
        Image.fromarray(image),
        (tmp_path / "a.png").read_bytes(),
        tensor,
        tensor.float() / 255,
    ]
    ours = predictor()
    wanted = ours.predict(image, confidence=True)
    for key, result in ours.predict_stream(enumerate(given), batch=3, confidence=True):
        assert np.array_equal(result.semantic, wanted.semantic), key
        assert np.allclose(result.confidence, wanted.confidence), key


@pytest.mark.parametrize("batch", [1, 3])
def test_an_endless_stream_that_is_closed_early_leaves_no_thread_and_takes_no_more(batch):
    taken = []
    stream = predictor().predict_stream(((taken.append(key), image) for key, image in enumerate(frames())), batch=batch)
    for _ in range(4):
        next(stream)
    stream.close()
    seen = len(taken)
    assert seen <= 4 + 3 * batch
    assert reading() == []
    assert len(taken) == seen


def test_leaving_a_loop_ends_the_thread_too():
    for key, _ in predictor().predict_stream(enumerate(frames())):
        if key == 2:
            break
    assert reading() == []


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_an_error_of_the_users_own_iterator_reaches_the_user_after_the_results_before_it(batch):
    def broken():
        yield "a", frame(0)
        yield "b", frame(1)
        yield "c", frame(2)
        raise ZeroDivisionError("the camera is gone")

    seen = []
    with pytest.raises(ZeroDivisionError, match="the camera is gone") as caught:
        seen.extend(key for key, _ in predictor().predict_stream(broken(), batch=batch))
    assert seen == ["a", "b", "c"]
    assert any(entry.name == "broken" for entry in caught.traceback)
    assert reading() == []


def test_a_data_error_of_the_users_own_iterator_is_no_result():
    def broken():
        yield "a", frame(0)
        raise DataError("the tape has ended")

    with pytest.raises(DataError, match="the tape has ended"):
        list(predictor().predict_stream(broken()))


def test_a_result_is_given_before_the_next_frame_is_there():
    replies = Queue()

    def camera():
        yield 0, frame(0)
        yield 1, frame(replies.get(timeout=60))

    stream = predictor().predict_stream(camera())
    first = next(stream)
    replies.put(1)
    assert [first[0], next(stream)[0]] == [0, 1]


def test_closing_does_not_wait_for_an_iterator_that_gives_nothing_more(monkeypatch):
    monkeypatch.setattr(reader, "PATIENCE", 0.01)
    go_on, waits, taken = threading.Event(), threading.Event(), []

    def camera():
        for seed in count():
            taken.append(seed)
            yield seed, frame(seed)
            if seed:
                waits.set()
                go_on.wait(60)

    stream = predictor().predict_stream(camera())
    next(stream)
    assert waits.wait(60)
    stream.close()
    (thread,) = reading()
    assert thread.daemon
    go_on.set()
    thread.join(60)
    assert reading() == []
    assert len(taken) <= 3


def test_an_error_in_an_images_place_is_handed_on():
    fault = DataError("was dropped on the way")
    outcomes = list(predictor().predict_stream([(0, frame(0)), (1, fault), (2, frame(2))], batch=3))
    assert [key for key, _ in outcomes] == [0, 1, 2]
    assert outcomes[1][1] is fault


def test_images_that_memory_does_not_suffice_for_are_told_and_others_of_their_pass_are_predicted():
    items = [(0, frame(0)), (1, frame(1, (6, 13))), (2, frame(2))]
    outcomes = list(predictor().predict_stream(items, batch=3))
    assert [type(one) for _, one in outcomes] == [Segmentation, DataError, Segmentation]
    assert "not enough memory for 1 image(s) of 6x13" in str(outcomes[1][1])


@pytest.mark.parametrize(
    ("item", "found"), [("a.png", "got a str;"), ((1, 2, 3), "got a tuple of 3;"), (frame(0), "got a ndarray;")]
)
def test_an_item_that_is_no_pair_is_told(item, found):
    with pytest.raises(UsageError, match=rf"takes pairs \(key, image\), {found} predict_iter takes images alone"):
        list(predictor().predict_stream([item]))


def test_a_batch_of_none_is_refused_and_an_empty_stream_is_empty():
    with pytest.raises(UsageError, match="batch: got 0"):
        list(predictor().predict_stream([], batch=0))
    with pytest.raises(UsageError, match=r"batch: got 1\.5, expected a whole number"):
        list(predictor().predict_stream([], batch=1.5))
    assert list(predictor().predict_stream(iter(()), batch=2)) == []


def test_frames_without_keys_give_results_in_order():
    results = predictor().predict_iter(frames())
    assert [next(results).semantic.tolist() for _ in range(3)] == [
        predictor().predict(frame(seed)).semantic.tolist() for seed in range(3)
    ]
    results.close()
    assert reading() == []


def test_reading_goes_no_further_than_asked_and_no_slower():
    taken, full = [], threading.Semaphore(0)

    def make(item):
        taken.append(item)
        full.release()
        return -item

    stream = read_ahead(count(), make, ahead=3)
    assert next(stream) == 0
    for _ in range(4):
        assert full.acquire(timeout=60)
    assert not full.acquire(timeout=0.05)
    assert taken == [0, 1, 2, 3]
    stream.close()


def test_groups_are_given_as_soon_as_they_are_full():
    taken = []
    groups = in_groups((taken.append(number) or number for number in range(5)), 2)
    assert (next(groups), taken) == ([0, 1], [0, 1])
    assert list(groups) == [[2, 3], [4]]
    assert list(in_groups(iter(range(4)), 2)) == [[0, 1], [2, 3]]


def test_bytes_of_an_image_in_memory_are_read_as_its_file():
    held = io.BytesIO()
    Image.fromarray(frame(1)).save(held, "PNG")
    ours = predictor()
    (result,) = ours.predict_iter([held.getvalue()])
    assert np.array_equal(result.semantic, ours.predict(frame(1)).semantic)
