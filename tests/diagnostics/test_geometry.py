"""Slices and boundaries of linear models, where all of it is known on paper."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from art_lbgat.diagnostics import boundary_distance, boundary_gap, boundary_shift, decision_slices, directions
from art_lbgat.diagnostics.boundary import plane_through
from tests.conftest import make_data
from tests.diagnostics.cases import linear

# M_1 - M_0 = x_0 - 0.5, or x_0 - 0.7: the boundary is a vertical line.
HALF, SEVEN = (linear([[0, 0], [1, 0]], [0, -at]) for at in (0.5, 0.7))
POINTS = np.array([[0.25, 0.5], [0.5625, 0.25], [0.0, 0.0]], dtype=np.float32)
RIGHT = np.tile([1.0, 0.0], (3, 1))


def test_distance_is_that_to_the_line():
    table = boundary_distance(HALF, POINTS, RIGHT, norm=2)
    assert list(table["predicted"]) == [0, 1, 0]
    assert list(table["beyond"]) == [1, -1, 1]
    np.testing.assert_allclose(table["distance"], [0.25, np.inf, 0.5], atol=2e-4)
    assert list(table["inside"]) == [True, False, True]
    assert table.attrs == {"norm": "2", "max_distance": math.sqrt(2)}
    back = boundary_distance(HALF, POINTS, {"left": -RIGHT}, tolerance=1e-6)
    np.testing.assert_allclose(back["distance"], [np.inf, 0.0625, np.inf], atol=2e-6)
    assert list(back["direction"]) == ["left"] * 3
    assert back.attrs == {"norm": "inf", "max_distance": 1.0}


@pytest.mark.parametrize(("norm", "length"), [(np.inf, 1.0), ("inf", 1.0), (2, math.sqrt(2))])
@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_distance_is_in_the_norm_and_not_in_the_length_of_the_direction(norm, length, scale):
    diagonal = scale * np.ones((3, 2))
    table = boundary_distance(HALF, POINTS, diagonal, norm=norm, tolerance=1e-6)
    np.testing.assert_allclose(table["distance"][[0, 2]], np.array([0.25, 0.5]) * length, atol=1e-5)


@given(
    arrays(np.float32, (3, 2), elements=st.floats(-3, 3, width=32)),
    arrays(np.float32, (4, 2), elements=st.floats(0, 1, width=32)),
    arrays(np.float64, (4, 2), elements=st.floats(-1, 1)),
)
@settings(max_examples=40, deadline=None)
def test_the_class_changes_at_the_distance_and_not_before(weights, points, way):
    assume((np.abs(way).max(axis=1) > 1e-3).all())
    classifier = linear(weights.tolist())
    table = boundary_distance(classifier, points, way, norm=2, max_distance=4.0, steps=32, tolerance=1e-5)
    unit = way / np.linalg.norm(way, axis=1, keepdims=True)

    def predicted(rows, distance):
        if not rows.any():
            return np.array([])
        return classifier.predict((points[rows] + unit[rows] * distance[:, None]).astype(np.float32)).argmax(axis=1)

    found = np.isfinite(table["distance"].to_numpy())
    distance = table["distance"].to_numpy()[found]
    assert (predicted(found, distance) == table["beyond"][found]).all()
    assert (table["beyond"][found] != table["predicted"][found]).all()
    assert (predicted(found, np.maximum(distance - 4e-5, 0)) == table["predicted"][found]).all()
    assert (predicted(~found, np.full((~found).sum(), 4.0)) == table["predicted"][~found]).all()


def test_bisection_finds_the_class_right_behind_the_boundary():
    # Along x_0: class 0 up to 0.3, class 1 up to 0.34, then class 2; steps of a quarter see class 2 first.
    classifier = linear([[0, 0], [1, 0], [2, 0]], [0, -0.3, -0.64])
    table = boundary_distance(classifier, POINTS[2:], RIGHT[2:], steps=4, tolerance=1e-6)
    assert table["distance"][0] == pytest.approx(0.3, abs=2e-6)
    assert table["beyond"][0] == 1


def test_a_zero_direction_has_no_distance_and_a_boundary_out_of_reach_is_infinite():
    way = RIGHT.copy()
    way[0] = 0
    table = boundary_distance(HALF, POINTS, way, max_distance=0.25)
    assert math.isnan(table["distance"][0])
    assert math.isinf(table["distance"][2])
    assert list(table["beyond"]) == [-1, -1, -1]
    assert not table["inside"].any()
    all_zero = boundary_distance(HALF, POINTS, 0 * RIGHT)
    assert all_zero["distance"].isna().all()


def test_a_boundary_outside_the_images_is_marked():
    outside = linear([[0, 0], [1, 0]], [0, -1.5])
    table = boundary_distance(outside, POINTS, RIGHT, max_distance=2.0)
    np.testing.assert_allclose(table["distance"], [1.25, 0.9375, 1.5], atol=3e-4)
    assert not table["inside"].any()
    free = linear([[0, 0], [1, 0]], [0, -1.5], clip_values=None)
    assert boundary_distance(free, POINTS, RIGHT, max_distance=2.0)["inside"].all()
    with pytest.raises(ValueError, match="max_distance: expected a number > 0, since models has no clip_values"):
        boundary_distance(free, POINTS, RIGHT)


def test_gap_and_shift_are_the_distance_between_the_lines():
    models = {"half": HALF, "seven": SEVEN, "again": HALF}
    gaps = boundary_gap(boundary_distance(models, POINTS, {"right": RIGHT, "left": -RIGHT}, norm=2))
    row = gaps.set_index(["first", "second", "direction"]).loc[("half", "seven", "right")]
    assert row["n"] == 2  # 0.5625 lies beyond 0.5 already
    for column in ("mean_distance", "mean_gap", "median_gap"):
        assert row[column] == pytest.approx(0.2, abs=3e-4)
    same = gaps[(gaps["first"] == "half") & (gaps["second"] == "again")]
    assert (same["mean_distance"] == 0).all()
    assert gaps.set_index(["first", "second", "direction"]).loc[("half", "seven", "left"), "n"] == 0
    assert gaps["mean_gap"].isna().sum() == 2
    assert len(gaps) == 6

    shift = boundary_shift(SEVEN, HALF, POINTS, RIGHT, norm=2, tolerance=1e-6)
    np.testing.assert_allclose(shift["shift"], [0.2, -np.inf, 0.2], atol=1e-5)
    np.testing.assert_allclose(shift["before"], [0.25, np.inf, 0.5], atol=1e-5)
    np.testing.assert_allclose(shift["after"], [0.45, 0.1375, 0.7], atol=1e-5)
    assert list(shift["same"]) == [True, False, True]
    assert shift.attrs["norm"] == "2"
    assert boundary_shift(HALF, HALF, POINTS, RIGHT)["shift"].isna().tolist() == [False, True, False]  # inf - inf


def test_directions_lead_where_they_say():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.4], [0.9, 0.1]], dtype=np.float32)
    found = directions(x, [0, 1, 0, 1], x + 0.25, seed=0)
    assert list(found) == ["other class", "adversarial", "random"]
    np.testing.assert_allclose(x + found["other class"], x[[3, 0, 3, 0]], atol=1e-7)
    np.testing.assert_allclose(found["adversarial"], np.full((4, 2), 0.25), atol=1e-7)
    np.testing.assert_array_equal(found["random"], directions(x, [0, 1, 0, 1], seed=0)["random"])
    assert list(directions(x, [0, 1, 0, 1])) == ["other class"]


@given(arrays(np.float64, (70, 3), elements=st.floats(0, 1)), arrays(np.int64, (70,), elements=st.integers(0, 2)))
@settings(max_examples=20, deadline=None)
def test_nearest_of_another_class_is_the_nearest(x, y):
    assume(len(np.unique(y)) > 1)
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    distance[y[:, None] == y[None]] = np.inf
    leads = directions(x, y)["other class"]
    np.testing.assert_allclose(np.linalg.norm(leads, axis=1), distance.min(axis=1), atol=1e-12)


ANCHORS = np.array([[0.0, 0.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.5, 0.0]], dtype=np.float32)


@given(arrays(np.float64, (3, 2, 3), elements=st.floats(0, 1)))
@settings(max_examples=80, deadline=None)
def test_plane_is_orthonormal_and_goes_through_the_images(anchors):
    edges = (anchors[1:] - anchors[0]).reshape(2, -1)
    assume(np.linalg.svd(edges, compute_uv=False).min() > 1e-3)
    origin, axes, corners = plane_through(anchors)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(origin + corners @ axes, anchors.reshape(3, -1), atol=1e-9)
    assert corners[:2, 1].tolist() == [0, 0]


def test_axes_of_a_flat_triangle_are_orthogonal():
    a, b, off = np.random.default_rng(0).random((3, 50))
    _, axes, _ = plane_through(np.stack([a, b, (a + b) / 2 + 1e-5 * off]))
    assert abs(float(axes[0] @ axes[1])) < 1e-15


@given(st.integers(2, 40), st.floats(0, 1), st.floats(0.2, 1), st.floats(0.2, 1))
@settings(max_examples=30, deadline=None)
def test_grid_is_square_and_covers_the_images(resolution, border, along, above):
    anchors = np.array([[0, 0, 0], [along, 0, 0], [0, above, 0]], dtype=np.float32)
    table = decision_slices(linear([[0, 0, 0], [1, 0, 0]]), anchors, resolution=resolution, border=border)
    u, v = np.unique(table["u"]), np.unique(table["v"])
    assert len(table) == len(u) * len(v)
    assert max(len(u), len(v)) == resolution
    longer = max(along, above)
    spacing = longer * (1 + 2 * border) / (resolution - 1)
    for values, corner in ((u, along), (v, above)):
        np.testing.assert_allclose(np.diff(values), spacing, rtol=1e-5)
        assert values[0] == pytest.approx(-border * longer, abs=1e-6)
        assert values[-1] >= corner + border * longer - spacing / 2 - 1e-6
    assert (np.diff(table["v"]) >= 0).all()  # row by row from below


def test_slice_of_a_linear_model_is_its_line():
    classifier = linear([[0, 0, 0], [1, 0, 0]], [0, -0.3])  # the boundary is u = 0.5 in this plane, since x_0 = 0.6 u
    table = decision_slices({"line": classifier}, ANCHORS, resolution=31, names="abc")
    assert list(table.columns) == ["model", "u", "v", "predicted", "confidence", "margin", "inside"]
    clear = (table["u"] - 0.5).abs() > 1e-6
    assert (table["predicted"] == (table["u"] > 0.5))[clear].all()
    np.testing.assert_allclose(table["margin"], (0.6 * table["u"] - 0.3).abs(), atol=1e-6)
    np.testing.assert_allclose(table["confidence"], 1 / (1 + np.exp(-table["margin"])), atol=1e-6)
    expected = (table["u"] >= -1e-6) & (0.8 * table["u"] <= 1 + 1e-6) & table["v"].between(-1e-6, 1 + 1e-6)
    pd.testing.assert_series_equal(table["inside"], expected, check_names=False)
    assert 0 < table["inside"].mean() < 1
    assert list(table.attrs["anchors"]) == ["a", "b", "c"]
    np.testing.assert_allclose(list(table.attrs["anchors"].values()), [[0, 0], [1, 0], [0, 0.5]], atol=1e-7)


def test_slices_of_several_models_are_on_one_grid(classifier, guide):
    x, _ = make_data()
    table = decision_slices({"guide": guide, "again": guide, "robust": classifier}, x[:3], resolution=12)
    parts = {name: part.reset_index(drop=True).drop(columns="model") for name, part in table.groupby("model")}
    pd.testing.assert_frame_equal(parts["guide"], parts["again"])
    assert (parts["guide"][["u", "v"]] == parts["robust"][["u", "v"]]).all(axis=None)
    whole = decision_slices(guide, x[:3], resolution=12, batch_size=7).drop(columns="model")
    pd.testing.assert_frame_equal(whole, parts["guide"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (directions, {"y": [0, 0, 0]}, "y: expected at least two classes"),
        (directions, {"y": [0, 1]}, r"y: expected class indices of shape \(N,\), .* got \(2,\) for x of \(3, 2\)"),
        (directions, {"x_adv": POINTS[:2]}, r"x_adv: expected the shape of x, \(3, 2\), got \(2, 2\)"),
        (boundary_distance, {"directions": {}}, "directions: expected at least one direction, got an empty mapping"),
        (boundary_distance, {"directions": RIGHT[:2]}, r"directions\['given'\]: expected the shape of x, \(3, 2\)"),
        (boundary_distance, {"directions": RIGHT * np.nan}, r"directions\['given'\]: expected finite values"),
        (boundary_distance, {"norm": 1}, "norm: expected np.inf, 'inf' or 2, got 1"),
        (
            boundary_gap,
            {"distances": pd.DataFrame({"model": ["a"]})},
            "table of boundary_distance, got one with missing",
        ),
        (boundary_gap, {}, r"distances: expected at least two models, got \['model'\]"),
        (decision_slices, {"names": ["a", "a", "b"]}, "names: expected three different names"),
        (decision_slices, {"anchors": 2 * ANCHORS}, "anchors: values lie in"),
        (decision_slices, {"anchors": ANCHORS[:2]}, r"anchors: expected three images \(3, ...\), .* shape \(2, 3\)"),
        (decision_slices, {"anchors": ANCHORS[[0, 0, 1]]}, "anchors: expected three images that are not on a line"),
        (decision_slices, {"anchors": ANCHORS[:1] + np.array([[0], [0.25], [1]])}, "images that are not on a line"),
        (decision_slices, {"anchors": ANCHORS + np.inf}, "anchors: expected finite values"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    good = {
        directions: {"x": POINTS, "y": [0, 1, 0]},
        boundary_distance: {"models": HALF, "x": POINTS, "directions": RIGHT},
        boundary_gap: {"distances": boundary_distance(HALF, POINTS, RIGHT)},
        decision_slices: {"models": linear([[0, 0, 0], [1, 0, 0]]), "anchors": ANCHORS},
    }
    with pytest.raises(ValueError, match=message):
        function(**{**good[function], **arguments})
