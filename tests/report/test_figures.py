"""Figures: what matplotlib draws of the tables, as SVG that belongs into the page."""

import base64
import io
import itertools
import math
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from art_lbgat.report import figures
from art_lbgat.report.figures import LARGEST, Series, amplified_difference, lines, png_uri
from tests.report.cases import slices

finite = st.floats(-1e7, 1e7).filter(lambda v: v == 0 or abs(v) > 1e-7)
LABELS = {"x_label": "epoch", "y_label": "loss"}


def parsed(drawing):
    return ElementTree.fromstring(f"<svg>{drawing.svg}</svg>")  # noqa: S314


def texts(drawing):
    return [(t.text, float(t.get("x")), float(t.get("y")), t.get("text-anchor")) for t in parsed(drawing).iter("text")]


def strokes(drawing, colour):
    """The points of the lines of a colour."""
    paths = [p.get("d") for p in parsed(drawing).iter("path") if p.get("stroke") == colour and "M 0 " not in p.get("d")]
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", d), dtype=float) for d in paths]


@given(st.lists(finite, min_size=1, max_size=8), st.booleans())
@settings(max_examples=30, deadline=None)
def test_axes_show_all_values_and_their_labels_do_not_overlap(values, whole):
    drawing = lines("k", [Series("s", list(range(len(values))), values)], whole_x=whole, **LABELS)
    found = texts(drawing)
    upright = [(text, y) for text, _, y, anchor in found if anchor == "end" and text != "epoch"]
    across = [(text, x) for text, x, _, anchor in found if anchor == "middle"]
    assert 2 <= len(upright) <= 10
    for axis in (upright, across):
        assert len({text for text, _ in axis}) == len(axis)
    assert all(abs(one - other) > 14 for (_, one), (_, other) in itertools.pairwise(upright))
    for (one, left), (other, right) in itertools.pairwise(across):
        assert right - left > 8.6 * (len(one) + len(other)) / 2
    assert all(0 <= y <= 300 for _, y in upright)
    for points in strokes(drawing, "var(--c0)"):
        assert (points >= 0).all()
        assert (points[:, 1] <= 300 - 48 + 0.1).all()


@pytest.mark.parametrize(("values", "bounds", "expected"), [
    ([3, 97], (0, 100), ["0", "20", "40", "60", "80", "100"]),
    ([0.0, 0.6], (-math.inf, math.inf), ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]),
    ([-1, 1], (-math.inf, math.inf), ["−1", "−0.5", "0", "0.5", "1"]),
    ([0, 0], (0, 100), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
])  # fmt: skip
def test_ticks_are_round_numbers_within_the_bounds(values, bounds, expected):
    found = texts(lines("k", [Series("s", [1, 2], values)], y_bounds=bounds, **LABELS))
    assert [text for text, _, _, anchor in found if anchor == "end" and text != "epoch"] == expected


def test_a_line_has_a_gap_where_a_value_is_missing():
    series = Series("s", [1, 2, 3, 4], [0, math.nan, 3, 4], [0, 0, 2, 3], [2, 2, 4, 5])
    drawing = lines("k", [series], **LABELS)
    (line,) = strokes(drawing, "var(--c0)")
    assert line[-1][0] == 440 - 16
    moves = [p.get("d").count("M") for p in parsed(drawing).iter("path") if p.get("stroke-width") == "2"]
    assert moves == [2]
    assert {each.get("fill-opacity") for each in parsed(drawing).iter()} - {None} == {"0.14"}
    assert len(list(parsed(drawing).iter("use"))) >= 3


def test_what_is_drawn_needs_no_style_and_collides_with_no_other_figure():
    series = [Series("s", [1, 2], [1, 2], [0, 1], [2, 3])]
    one, other = (lines(key, series, **LABELS) for key in ("one", "other"))
    assert str(one.svg).replace('"one-', '"other-').replace("#one-", "#other-") == other.svg
    made = [one, *[entry.swatch for entry in one.legend]]
    for svg in (getattr(each, "svg", each) for each in made):
        assert not re.search(r"style|clip-path|<metadata|url\(|#0[1-4]0", svg)
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert ids == set(re.findall(r'href="#([^"]+)"', svg))
        assert all(each.startswith("one-") for each in ids)
    assert not set(re.findall(r' id="([^"]+)"', one.svg)) & set(re.findall(r' id="([^"]+)"', one.legend[0].swatch))


def test_settings_of_the_user_change_no_figure_and_are_left_alone():
    series = [Series("s", [1, 2], [1, 2])]
    plain = lines("k", series, **LABELS)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "text.color": "red"}):
        before = dict(mpl.rcParams)
        assert lines("k", series, **LABELS) == plain
        assert dict(mpl.rcParams) == before


def test_older_versions_of_matplotlib_write_the_font_in_one():
    text = """<text style="font: 700 12px 'DejaVu Sans', sans-serif; text-anchor: middle" x="1"/>"""
    old = ElementTree.fromstring(text)  # noqa: S314
    found = ElementTree.Element("svg")
    figures.copy_element(old, found, "k")
    assert found[0].attrib == {"font-weight": "700", "font-size": "12px", "text-anchor": "middle", "x": "1"}


def test_slices_have_regions_labels_and_images():
    with pytest.raises(ValueError, match="slices: expected a grid of points for 'guide'"):
        figures.slices("k", slices().iloc[1:], ())
    drawings, legend = figures.slices("k", slices(resolution=40), ("zero", "o$n$e\x00", "日本"))
    assert len(drawings) == 2
    images = ["image 1", "image 2", "image 3"]
    assert [entry.name for entry in legend] == ["class zero", "class o$n$e\x00", "class 日本", *images]
    root = parsed(drawings[0])
    assert {t.text for t in root.iter("text") if t.get("font-weight") == "700"} == {"zero", "o$n$e\ufffd", "日本"}
    (image,) = root.iter("image")
    pixels = np.asarray(decode(image.get("href")).convert("RGB"))
    assert re.match(r"matrix\(\S+ 0 0 -", image.get("transform"))  # row 0 is the lowest
    assert (pixels[0, -1] == pixels[-1, 0]).all()  # upper left and lower right are both class 1
    assert (pixels[0, 0] != pixels[-1, -1]).any()


def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_their_pixels(channels):
    x = np.round(np.random.default_rng(0).random((channels, 5, 7)) * 255) / 255
    back = np.asarray(decode(png_uri(x))).reshape(5, 7, channels).transpose(2, 0, 1) / 255
    np.testing.assert_array_equal(back, x)
    assert max(decode(png_uri(np.zeros((channels, 300, 200)))).size) == LARGEST


def test_differences_are_amplified_around_grey():
    x = np.full((2, 1, 2, 2), 100.0)
    x_adv = x + np.array([[[[8, -8], [0, 4]]], [[[0, 0], [0, 0]]]])
    shown, factor = amplified_difference(x, x_adv, 255.0)
    assert factor == pytest.approx(255 / 16)
    np.testing.assert_allclose(shown[0, 0], [[1, 0], [0.5, 0.75]])
    assert (amplified_difference(x, x, 255.0)[0] == 0.5).all()
