"""Studies: every method is built as its name says, runs are repeatable, summaries are right."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from art_lbgat import study
from art_lbgat.study import METHODS, StudyOptions, Task, cell, run, run_study, small_cnn, step_schedule, summarize
from art_lbgat.trainers import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer
from tests.conftest import states_equal

TINY = StudyOptions(nb_epochs=1, n_autoattack=2, seeds=(0,), workers=1, eps=(0.1,), max_iter=1)


@pytest.fixture(scope="module")
def guide():
    return run(Task("Natural (guide)", 0.1, 0, TINY))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_built_as_its_name_says(method, guide, monkeypatch):
    built = {}

    def spy(classifier, data, task):
        return {"natural": 0.0}

    original = METHODS[method]

    def build(models, **run_options):
        built["trainer"], built["models"] = original(models, **run_options), models
        return built["trainer"]

    monkeypatch.setitem(METHODS, method, build)
    monkeypatch.setattr(study, "_judge", spy)
    state = torch.get_rng_state()
    row, weights = run(Task(method, 0.1, 0, TINY, guide[1]))
    assert torch.equal(state, torch.get_rng_state())
    trainer = built["trainer"]
    expected = {
        "Natural (guide)": NaturalTrainer,
        "PGD-AT": MadryTrainer,
        "TRADES (6)": TRADESTrainer,
        "BGAT": BGATTrainer,
    }
    assert type(trainer) is expected.get(method, LBGATTrainer)
    assert row["method"] == method
    assert row["train_seconds"] > 0
    assert states_equal(weights, trainer.get_classifier().model.state_dict())
    if method != "Natural (guide)":
        ascent = trainer.attack.ascent()
        assert (ascent.eps, ascent.eps_step, ascent.max_iter) == (0.1, 0.25, 1)
        assert ascent.objective == ("kl" if "TRADES" in method else "ce")
    if method.startswith("LBGAT+TRADES"):
        assert trainer.regularizer_weight == float(method[-2])
        assert trainer.guide_ce_weight == 4.0
    if method == "BGAT":
        assert states_equal(trainer.guide.model.state_dict(), guide[1])


def test_a_run_is_repeatable_and_judged_on_the_part_asked_for(guide):
    again = run(Task("Natural (guide)", 0.1, 0, TINY))
    assert states_equal(guide[1], again[1])
    timing = ("train_seconds", "judge_seconds")
    assert {k: v for k, v in guide[0].items() if k not in timing} == {
        k: v for k, v in again[0].items() if k not in timing
    }
    assert guide[0]["n"] == 599
    assert run(Task("Natural (guide)", 0.1, 0, StudyOptions(**{**TINY.__dict__, "part": "validation"})))[0]["n"] == 150


def test_study_orders_rows_and_leaves_out_guides_that_were_not_asked_for():
    seen = []
    options = StudyOptions(**{**TINY.__dict__, "methods": ("BGAT",), "seeds": (1, 0)})
    table = run_study(options, lambda done, total, row: seen.append((done, total, row["method"])))
    assert table[["method", "seed"]].to_numpy().tolist() == [["BGAT", 0], ["BGAT", 1]]
    assert [s[:2] for s in seen] == [(i, 4) for i in range(1, 5)]
    assert sorted(s[2] for s in seen) == ["BGAT", "BGAT", "Natural (guide)", "Natural (guide)"]


def test_natural_training_is_judged_at_every_eps():
    options = StudyOptions(**{**TINY.__dict__, "methods": ("Natural (guide)",), "eps": (0.01, 0.3)})
    table = run_study(options)
    assert table.eps.tolist() == [0.01, 0.3]
    assert table["pgd-20"][0] > table["pgd-20"][1]
    assert table.natural[0] == table.natural[1]


def test_summary_is_mean_and_sample_deviation_in_percent():
    runs = pd.DataFrame(
        {"method": ["a", "a", "b"], "eps": 0.1, "seed": [0, 1, 0], "natural": [0.9, 0.8, 0.5], "pgd-20": 0.5,
         "autoattack": [0.2, 0.4, 0.1], "train_seconds": [1.0, 3.0, 2.0], "judge_seconds": 1.0}
    )  # fmt: skip
    table = summarize(runs).set_index("method")
    assert table.natural_mean["a"] == pytest.approx(85)
    assert table.natural_std["a"] == pytest.approx(np.std([90, 80], ddof=1))
    assert table.autoattack_mean["a"] == pytest.approx(30)
    assert math.isnan(table.natural_std["b"])
    assert table.seeds.tolist() == [2, 1]
    assert table.train_seconds["a"] == 2
    assert cell(85.04, 7.07) == "85.0 ± 7.1"
    assert cell(50, float("nan")) == "50.0"


def test_schedule_starts_gently_and_steps_down_twice():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = step_schedule(optimizer, 20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2] + [1.0] * 11 + [0.1] * 5 + [0.01] * 3)


def test_small_cnn_takes_other_sizes():
    assert small_cnn(4, 3, 16)(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ()}, "methods: expected at least one"),
        ({"eps": (0.0,)}, "eps: expected a finite number > 0"),
        ({"seeds": (-1,)}, "seeds: expected a whole number >= 0"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"learning_rate": 0.0}, "learning_rate: expected"),
    ],
)
def test_options_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        StudyOptions(**change)


def test_workers_have_one_thread_each(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.setattr(torch, "set_flush_denormal", calls.append)
    study._initialize()
    assert calls == [1, True]
    assert StudyOptions().process_count() >= 1
    assert StudyOptions(workers=3).process_count() == 3
