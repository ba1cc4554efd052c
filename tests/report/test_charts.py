"""Geometry: axes, lines, fronts, regions, pictures."""

import base64
import io
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from art_lbgat.report import charts
from art_lbgat.report.charts import Series, lines, scatter, thin
from art_lbgat.report.images import LARGEST, amplified_difference, make_cards, png_uri
from art_lbgat.report.scales import CHARACTER, make_axis
from art_lbgat.report.slice_figures import edges, make_slices
from art_lbgat.report.tables import Table, interval, number, percent, significant
from tests.report.cases import pictures, slices

TABLE = Table("t", ("a",), ("",), (), ())
finite = st.floats(-1e7, 1e7).filter(lambda v: v == 0 or abs(v) > 1e-7)


def points(polyline):
    return [tuple(map(float, pair.split(","))) for pair in polyline.split()]


@given(st.lists(finite, min_size=1, max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_axes_show_all_values_and_their_labels_do_not_overlap(values, horizontal, tight, whole):
    start, end = (46, 424) if horizontal else (256, 30)
    axis = make_axis(values, start, end, tight=tight, whole=whole)
    assert axis.low < axis.high
    rounding = 1e-9 * max(map(abs, values))
    assert axis.low <= min(values) + rounding
    assert axis.high >= max(values) - rounding
    at = [tick.at for tick in axis.ticks]
    assert at == sorted(at, reverse=not horizontal)
    assert len(axis.ticks) <= 9
    for (one, label), (other, following) in zip(axis.ticks, axis.ticks[1:], strict=False):
        assert label != following
        if horizontal:
            assert abs(other - one) > CHARACTER * (len(label) + len(following)) / 2 * 0.9
        else:
            assert abs(other - one) >= 2 * CHARACTER * 0.9


@pytest.mark.parametrize(("values", "bounds", "expected"), [
    ([3, 97], (0, 100), ["0", "20", "40", "60", "80", "100"]),
    ([0.0, 0.6], (-math.inf, math.inf), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]),
    ([0, 0.031], (0, 1), ["0.000", "0.005", "0.010", "0.015", "0.020", "0.025", "0.030", "0.035"]),
])  # fmt: skip
def test_ticks_are_round_numbers(values, bounds, expected):
    assert [tick.label for tick in make_axis(values, 256, 30, bounds=bounds).ticks] == expected


def test_epochs_are_whole_numbers():
    assert [t.label for t in make_axis([1, 2, 3], 46, 424, whole=True, tight=True).ticks] == ["1", "2", "3"]
    assert [t.label for t in make_axis([5], 46, 424, whole=True, tight=True).ticks] == ["4", "5", "6"]


def test_values_stand_where_the_axis_says():
    axis = make_axis([0, 100], 256, 30)
    assert [axis.at(v) for v in (0, 50, 100, 200)] == [256, 143, 30, 30]


def test_a_line_has_a_gap_where_a_value_is_missing():
    chart = lines("t", "a", [Series("s", [1, 2, 3, 4], [1, math.nan, 3, 4], [0, 0, 2, 3], [2, 2, 4, 5])], TABLE,
                  x_label="x", y_label="y")  # fmt: skip
    (mark,) = chart.marks
    assert [len(points(line)) for line in mark.lines] == [1, 2]
    assert len(points(mark.bands[1])) == 4
    assert points(mark.lines[1])[1] == (chart.x.at(4), chart.y.at(4))


def test_styles_differ_in_more_than_colour():
    marks = lines(
        "t", "a", [Series(str(i), [0, 1], [i, i], style=i) for i in range(30)], TABLE, x_label="x", y_label="y"
    ).marks
    assert len({(mark.style, mark.marker) for mark in marks}) == 30
    by_colour = {}
    for mark in marks:
        colour, dash = mark.style.split()
        by_colour.setdefault(colour, []).append((dash, mark.marker))
    assert all(len(set(each)) == len(each) for each in by_colour.values())


def test_many_points_are_thinned_with_both_ends():
    assert thin(5) == [0, 1, 2, 3, 4]
    kept = thin(10_001)
    assert (len(kept), kept[0], kept[-1]) == (charts.LIMIT, 0, 10_000)


def test_the_front_is_a_staircase_and_intervals_are_bars():
    chart = scatter("t", "a", [Series("ours", [90], [50], [45], [55], [88], [92], True)], TABLE, x_label="x", y_label="y",
                    backdrop=Series("b", [80, 95, 70], [60, 40, 10]), front=Series("f", [80, 95], [60, 40]))  # fmt: skip
    front, board, ours = chart.marks
    corners = points(front.lines[0])
    assert corners[1] == (chart.x.at(80), chart.y.at(60))
    assert corners[3] == (chart.x.at(95), chart.y.at(40))
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners))
    assert len(board.points) == 3
    assert ours.bars == ((chart.x.at(90), chart.y.at(45), chart.x.at(90), chart.y.at(55)),
                         (chart.x.at(88), chart.y.at(50), chart.x.at(92), chart.y.at(50)))  # fmt: skip


def test_edges_run_between_cells_that_differ():
    path = edges(np.array([[0, 1], [0, 0]]), [0, 10, 20], [20, 10, 0])
    assert sorted(re.findall(r"M[^M]+", path)) == ["M10 10H20", "M10 20V10"]


def test_slices_have_regions_labels_images_and_shares():
    (guide, ours), swatches = make_slices(slices(), ("zero", "one", "two"))
    assert (guide.title, ours.title) == ("guide", "ours")
    assert [s.name for s in swatches] == ["zero", "one", "two"]
    assert {label.text for label in guide.labels} == {"zero", "one", "two"}
    assert [row[1] for row in guide.table.rows] == ["25.0", "50.0", "25.0"]
    assert [mark.name for mark in guide.anchors] == ["image 1", "image 2", "image 3"]
    assert guide.limit.count("M") == 12
    image = np.asarray(decode(guide.uri))
    assert image.shape == (12, 12, 3)
    assert (image[0, 0] == image[-1, -1]).all()  # upper left and lower right are both class 1: not upside down
    assert (image[0, -1] != image[-1, 0]).any()


def test_slices_that_are_no_grid():
    with pytest.raises(ValueError, match="slices: expected a grid of points for 'guide'"):
        make_slices(slices().iloc[1:], ())


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_their_pixels(channels):
    x = np.round(np.random.default_rng(0).random((channels, 5, 7)) * 255) / 255
    back = np.asarray(decode(png_uri(x))).reshape(5, 7, channels).transpose(2, 0, 1) / 255
    np.testing.assert_array_equal(back, x)
    assert max(decode(png_uri(np.zeros((channels, 300, 200)), LARGEST)).size) == LARGEST


def test_differences_are_amplified_around_grey():
    x = np.full((2, 1, 2, 2), 100.0)
    x_adv = x + np.array([[[[8, -8], [0, 4]]], [[[0, 0], [0, 0]]]])
    shown, factor = amplified_difference(x, x_adv, 255.0)
    assert factor == pytest.approx(255 / 16)
    np.testing.assert_allclose(shown[0, 0], [[1, 0], [0.5, 0.75]])
    assert (amplified_difference(x, x, 255.0)[0] == 0.5).all()


def test_cards_say_what_is_wrong():
    cards, factor, table = make_cards(pictures())
    assert [p.label for p in cards[0].pictures] == ["natural: zero", "adversarial: one (wrong)", "change ×\xa05"]
    assert [p.wrong for p in cards[0].pictures] == [False, True, False]
    assert table.rows[0][4] == "0.1"
    assert factor == pytest.approx(5)


def test_numbers():
    assert (percent(0.5), percent(math.nan), number(-0.04), number(-1.25, 2)) == ("50.0", "–", "0.0", "−1.25")
    assert (interval(0.1, 0.25), interval(math.nan, 1), significant(0.031373)) == ("[10.0,\xa025.0]", "", "0.03137")
