import io
import sys
from itertools import combinations

import numpy as np
from PIL import Image

from segatlas.drawing import plots
from segatlas.drawing.plots import bars_image, confusion_image, curves_image, read_metrics


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_metrics_csv_is_read_with_empty_and_unreadable_cells_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,val/miou\n10,1.5,\n20,nan,0.25\n")
    assert read_metrics(path) == [{"step": 10.0, "train/loss": 1.5}, {"step": 20.0, "val/miou": 0.25}]


def metrics_file(path, columns, lines):
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def test_curves_get_one_panel_for_each_kind_of_column(tmp_path):
    losses = metrics_file(tmp_path / "a.csv", "step,loss", [f"{step},{1 / step}" for step in range(1, 9)])
    lines = [f"{step},1,0.1,0.5,9.0,{0.1 * step},ce=0.3" for step in range(1, 9)]
    all_kinds = metrics_file(tmp_path / "b.csv", "step,epoch,lr,loss,images_per_s,val_miou,terms", lines)
    one, three = opened(curves_image(losses)), opened(curves_image(all_kinds))
    assert one.shape[0] == three.shape[0]
    assert three.shape[1] > 2.5 * one.shape[1]


def test_curves_of_an_empty_run_are_an_empty_image_not_an_error(tmp_path):
    assert opened(curves_image(metrics_file(tmp_path / "a.csv", "step,loss", []))).min() > 200


def test_confusion_image_colours_rows_by_their_fraction_not_by_their_count():
    same_fractions = opened(confusion_image(np.array([[900, 100], [1, 9]]), ["a", "b"]))
    scaled = opened(confusion_image(np.array([[9, 1], [100, 900]]), ["a", "b"]))
    assert np.array_equal(same_fractions, scaled)


def test_confusion_image_takes_150_classes_and_a_class_that_never_occurred():
    matrix = np.eye(150)
    matrix[3] = 0
    assert min(opened(confusion_image(matrix, [f"class {i}" for i in range(150)])).shape[:2]) > 1500


def test_bars_are_drawn_in_the_colour_of_their_class():
    image = opened(
        bars_image(["a", "b", "c"], [0.5, None, float("nan")], [(200, 10, 10), (10, 200, 10), (10, 10, 200)])
    )
    assert (image == (200, 10, 10)).all(axis=2).sum() > 1000
    assert (image == (10, 200, 10)).all(axis=2).sum() == 0


def test_plots_need_no_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert opened(confusion_image(np.eye(2), ["a", "b"])).size > 0


def test_any_score_of_validation_is_drawn_and_the_one_that_ranks_the_weights_is_marked(tmp_path):
    lines = [f"{step},{0.1 * step}" for step in range(1, 9)]
    corner = metrics_file(tmp_path / "a.csv", "step,val_mean_corner", lines)
    none = metrics_file(tmp_path / "b.csv", "step,epoch", lines)
    drawn = opened(curves_image(corner))
    assert drawn.min() < 200 <= opened(curves_image(none)).min()
    assert not np.array_equal(opened(curves_image(corner, best="mean_corner")), drawn)
    assert np.array_equal(opened(curves_image(corner, best="miou")), drawn)


def test_points_side_by_side_have_their_names_at_places_that_do_not_overlap(monkeypatch):
    boxes = []

    def keep(figure, axes, points):
        write(figure, axes, points)
        boxes.extend(text.get_window_extent().extents for text in axes.texts)

    write = plots._write_names
    monkeypatch.setattr(plots, "_write_names", keep)
    points = {f"network {index}": (1 + 0.02 * index, 70 + 0.1 * index) for index in range(6)} | {"far": (40.0, 75.0)}
    groups = {name: "one" if name == "far" else "other" for name in points}
    image = plots.scatter_image(points, title="t", xlabel="x", ylabel="y", groups=groups)
    assert image.startswith(b"\x89PNG")
    assert len(boxes) == len(points)
    apart = [a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for a, b in combinations(boxes, 2)]
    assert all(apart)
