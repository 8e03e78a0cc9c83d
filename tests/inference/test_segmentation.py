"""The class that users hold."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from fakes.model import make_model
from fakes.segmentations import CLASS_MAP, IMAGE, PALETTE, segmentation
from matplotlib.figure import Figure
from PIL import Image

import segatlas
from segatlas import drawing
from segatlas.errors import DataError, TaskError, UsageError
from segatlas.inference.segmentation import ELSEWHERE

LABELS = np.repeat(np.array([[0, 1, 1, 2]], np.uint8), 3, axis=0)
RESULT = segatlas.Segmentation(
    size=(3, 4),
    classes=("sky", "road", "car"),
    palette=((0, 0, 255), (90, 90, 90), (255, 0, 0)),
    class_map=LABELS,
    image=np.full((3, 4, 3), 200, np.uint8),
)
TASKS = ("semantic", "instance", "panoptic")


def test_images_of_a_result_are_those_of_drawing():
    assert np.array_equal(RESULT.mask_image(), drawing.color_mask(LABELS, RESULT.palette))
    assert np.array_equal(RESULT.overlay(), drawing.overlay(RESULT.image, LABELS, RESULT.palette, RESULT.classes))


def test_a_result_survives_pickling_and_equals_itself():
    assert pickle.loads(pickle.dumps(RESULT)) == RESULT
    assert replace(RESULT, class_map=LABELS[::-1, ::-1].copy()) != RESULT


@pytest.mark.parametrize("name", ["masks", "boxes", "pred_sem_seg", "names", "orig_img"])
def test_what_results_of_other_libraries_have_is_told_with_what_is_here(name):
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; here it is .*areas\(\), polygons\(\), overlay"):
        getattr(RESULT, name)
    here = ELSEWHERE[name].partition(",")[0]
    assert here in dir(RESULT) or here in RESULT.__dataclass_fields__


def test_a_result_is_no_list_of_results():
    with pytest.raises(TypeError, match=r"one image gives one result, not a list of them: use it without \[0\]"):
        RESULT[0]
    with pytest.raises(TypeError, match="not iterable"):
        iter(RESULT)
    assert not isinstance(RESULT, Iterable)


def test_looking_for_what_a_result_has_not_is_as_of_any_object():
    assert not any(hasattr(RESULT, name) for name in ("__array_interface__", "_repr_svg_", "__len__", "masks", "foo"))
    with pytest.raises(AttributeError, match=r"^'Segmentation' object has no attribute 'foo'$"):
        RESULT.foo  # noqa: B018
    assert copy.copy(RESULT) == copy.deepcopy(RESULT) == RESULT
    assert (np.asarray(RESULT).shape, np.asarray([RESULT, RESULT]).shape) == ((), (2,))


def test_instances_of_a_semantic_model_are_refused_naming_what_it_gives():
    with pytest.raises(TaskError, match="this model gives no instances; it can give: semantic"):
        _ = RESULT.instances


@pytest.mark.parametrize("task", TASKS)
def test_a_result_of_every_task_draws_plots_shows_and_lists_itself(task):
    result = segmentation(task)
    assert result.overlay().shape[1] >= 36
    assert result.overlay(legend=False).shape == result.mask_image().shape == (24, 36, 3)
    assert len(result.plot().axes) == 2
    assert result._repr_png_().startswith(b"\x89PNG")
    assert "street.jpg, 36 x 24 pixels" in result._repr_html_()
    assert json.loads(json.dumps(result.to_dict()))["size"] == {"height": 24, "width": 36}


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("semantic", "Segmentation(street.jpg, 24x36: ground 87.6 %, square 8.2 %, disc 4.2 %)"),
        ("instance", "Segmentation(street.jpg, 24x36: 2 objects, square 1, disc 1)"),
        ("panoptic", "Segmentation(street.jpg, 24x36: 3 segments, ground 1, square 1, disc 1)"),
    ],
)
def test_a_result_is_told_on_one_line(task, told):
    assert repr(segmentation(task)) == told


def test_a_result_with_nothing_found_is_told_drawn_and_saved(tmp_path):
    empty = segmentation("instance", objects=())
    assert repr(empty) == "Segmentation(street.jpg, 24x36: 0 objects)"
    assert np.array_equal(empty.overlay(legend=False), IMAGE)
    assert empty.areas() == empty.polygons() == {}
    assert len(empty.plot().axes) == 2
    assert len(empty.save(tmp_path)) == 2


def test_a_result_without_its_image_takes_one_or_is_drawn_in_colours_alone(tmp_path):
    bare = segmentation().without_image()
    assert bare.image is None
    assert np.array_equal(bare.overlay(legend=False), bare.mask_image())
    assert len(bare.plot().axes) == 1
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    whole = segmentation().overlay()
    for image in (IMAGE, tmp_path / "a.png", Image.fromarray(IMAGE), torch.from_numpy(IMAGE).permute(2, 0, 1) / 255):
        assert np.array_equal(bare.overlay(image=image), whole)


def test_an_image_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(DataError, match="an image of 30 x 20 pixels for a result of 36 x 24"):
        segmentation().overlay(image=np.zeros((20, 30, 3), np.uint8))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_image_of_any_channels_and_depth_lies_below_the_colours(channels, dtype):
    values = np.random.default_rng(0).integers(0, 255, (24, 36, channels)).astype(dtype)
    assert segmentation().overlay(image=values, legend=False).shape == (24, 36, 3)


def test_alpha_goes_from_the_image_to_the_colours():
    result = segmentation()
    assert np.array_equal(result.overlay(legend=False, alpha=0), IMAGE)
    assert np.array_equal(result.overlay(legend=False, alpha=1), result.mask_image())


def test_a_plot_is_drawn_on_axes_of_ones_own_in_pixels_of_the_image():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    assert segmentation("instance").plot(axes=axes) is axes.figure
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 35.5), (23.5, -0.5))
    assert [text.get_text() for text in axes.texts] == ["square 0.90", "disc 0.75"]
    assert len(segmentation(confidence=np.ones((24, 36), np.float32)).plot().axes) == 3


def test_names_of_others_are_text_in_html_and_in_plots():
    result = segmentation(classes=("<b>x</b>", "$a_", "half"), source='<img src="x">.png')
    html = result._repr_html_()
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "alt='<img" not in html
    assert result.plot().legends[0].get_texts()[1].get_text().startswith("$a_")


def test_a_notebook_is_given_the_result_and_a_machine_without_screen_is_told(monkeypatch):
    result, shown = segmentation(), []
    with pytest.raises(UsageError, match=r"no screen here .* \.save\('overlay\.png'\)"):
        result.show()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython, display.display = lambda: SimpleNamespace(kernel=object()), shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    result.show()
    assert shown == [result]
    ipython.get_ipython = lambda: SimpleNamespace()  # in a terminal
    with pytest.raises(UsageError, match="no screen"):
        result.show()


def test_on_a_screen_the_overlay_stands_in_a_window(monkeypatch):
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown = []
    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "a screen")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf().axes[0].images[0].get_array()))
    segmentation().show()
    pyplot.close()
    assert np.array_equal(shown[0], segmentation().overlay())


def test_a_result_names_the_model_that_was_loaded_as_its_json_file_does(tmp_path):
    model = make_model(tmp_path / "net")
    result = segatlas.load(model, device="cpu").predict(np.zeros((8, 8, 3), np.uint8))
    (file,) = result.save(tmp_path / "a.json")
    assert result.to_dict()["model"] == json.loads(file.read_text())["model"] == str(model)
    assert result.without_image().model == str(model)
    assert segmentation().to_dict()["model"] == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_black_class_is_not_tinted_and_its_box_in_the_legend_is_empty(task):
    black = (PALETTE[0], (0, 0, 0), PALETTE[2])
    result = segmentation(task, palette=black)
    drawn, tinted = result.overlay(legend=False), segmentation(task).overlay(legend=False)
    line = (tinted == drawing.maps.LINE).all(axis=2)
    of_black = (CLASS_MAP == 1) & ~line
    assert (drawn[of_black] == IMAGE[of_black]).all()
    assert np.array_equal(drawn[CLASS_MAP != 1], tinted[CLASS_MAP != 1])
    colors = [
        entry.get_facecolor()[:3] for entry in result.plot(axes=Figure().subplots()).axes[0].get_legend().get_patches()
    ]
    assert (0, 0, 0) not in colors
    assert (1, 1, 1) in colors
    assert (result.mask_image()[CLASS_MAP == 1] == 0).all()


def test_colours_of_classes_are_kept_in_what_is_drawn():
    assert segmentation().mask_image()[5, 7].tolist() == list(PALETTE[1])
    assert segmentation("instance").mask_image()[15, 25].tolist() == list(PALETTE[2])
    assert segmentation("instance").mask_image()[0, 0].tolist() == [0, 0, 0]
    counts = np.bincount(CLASS_MAP.ravel())
    assert segmentation().areas() == {"ground": counts[0], "square": counts[1], "disc": counts[2]}
