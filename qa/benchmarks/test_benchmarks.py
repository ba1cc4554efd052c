"""The benchmarks at toy size: every part runs, and what they compare is what they say."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from art_lbgat.data import load_digits
from art_lbgat.recipes import RECIPES
from qa.benchmarks import authors, compare, gpu, memory, robustness, scaling, steps
from qa.benchmarks.__main__ import TOPICS, main
from qa.benchmarks.contestants import RATE, Task, floor, ours, trainer
from qa.benchmarks.contestants import authors as authors_contestant
from qa.benchmarks.models import find_model, narrow_resnet_18
from qa.benchmarks.report import Row, Settings, Target, Topic, shown
from qa.benchmarks.timing import Rounds, Stat, measure, stat
from tests import reference_lbgat as reference

ROOT = Path(__file__).parents[2]
CONVOLUTIONS = 3  # of the digits CNN


@pytest.fixture
def eager(monkeypatch):
    """``compile=True`` without its compiler, which takes half a minute."""
    monkeypatch.setattr(torch._dynamo.config, "disable", True)


def test_every_topic_runs_and_is_written(tmp_path, eager, capsys):
    path, plot = tmp_path / "bench.json", tmp_path / "scaling.svg"
    main(["--toy", "--repeats", "1", "--output", str(path), "--plot", str(plot)])
    content = json.loads(path.read_text())
    assert list(content["topics"]) == list(TOPICS)
    assert content["environment"]["threads"] == torch.get_num_threads()
    assert set(content["settings"]["seconds"]) == set(TOPICS)
    for topic in content["topics"].values():
        assert topic["rows"]
        for row in topic["rows"]:
            assert row["values"]
            for column, value in row["values"].items():
                if isinstance(value, dict):
                    assert 0 < value["q1"] <= value["median"] <= value["q3"], (row["name"], column)
    step = content["topics"]["step"]["rows"][0]["values"]
    assert step["authors / ours"]["median"] == pytest.approx(step["authors, s"]["median"] / step["ours, s"]["median"])
    assert [row["name"] for row in content["topics"]["options"]["rows"]] == ["exact", *steps.VARIANTS]
    assert "matplotlib is not installed" in capsys.readouterr().out or plot.exists()


def test_time_to_an_accuracy_is_read_off_the_curve():
    seconds, accuracy = [10.0, 20.0, 40.0], [30.0, 50.0, 40.0]
    assert robustness.time_to(30.0, seconds, accuracy) == 10.0
    assert robustness.time_to(40.0, seconds, accuracy) == 15.0  # half way between the first two
    assert robustness.time_to(50.0, seconds, accuracy) == 20.0
    assert robustness.time_to(50.1, seconds, accuracy) is None


def test_robustness_has_a_ratio_of_times_at_equal_accuracy():
    part = robustness.Part("digits", 0.2, (1, 2), 10)
    found = [{"name": name, "epochs": epochs, "seed": seed, "seconds": cost * epochs, "natural": 0.9, "robust": level * epochs}
             for name, cost, level in ((robustness.AUTHORS, 4.0, 0.2), ("quick", 1.0, 0.4), ("weak", 1.0, 0.1))
             for epochs in part.epochs for seed in (0, 1)]  # fmt: skip
    topic = Topic("t", robustness.rows_of(part, found))
    for name, ratio in ((robustness.AUTHORS, 1.0), ("quick", 8.0), ("weak", None)):
        assert topic.value(f"digits, {name}, to the authors' best", "authors / this") == ratio
    assert topic.value("digits, weak, to the authors' best", "training, s") == "not reached"
    assert topic.value("digits, quick, 2 epochs", "AutoAttack %") == pytest.approx(80)
    assert topic.value("digits, quick, 2 epochs", "training, s") == Stat(2.0, 2.0, 2.0, 2)


def test_rounds_go_in_turn_and_judge_the_same_images():
    data, order = load_digits(limit=100), []

    def train(name):
        def fit(epochs, seed):
            order.append((name, epochs, seed))
            return RECIPES["digits-natural"].build(data=data, seed=seed, verbose=False).classifier

        return fit

    part = robustness.Part("digits", 0.2, (1, 3), 5)
    found = list(robustness.measure(part, {"a": train("a"), "b": train("b")}, data, rounds=2))
    assert [(each["name"], each["epochs"], each["seed"]) for each in found] == order
    assert order == [
        ("a", 1, 0),
        ("b", 1, 0),
        ("a", 3, 0),
        ("b", 3, 0),
        ("b", 1, 1),
        ("a", 1, 1),
        ("b", 3, 1),
        ("a", 3, 1),
    ]
    assert len({(each["natural"], each["robust"]) for each in found if each["seed"] == 0}) == 1


def test_gpu_script_runs_at_toy_size_on_the_cpu(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "qa" / "benchmarks" / "gpu.sh"), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(content["topics"]) == ["step", "options", "cost"]
    assert len(content["topics"]["options"]["rows"]) == len(gpu.VARIANTS) + gpu._FIRST
    assert "exact" in content["topics"]["cost"]["rows"][0]["values"]
    seconds = int((ROOT / "qa" / "benchmarks" / "gpu.sh").read_text().split("--kill-after=5 ")[1].split()[0])
    assert seconds + 5 < 9 * 60


def test_gpu_plan_names_recipes_and_refuses_without_a_device(monkeypatch, capsys):
    parts = gpu.plan("cuda", dry=False)
    assert {(p.task.model, p.task.batch) for p in parts} == {
        (model, batch) for model in ("resnet-18", "wrn-34-10") for batch in (128, 512)
    }
    assert gpu.recipes_of(Task("wrn-34-10", alpha=6.0)) == ["lbgat6-cifar100-wrn34-10", "lbgat6-cifar10-wrn34-10"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--dry-run" in capsys.readouterr().err


class _Passes(TorchDispatchMode):
    """Counts forwards, backwards to the input only and full ones, by the convolutions of the digits CNN."""

    def __init__(self):
        super().__init__()
        self.counts = {"forward": 0, "input": 0, "full": 0}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.counts["forward"] += 1
        elif function is torch.ops.aten.convolution_backward.default:
            self.counts["full" if args[10][1] else "input"] += 1
        return function(*args, **(kwargs or {}))

    def passes(self):
        assert all(count % CONVOLUTIONS == 0 for count in self.counts.values())
        return tuple(count // CONVOLUTIONS for count in self.counts.values())


def _passes(contestant):
    contestant()
    with _Passes() as counter:
        contestant()
    return counter.passes()


@pytest.mark.parametrize("alpha", [0.0, 6.0])
def test_passes_are_those_of_the_cost_and_of_the_published_procedure(alpha):
    task = Task("digits-cnn", 4, alpha)
    cost = trainer(task).cost
    expected = (
        cost.student_forwards + cost.guide_forwards,
        cost.student_input_backwards,
        cost.student_full_backwards + cost.guide_full_backwards,
    )
    assert expected == (14, 10, 2 if alpha == 0 else 3)
    assert _passes(ours(task)) == expected
    assert _passes(floor(task)) == expected
    assert _passes(authors_contestant(task)) == (23, 10, 3)  # natural logits at each of the 10 steps


@pytest.mark.parametrize("alpha", [0.0, 6.0])
def test_authors_step_is_the_published_one(alpha):
    torch.manual_seed(0)
    models = [find_model("digits-cnn").build() for _ in range(2)]
    others = copy.deepcopy(models)
    x, y, noise = torch.rand(8, 1, 8, 8), torch.randint(10, (8,)), torch.randn(8, 1, 8, 8)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=2e-4)

    authors.step(
        *models, sgd([p for m in models for p in m.parameters()]), x, y, alpha=alpha, steps=10, noise=noise
    )  # fmt: skip
    x_adv = reference.trades_attack(others[0], x, noise, authors.EPS, authors.STEP, 10)
    optimizers = [sgd(model.parameters()) for model in others]
    reference.step(
        others[0], others[1:], optimizers, x, y, x_adv, learn_guide=True, regularizer="trades", alpha=alpha
    )  # fmt: skip
    for model, other in zip(models, others, strict=True):
        for (name, value), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7, msg=name)


def test_peak_is_exact_to_the_byte():
    def run():
        first = torch.empty(1000, dtype=torch.float64)
        second = torch.empty(3000, dtype=torch.uint8)
        del first
        third = torch.empty(5000, dtype=torch.uint8)
        return second, third

    assert memory.peak_bytes(run) == 8000 + 3000
    assert memory.peak_bytes(lambda: torch.zeros(10, 10).exp()) == 2 * 400


def test_peak_grows_with_what_a_graph_holds():
    task = Task("digits-cnn", 64, 6.0, k=2)
    light, heavy = (ours(task), authors_contestant(task))
    for contestant in (light, heavy):
        contestant()
    assert memory.peak_bytes(light) < memory.peak_bytes(heavy)


def test_measure_interleaves_and_takes_ratios_within_rounds(monkeypatch):
    calls, clock = [], iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))

    def first():
        calls.append("a")
        return {"inner": 0.25}

    rounds = measure({"a": first, "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]  # a warm-up, then each round begins with another
    assert rounds.seconds == {"a": [1.0, 1.0], "a: inner": [0.25, 0.25], "b": [1.0, 1.0]}
    uneven = Rounds({"a": [2.0, 20.0, 4.0], "b": [1.0, 10.0, 1.0]}, {"a": 9.0})
    assert uneven.ratio("a", "b") == Stat(2.0, 2.0, 3.0, 3)
    assert uneven.time("a", 2).median == 2.0
    assert uneven.warm_up("a") == 5.0


def test_measure_stops_in_time_and_leaves_out_what_does_not_fit():
    def too_large():
        raise torch.OutOfMemoryError("no memory")

    def named():
        raise RuntimeError("lower batch_size") from torch.OutOfMemoryError("no memory")

    def broken():
        raise RuntimeError("something else")

    contestants = {"fits": lambda: None, "too large": too_large, "ours": named}
    rounds = measure(contestants, repeats=50, limit=0.0)
    assert rounds.failed == {"too large": "out of memory", "ours": "out of memory"}
    with pytest.raises(RuntimeError, match="something else"):
        measure({"broken": broken}, repeats=1)
    assert {name: len(values) for name, values in rounds.seconds.items()} == {"fits": 3}
    assert measure({"late": lambda: None}, repeats=2, deadline=0.0).failed == {"late": "no time left"}
    columns = steps.step_columns(Rounds({"ours": [1.0]}, {}, {"authors": "out of memory"}), Task("digits-cnn"))
    assert columns["authors, s"] == "out of memory"
    assert "authors / ours" not in columns


def test_line_is_the_least_squares_line():
    assert scaling.fit_line([1, 2, 3], [3.0, 5.0, 7.0]) == pytest.approx((2.0, 1.0, 1.0))
    slope, intercept, r2 = scaling.fit_line([0, 1, 2], [0.0, 1.0, 0.0])
    assert (slope, intercept, r2) == pytest.approx((0.0, 1 / 3, 0.0))


def test_compare_marks_what_exceeds_the_spread(tmp_path, capsys):
    def write(name, median, peak):
        value = {"median": median, "q1": median - 0.1, "q3": median + 0.1, "n": 5}
        row = {"name": "row", "values": {"s": value, "MiB": peak, "word": "text"}}
        path = tmp_path / name
        path.write_text(json.dumps({"environment": {"cpu": name}, "topics": {"step": {"rows": [row]}}}))
        return str(path)

    old = write("old", 1.0, 100.0)
    compare.main([old, write("near", 1.15, 101.0)])
    assert "0 changed by more than the spread" in capsys.readouterr().out
    compare.main([old, write("far", 1.5, 200.0)])
    out = capsys.readouterr().out
    assert "2 changed by more than the spread" in out
    assert "1.500" in out
    assert "cpu differs: old and far" in out


def test_targets_are_judged_by_the_median():
    row = Row("r", {"ratio": Stat(1.5, 1.0, 2.0, 5), "none": None})
    targets = [
        Target("r", "ratio", "at least", 1.4),
        Target("r", "ratio", "at most", 1.4),
        Target("r", "no", "at most", 1),
    ]
    verdicts = Topic("t", [row], [], targets).verdicts()
    assert [verdict["reached"] for verdict in verdicts] == [True, False]
    assert shown(stat([1.0])) == "1 \\[1, 1]"


def test_options_that_are_not_there_are_skipped_and_said_to_be(monkeypatch):
    monkeypatch.setattr(steps, "VARIANTS", {"magic": {"magic": True}})
    topic = steps.options(Settings(1, toy=True))
    assert [row.name for row in topic.rows] == ["exact"]
    assert "magic: skipped, RunOptions has no magic." in topic.notes


def test_narrow_resnet_is_a_resnet_18():
    net = narrow_resnet_18(64)
    assert sum(p.numel() for p in net.parameters()) == 11_173_962
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_unknown_topics_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["stepp"])
    assert "unknown topics ['stepp']" in capsys.readouterr().err
