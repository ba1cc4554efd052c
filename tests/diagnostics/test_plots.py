"""Plots: they draw what the table says, on the axes they are given, with labels and units."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from art_lbgat import diagnostics as dg
from art_lbgat.diagnostics.plots import CLASS_COLOURS
from tests.conftest import make_classifier, make_data
from tests.diagnostics.cases import fixed, indices, linear

mpl.use("Agg")
X, Y = make_data(48)
ANCHORS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]], dtype=np.float32)
POINTS = np.array([[0.25, 0.5], [0.5625, 0.25], [0.0, 0.0]], dtype=np.float32)
LINES = {str(at): linear([[0, 0], [1, 0]], [0, -at]) for at in (0.5, 0.7)}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def tables():
    models = {name: make_classifier(seed=seed) for seed, name in enumerate("abc")}
    x_adv = np.clip(X + 0.1, 0, 1)
    ways = dg.directions(X, Y, seed=0)
    yield dg.plot_agreement, dg.agreement(models["a"], models, X, Y, x_adv)
    yield dg.plot_margins, dg.margins(models, X, Y, x_adv)
    yield dg.plot_boundary_distance, dg.boundary_distance(models, X, ways, steps=4)
    yield dg.plot_boundary_shift, dg.boundary_shift(models["a"], models["b"], X, ways, norm=2, steps=4)
    yield dg.plot_discrepancy, dg.transferred_discrepancy(models, {"class": (X, Y)}, head="logistic")
    yield dg.plot_calibration, dg.reliability(models, X, Y, x_adv)
    yield dg.plot_slice, dg.decision_slices(models["a"], X[:3], resolution=8)


TABLES = list(tables())
EVERY = pytest.mark.parametrize(("plot", "table"), TABLES, ids=[plot.__name__ for plot, _ in TABLES])


@EVERY
def test_each_takes_and_returns_axes_and_labels_them(plot, table):
    _, ax = plt.subplots()
    before = table.copy()
    assert plot(table, ax) is ax
    pd.testing.assert_frame_equal(table, before)
    assert all((ax.get_xlabel(), ax.get_ylabel(), ax.get_title()))
    assert len(ax.get_legend().get_texts()) >= 2
    assert len(plt.get_fignums()) == 1


@EVERY
def test_each_makes_axes_where_none_are_given(plot, table):
    made = plot(table)
    assert isinstance(made, Axes)
    made.figure.canvas.draw()  # nothing fails when it is laid out
    legend = made.get_legend().get_window_extent()
    assert legend.x1 <= made.figure.bbox.x1 + 1  # the legend is on the figure, and hides no part of the plot
    assert legend.x0 >= made.get_window_extent().x1


@EVERY
def test_each_refuses_another_table(plot, table):
    for other, error, message in (
        (pd.DataFrame({"other": [1]}), ValueError, "got one with missing columns"),
        (table.iloc[:0], ValueError, "got one with no rows"),
        ([1], TypeError, "got list"),
    ):
        with pytest.raises(error, match=f"frame: expected the table of .*, {message}"):
            plot(other)


def test_what_is_drawn_is_in_the_table():
    guide, model = fixed([[1, 0], [0, 1]]), fixed([[1, 0], [1, 0]])
    ax = dg.plot_agreement(dg.agreement(guide, {"m": model}, indices(2), [0, 1], indices(2)))
    assert [bar.get_height() for bar in ax.patches] == [50, 50, 50]
    assert [tick.get_text() for tick in ax.get_xticklabels()][1] == "guide: natural\nmodel: adversarial"

    ax = dg.plot_margins(dg.margins(fixed([[2, 0], [0, 1], [3, 0], [0, 5]]), indices(4), [0, 0, 0, 0]))
    np.testing.assert_array_equal(ax.lines[0].get_data(), [[-5, -1, 2, 3], [25, 50, 75, 100]])

    ax = dg.plot_calibration(dg.reliability(fixed([[0, 0], [9, 0]]), indices(2), [0, 0], bins=5))
    np.testing.assert_allclose(ax.lines[1].get_data(), [[0.5, 1], [1, 1]], atol=1e-3)

    ax = dg.plot_boundary_shift(dg.boundary_shift(LINES["0.7"], LINES["0.5"], POINTS, np.tile([1.0, 0.0], (3, 1))))
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.25, 0.45], [0.5, 0.7]], atol=1e-3)
    assert ax.get_legend().get_texts()[0].get_text() == "given (2 of 3)"


def test_boundary_curve_falls_where_the_boundaries_are():
    table = dg.boundary_distance(LINES["0.5"], POINTS, np.tile([1.0, 0.0], (3, 1)), tolerance=1e-6)
    ax = dg.plot_boundary_distance(table)
    distance, share = ax.lines[0].get_data()
    np.testing.assert_allclose(distance, [0, 0.25, 0.5, 0.525], atol=1e-5)
    np.testing.assert_allclose(share, [100, 200 / 3, 100 / 3, 100 / 3])
    assert "Linf" in ax.get_xlabel()


def test_boundary_plots_without_any_boundary():
    way = np.tile([0.0, 1.0], (3, 1))
    ax = dg.plot_boundary_distance(dg.boundary_distance(LINES["0.5"], POINTS, way, norm=2))
    assert list(ax.lines[0].get_ydata()) == [100, 100]
    assert ax.get_xlim()[1] == pytest.approx(np.sqrt(2))
    assert "L2" in ax.get_xlabel()
    zero = dg.boundary_distance(LINES["0.5"], POINTS, 0 * way)  # no distances at all
    assert np.isnan(dg.plot_boundary_distance(zero).lines[0].get_ydata()).all()
    ax = dg.plot_boundary_shift(dg.boundary_shift(*LINES.values(), POINTS, way))
    assert ax.get_legend().get_texts()[0].get_text() == "given (0 of 3)"
    assert ax.get_xlim() == (0, 1)


def test_discrepancy_bars_are_the_values():
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    rows = [{"first": f, "second": s, "task": t, "discrepancy": i + 10 * (t == "mean")}
            for i, (f, s) in enumerate(pairs) for t in ("digit", "mean")]  # fmt: skip
    ax = dg.plot_discrepancy(pd.DataFrame(rows))
    assert [bar.get_height() for bar in ax.patches] == [0, 10, 1, 11, 2, 12]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a / b", "a / c", "b / c"]


def slices(models=None, **kwargs):
    return dg.decision_slices(models or LINES, ANCHORS, resolution=21, names=("a", "b", "c"), **kwargs)


def test_slices_stand_side_by_side_with_one_legend():
    table = slices()
    axes = dg.plot_slices(table)
    assert [ax.get_title() for ax in axes] == ["0.5", "0.7"]
    assert [ax.get_legend() is not None for ax in axes] == [False, True]
    texts = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    assert texts == ["a", "b", "c", "class 0", "class 1", "boundary", "end of clip_values"]
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False]
    inner = dg.decision_slices(LINES["0.5"], 0.25 + ANCHORS / 4, resolution=5)  # valid images only
    assert dg.plot_slice(inner).get_legend().get_texts()[-1].get_text() == "boundary"
    figure, given = plt.subplots(1, 2)
    assert dg.plot_slices(table, list(given)) == list(given)
    figure.canvas.draw()


def test_slice_paints_the_classes_and_marks_the_images():
    table = slices({"only": linear([[0, 0], [1, 3]], [0, -1])})  # a slanted boundary, so that nothing is symmetric
    ax = dg.plot_slice(table.sample(frac=1, random_state=0))  # in any order of the rows
    image = ax.images[0]
    assert image.origin == "lower"
    u, v = np.unique(table["u"]), np.unique(table["v"])
    for _, row in table.iterrows():
        pixel = image.get_array()[np.searchsorted(v, row["v"]), np.searchsorted(u, row["u"])]
        colour = np.array(to_rgb(CLASS_COLOURS[row["predicted"]]))
        np.testing.assert_allclose(pixel, 1 - (0.25 + 0.75 * row["confidence"]) * (1 - colour), atol=1e-6)
    left, right, below, above = image.get_extent()
    assert left < u[0] < u[-1] < right
    assert below < v[0] < v[-1] < above
    markers = [line.get_xydata()[0].tolist() for line in ax.lines]
    np.testing.assert_allclose(markers, [[0, 0], [1, 0], [0, 0.5]], atol=1e-7)
    assert [text.get_text() for text in ax.texts] == ["0", "1"]
    named = dg.plot_slice(
        table, class_names=["zero", "a name that is far too long for its region, so that it is left out"]
    )
    assert [text.get_text() for text in named.texts] == ["zero"]
    assert named.get_legend().get_texts()[3].get_text() == "class zero"


def test_slice_needs_to_know_which_model():
    with pytest.raises(ValueError, match=r"model: expected one of \['0.5', '0.7'\], got None; plot_slices draws all"):
        dg.plot_slice(slices())
    with pytest.raises(ValueError, match=r"model: expected one of \['0.5', '0.7'\], got 'x'"):
        dg.plot_slice(slices(), model="x")
    assert dg.plot_slice(slices(), model="0.7", legend=False).get_legend() is None
    with pytest.raises(ValueError, match=r"axes: expected one for each of \['0.5', '0.7'\], got 1"):
        dg.plot_slices(slices(), [plt.subplots()[1]])
