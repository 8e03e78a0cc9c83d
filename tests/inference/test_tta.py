import pytest
import torch
from fakes.views import sees, undo

from segatlas.errors import UsageError
from segatlas.inference.tta import View, mean_of_views, parse_views

ALL_POSES = [View(turns=turns, flip=flip) for turns in range(4) for flip in (False, True)]


@pytest.mark.parametrize("view", ALL_POSES)
def test_undo_brings_every_pose_back(view):
    images = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    seen = view.apply(images)
    assert tuple(seen.shape[-2:]) == sees(view, (4, 5))
    assert torch.equal(undo(view, seen), images)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("", 0),
        ((), 0),
        ("flips", 2),
        ("vertical", 2),
        ("turns", 4),
        ("flips,vertical", 4),
        ("turns,flips", 8),
        ("flips,turns", 8),
        ("turns,flips,vertical", 8),
        ("scales", 3),
        ("scales:0.5,1,1.5,flips", 6),
        (("flips", "scales:0.75,1.25"), 4),
        ("flips,flips", 2),
    ],
)
def test_words_multiply_and_no_view_comes_twice(words, count):
    views = parse_views(words)
    assert len(views) == count
    assert len(set(views)) == count


def test_all_poses_of_turns_and_flips_look_different():
    tile = torch.arange(9.0).view(1, 1, 3, 3)
    assert len({tuple(view.apply(tile).flatten().tolist()) for view in parse_views("turns,flips")}) == 8


def test_vertical_adds_the_image_upside_down():
    images = torch.rand(1, 3, 4, 5)
    seen = [view.apply(images) for view in parse_views("vertical")]
    assert any(torch.equal(view, images.flip(-2)) for view in seen)
    assert any(torch.equal(view, images) for view in seen)


def test_scales_are_exactly_those_listed():
    assert [view.scale for view in parse_views("scales:0.75,1.25")] == [0.75, 1.25]


def test_a_scaled_view_has_at_least_one_pixel_a_side():
    assert View(scale=0.1).apply(torch.zeros(1, 3, 1, 40)).shape == (1, 3, 1, 4)


@pytest.mark.parametrize("words", ["flip", "scales:x", "scales:0", "scales:-1", "0.75", "flips,0.75", "scales,flips,2"])
def test_a_word_that_is_not_known_is_named(words):
    with pytest.raises(UsageError, match="test-time augmentation"):
        parse_views(words)


@pytest.mark.parametrize("view", ALL_POSES)
def test_pose_says_how_a_map_becomes_upright(view):
    seen = view.apply(torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5))
    swapped, reversed_rows, reversed_columns = view.pose()
    upright = seen.transpose(-1, -2) if swapped else seen
    upright = upright.flip(-2) if reversed_rows else upright
    upright = upright.flip(-1) if reversed_columns else upright
    assert torch.equal(upright, undo(view, seen))


class Whole:
    """Logits at hand, given out by rows."""

    def __init__(self, logits):
        self.logits = logits

    def rows(self, first, last):
        return self.logits[:, :, first:last]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_mean_of_views_is_that_of_their_softmax_held_or_not(held, step):
    logits = torch.randn(3, 2, 4, 7, 5, generator=torch.Generator().manual_seed(0))
    chunks = list(mean_of_views((Whole(one) for one in logits), 3, 7, step, held=held))
    assert max(chunk.shape[2] for chunk in chunks) <= step
    torch.testing.assert_close(torch.cat(chunks, 2), logits.softmax(2).mean(0))


@pytest.mark.parametrize("held", [True, False])
def test_exponentials_are_added_and_a_surer_view_weighs_more(held):
    logits = 3 * torch.randn(3, 2, 4, 7, 5, generator=torch.Generator().manual_seed(0))
    chunks = mean_of_views((Whole(one.exp()) for one in logits), 3, 7, 3, held=held, exponential=True)
    total, found = logits.exp().sum(0), torch.cat(list(chunks), 2)
    torch.testing.assert_close(found, total / total.sum(1, keepdim=True))
    assert (found.argmax(1) != logits.softmax(2).mean(0).argmax(1)).any()


def test_exp_is_a_word_beside_scales():
    assert {view.exponential for view in parse_views("scales:0.5,1,exp")} == {True}
    assert [view.scale for view in parse_views("scales:0.5,1,exp")] == [0.5, 1.0]
    assert not any(view.exponential for view in parse_views("flips"))
