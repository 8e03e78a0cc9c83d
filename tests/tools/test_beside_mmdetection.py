"""The table of recipes beside MMDetection's settings says what the recipes say today."""

import pytest

import beside_mmdetection


def cells():
    """Return recipe -> fact -> its cell of the page."""
    text = beside_mmdetection.PAGE.read_text(encoding="utf-8")
    lines = text.split(beside_mmdetection.MARKS[0])[1].split(beside_mmdetection.MARKS[1])[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [cell.strip("`") for cell in rows[0][1:]]
    return {name: {row[0]: row[index + 1] for row in rows[2:]} for index, name in enumerate(names)}


@pytest.mark.parametrize("recipe", beside_mmdetection.PEERS)
def test_the_page_shows_our_figures(recipe):
    shown = cells()[recipe]
    for fact, figure in beside_mmdetection.ours(recipe).items():
        assert shown[fact] == figure or shown[fact].startswith(f"**{figure}** (theirs ")


def test_the_page_says_what_is_unlike_and_it_is_the_sizes_of_those_that_are_drawn_in_steps():
    unlike = [(name, fact) for name, row in cells().items() for fact, cell in row.items() if "**" in cell]
    assert unlike == [(name, "sizes") for name in ("pointrend_instance_coco", "condinst_coco", "maskformer_coco")]
