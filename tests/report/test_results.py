"""Natural and robust accuracy out of every table that holds them."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art_lbgat.evaluation.results import Accuracy
from art_lbgat.report import as_results
from art_lbgat.report.content import pareto_front
from art_lbgat.robustbench import BenchmarkResult
from art_lbgat.study import summarize
from tests.report.cases import evaluated, results


def row(found, name):
    return found.table.set_index("model").loc[name]


def test_a_table_of_evaluate_takes_the_worst_row():
    table = evaluated(attacks=("natural", "pgd-20", "autoattack (standard)", "worst"))
    found = as_results(table, ["ours"])
    worst = table[(table.model == "ours") & (table.attack == "worst")].iloc[0]
    ours = row(found, "ours")
    assert (ours.natural, ours.robust) == (0.9, worst.accuracy)
    assert (ours.robust_low, ours.robust_high) == (worst.low, worst.high)
    assert found.attack == "worst, Linf, eps 0.2"
    assert dict(zip(found.table.model, found.table.ours, strict=True)) == {"ours": True, "base": False}
    assert list(as_results(evaluated(["x"]).drop(columns="model")).table.model) == ["model"]


@pytest.mark.parametrize(("attacks", "taken"), [(("natural", "autoattack (custom)", "pgd-20"), "autoattack (custom)"),
                                                (("natural", "fgsm", "pgd-20"), "pgd-20")])  # fmt: skip
def test_without_a_worst_row_autoattack_or_the_lowest(attacks, taken):
    table = evaluated(attacks=attacks)
    expected = table[(table.model == "base") & (table.attack == taken)].accuracy.item()
    assert row(as_results(table), "base").robust == expected


def test_benchmark_results_stand_as_they_are():
    fields = {"architecture": "", "dataset": "cifar10", "threat_model": "Linf", "eps": 8 / 255, "attacks": {},
              "corruptions": {}, "flags": {"softmax": "probabilities"}, "differences": (), "seed": 0, "batch_size": 1,
              "weights_sha256": "", "data_sha256": "", "versions": {}, "device": "cpu", "seconds": {}}  # fmt: skip
    frames = [BenchmarkResult(name, natural=Accuracy(90, 100), robust=Accuracy(k, 100), **fields).to_frame()
              for name, k in (("a", 40), ("b", 50))]  # fmt: skip
    found = as_results(pd.concat(frames))
    assert list(found.table.model) == ["b", "a"]
    assert row(found, "b").robust_low == Accuracy(50, 100).interval[0]
    assert row(found, "a")["flags"] == "softmax"


def test_a_study_has_intervals_over_seeds():
    runs = pd.DataFrame([{"arm": arm, "eps": 0.3, "seed": seed, "natural": 0.9 + 0.02 * seed, "pgd-20": 0.5, "autoattack": level,
                          "train_seconds": 1.0, "judge_seconds": 1.0}
                         for arm, level in (("LBGAT", 0.4), ("PGD-AT", 0.3)) for seed in (0, 1)])  # fmt: skip
    summary = summarize(runs)
    found = as_results(summary, ["LBGAT"])
    ours = row(found, "LBGAT")
    assert ours.natural == pytest.approx(0.91)
    assert ours.natural_high == min(1, 0.91 + summary.natural_ci[0] / 100)
    assert (ours.robust, ours.robust_low) == (pytest.approx(0.4), pytest.approx(0.4))
    assert found.attack == "AutoAttack, eps 0.3"
    assert "seeds" in found.interval
    assert math.isnan(row(as_results(summarize(runs[runs.seed == 0])), "LBGAT").natural_low)
    two = runs[runs.arm == "LBGAT"].assign(eps=[0.1, 0.2])
    assert sorted(as_results(summarize(two)).table.model) == ["LBGAT, eps 0.1", "LBGAT, eps 0.2"]


@pytest.mark.parametrize(("table", "ours", "error", "words"), [
        ([1], (), TypeError, "results: expected a DataFrame"),
        (results().iloc[:0], (), ValueError, "got no rows"),
        (results().drop(columns="robust"), (), ValueError, "results: expected columns model"),
        (results(["a", "a"]), (), ValueError, r"each model once, got \['a'\] twice"),
        (results().assign(robust=50.0), (), ValueError, r"robust in \[0, 1\], got"),
        (results().assign(natural=math.nan), (), ValueError, r"natural in \[0, 1\]"),
        (results(), ["mine"], ValueError, r"ours: expected some of the models .* got \['mine'\]"),
        (evaluated(attacks=["pgd-20"]), (), ValueError, "a row 'natural' and another attack for 'ours'"),
        (evaluated(attacks=["natural", "a", "b"]).assign(eps=[0, 0.1, 0.2] * 2), (), ValueError, "one eps for 'ours'"),
])  # fmt: skip
def test_other_tables_are_refused(table, ours, error, words):
    with pytest.raises(error, match=words):
        as_results(table, ours)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_nothing_dominates(points):
    xs, ys = [float(a) for a, _ in points], [float(b) for _, b in points]
    front = pareto_front([*xs, math.nan], [*ys, 9.0])
    undominated = {(a, b) for a, b in points if not any((c >= a and d >= b) and (c, d) != (a, b) for c, d in points)}
    assert {(xs[i], ys[i]) for i in front} == undominated
    assert len(front) == len(undominated)
    assert [xs[i] for i in front] == sorted(xs[i] for i in front)
