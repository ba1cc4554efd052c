"""Transferred discrepancy: zero for identical networks, invariant to invertible linear maps, and what it measures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LinearRegression
from torch import nn

from art_lbgat.diagnostics import penultimate_features, transferred_discrepancy
from art_lbgat.diagnostics.discrepancy import compare_heads, fit_head
from tests.conftest import make_classifier, make_data, mlp

MEASURES = ["discrepancy", "disagreement"]


def flat(n=80, seed=0):
    return make_data(n, shape=(12,), seed=seed)


def vectors(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_classifier(mlp(), shape=(12,))


def mapped(matrix, shift=0.0):
    """The penultimate features times a matrix."""
    return lambda module, inputs: penultimate_features(module, inputs).double() @ torch.from_numpy(matrix) + shift


def tasks():
    x, y = flat()
    return {"class": (x, y), "even": (x, y % 2)}


def test_identical_networks_have_none():
    classifier, copy = vectors(0), vectors(0)
    table = transferred_discrepancy({"a": classifier, "b": copy, "c": classifier}, tasks())
    assert (table[MEASURES] == 0).all(axis=None)
    assert (table["accuracy_first"] == table["accuracy_second"]).all()


def test_different_networks_have_some_and_it_is_symmetric():
    first, second = vectors(0), vectors(1)
    one = transferred_discrepancy({"a": first, "b": second}, tasks())
    other = transferred_discrepancy({"b": second, "a": first}, tasks())
    assert (one["discrepancy"] > 0.01).all()
    assert one["discrepancy"].to_numpy() == pytest.approx(other["discrepancy"].to_numpy())
    assert (one["accuracy_first"] == other["accuracy_second"]).all()
    assert list(one["task"]) == ["class", "even", "mean"]
    rows = one.set_index("task")
    for column in ("discrepancy", "disagreement", "accuracy_first", "accuracy_second"):
        assert rows.loc["mean", column] == pytest.approx(rows.loc[["class", "even"], column].mean())
    assert (one["n_train"] == 40).all()
    assert (one["n"] == 40).all()


def invertible(draw, size):
    """A product of a permutation, a scaling and two unit triangular matrices, well conditioned."""
    small = st.floats(-0.5, 0.5)
    lower = np.tril(draw(arrays(np.float64, (size, size), elements=small)), -1) / size + np.eye(size)
    upper = np.triu(draw(arrays(np.float64, (size, size), elements=small)), 1) / size + np.eye(size)
    scale = draw(arrays(np.float64, (size,), elements=st.floats(0.01, 100)))
    return lower[draw(st.permutations(range(size)))] @ np.diag(scale) @ upper


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_heads_do_not_see_invertible_linear_maps(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    train, test = rng.normal(size=(30, 6)), rng.normal(size=(20, 6))
    y = np.arange(30) % 3
    matrix, shift = invertible(data.draw, 6), data.draw(arrays(np.float64, (6,), elements=st.floats(-10, 10)))
    plain = fit_head(train, y, test, 3, "least_squares")
    moved = fit_head(train @ matrix + shift, y, test @ matrix + shift, 3, "least_squares")
    np.testing.assert_allclose(moved, plain, atol=1e-7)


def test_networks_whose_features_differ_by_an_invertible_map_have_none():
    models = {"a": vectors(0), "b": vectors(0)}
    matrix = np.random.default_rng(0).normal(size=(16, 16)) + 3 * np.eye(16)
    features = {"a": penultimate_features, "b": mapped(matrix, shift=5.0)}
    table = transferred_discrepancy(models, tasks(), features=features)
    np.testing.assert_allclose(table["discrepancy"], 0, atol=1e-9)
    assert (table["disagreement"] == 0).all()
    # Not so for a map that loses directions, nor for a head that is regularised.
    lossy = {"a": None, "b": mapped(np.diag([1.0] * 4 + [0.0] * 12))}
    assert (transferred_discrepancy(models, tasks(), features=lossy)["discrepancy"] > 0.01).all()
    assert (transferred_discrepancy(models, tasks(), features=features, head="logistic")["discrepancy"] > 1e-6).all()


def test_least_squares_is_that_of_scikit_learn_and_dead_features_change_nothing():
    rng = np.random.default_rng(0)
    train, test, y = rng.normal(size=(40, 5)), rng.normal(size=(9, 5)), np.arange(40) % 4
    expected = LinearRegression().fit(train, np.eye(4)[y]).predict(test)
    dead = [np.hstack([each, np.zeros((len(each), 3)), 2 * each[:, :1]]) for each in (train, test)]
    for features, held_out in ((train, test), dead):
        np.testing.assert_allclose(fit_head(features, y, held_out, 4, "least_squares"), expected, atol=1e-10)


def test_distance_by_hand():
    y = np.array([0, 1, 0, 1])  # frequencies 1/2, 1/2
    base = np.full((2, 2), 0.5)
    a = base + np.array([[0.3, -0.3], [-0.1, 0.1]])
    found = compare_heads(a, base + 5 * (a - base), y, np.array([0, 0]))
    assert (found["accuracy_first"], found["accuracy_second"], found["n"]) == (0.5, 0.5, 2)
    unrelated = base + np.array([[0.1, -0.1], [0.3, -0.3]])
    for other, discrepancy, disagreement in (
        (base + 5 * (a - base), 0, 0),  # how much a head learned does not count
        (base - (a - base), 4, 1),
        (unrelated, 2, 0.5),
        (base, 1, 0.5),  # a head that learned nothing
    ):
        found = compare_heads(a, other, y, y[:2])
        assert found["discrepancy"] == pytest.approx(discrepancy)
        assert found["disagreement"] == disagreement


@given(*[arrays(np.float64, (5, 3), elements=st.floats(-2, 2))] * 2)
@settings(max_examples=60, deadline=None)
def test_distance_is_between_0_and_4(first, second):
    y = np.array([0, 1, 2, 0])
    found, reverse = (compare_heads(a, b, y, np.zeros(5, np.int64)) for a, b in ((first, second), (second, first)))
    assert -1e-12 <= found["discrepancy"] <= 4 + 1e-12
    assert 0 <= found["disagreement"] <= 1
    assert found["discrepancy"] == reverse["discrepancy"]


@given(st.integers(0, 100), st.floats(0.5, 20))
@settings(max_examples=10, deadline=None)
def test_logistic_head_gives_probabilities_and_sees_no_scale(seed, scale):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(30, 40)), rng.normal(size=(10, 40))  # more features than samples
    y = 2 * (np.arange(30) % 2)  # class 1 does not occur
    scores = fit_head(train, y, test, 3, "logistic")
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores[:, 1] == 0).all()
    np.testing.assert_allclose(fit_head(scale * train + 1, y, scale * test + 1, 3, "logistic"), scores, atol=1e-6)


def test_too_few_samples_for_least_squares(classifier, guide):
    x, y = make_data(60)
    with pytest.raises(ValueError, match="tasks: a has 192 features, and a least-squares head on 30 training samples"):
        transferred_discrepancy({"a": classifier, "b": guide}, {"class": (x, y)})
    table = transferred_discrepancy({"a": classifier, "b": guide}, {"class": (x, y)}, head="logistic")
    assert (table["discrepancy"] > 0).all()


def test_features_are_the_input_of_the_last_linear_layer():
    module = vectors(0).model.eval()
    inputs = torch.from_numpy(flat()[0])
    with torch.no_grad():
        assert torch.equal(penultimate_features(module, inputs), module[:3](inputs))


def test_features_may_be_a_function_of_each_model(classifier):
    models, tasks = {"a": classifier, "b": make_classifier(seed=3)}, {"t": make_data(80)}
    pixels, pooled = lambda module, inputs: inputs.mean(3), lambda module, inputs: module[:6](inputs).mean((2, 3))
    table = transferred_discrepancy(models, tasks, features={"a": pixels, "b": pixels})
    assert (table["discrepancy"] == 0).all()
    table = transferred_discrepancy(models, tasks, features={"a": pixels, "b": pooled})
    assert (table["discrepancy"] > 0).all()


def test_models_may_have_other_classes_and_tasks_other_inputs():
    first, second = vectors(0), make_classifier(mlp(classes=7), shape=(12,), classes=7)
    table = transferred_discrepancy({"a": first, "b": second}, {"one": flat(), "two": flat(100, seed=1)})
    assert list(table["n"]) == [40, 50, 45]
    one_hot = {"one": (flat()[0], np.eye(4)[flat()[1]])}
    again = transferred_discrepancy({"a": first, "b": second}, one_hot)
    assert again["discrepancy"][0] == table["discrepancy"][0]


def test_the_split_is_drawn_by_the_seed():
    models = {"a": vectors(0), "b": vectors(1)}
    first, again, other = (transferred_discrepancy(models, tasks(), seed=s)["discrepancy"] for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert transferred_discrepancy(models, tasks(), held_out=0.25)["n"].tolist() == [20, 20, 20]


X, Y = flat()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"models": {"a": None}}, ValueError, "models: expected a mapping to at least 2 classifiers, got 1"),
        ({"tasks": [(X, Y)]}, TypeError, r"tasks: expected a mapping from names to pairs \(x, y\), got list"),
        ({"tasks": {"mean": (X, Y)}}, ValueError, "none of them named 'mean'"),
        ({"tasks": {"t": X}}, TypeError, r"tasks\['t'\]: expected a pair \(x, y\), got ndarray"),
        ({"tasks": {"t": (X, 0 * Y)}}, ValueError, r"tasks\['t'\]: expected at least two classes"),
        ({"tasks": {"t": (X, np.full((80, 2), 0.5))}}, ValueError, r"tasks\['t'\] y: expected hard labels"),
        ({"tasks": {"t": (X + 1, Y)}}, ValueError, r"tasks\['t'\] x: values lie in"),
        ({"tasks": {"t": (X[:1], Y[:1])}}, ValueError, r"held_out: expected a share that leaves samples on both sides"),
        ({"held_out": 1}, ValueError, r"held_out: expected a number in \(0, 1\), got 1"),
        ({"features": {"a": penultimate_features}}, ValueError, r"a key for each of \['a', 'b'\], got \['a'\]"),
        ({"features": "pixels"}, TypeError, r"features: expected a function \(module, inputs\) -> tensor, got str"),
        ({"features": lambda m, i: i.sum()}, ValueError, r"a tensor of shape \(80, ...\) from models\['a'\], got \(\)"),
        ({"features": lambda m, i: 3}, ValueError, r"from models\['a'\], got int"),
        ({"features": lambda m, i: i * torch.nan}, ValueError, r"expected finite values, got NaN or Inf from models"),
        ({"features": lambda m, i: penultimate_features(nn.Flatten(), i)}, ValueError, r"Flatten runs no nn\.Linear"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        transferred_discrepancy(**{"models": {"a": vectors(0), "b": vectors(1)}, "tasks": {"t": (X, Y)}, **arguments})
