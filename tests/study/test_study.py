"""Studies: runs are repeatable and resumable, guides are trained once, summaries are right."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from art_lbgat import study as module
from art_lbgat.engine.signals import Interrupted
from art_lbgat.evaluation import paired_difference
from art_lbgat.fingerprint import weights_sha256
from art_lbgat.recipes import RECIPES
from art_lbgat.report import render_report
from art_lbgat.report.content import as_results
from art_lbgat.study import StudyOptions, Task, plan_runs, run, run_study, study_content, summarize
from art_lbgat.weights import load_weights
from tests.conftest import states_equal

QUICK = {"eps": 0.1, "max_iter": 1}
TIMES = ("train_seconds", "judge_seconds")


def options(*names, **changes):
    quick = {name: QUICK if name != "natural" else {"eps": QUICK["eps"]} for name in names}
    arms = {name: RECIPES[f"digits-{name}"].override(**quick[name]) for name in names}
    small = {"seeds": (0,), "nb_epochs": 1, "n_test": 20, "n_autoattack": 0, "workers": 1}
    return StudyOptions(arms, **small | changes)


def in_this_process(monkeypatch):
    """Run without a pool, which would take seconds to start; returns the keys of what was run."""
    ran = []

    class Pool(Executor):
        def __init__(self, *args, **kwargs):
            pass

        def submit(self, function, task, folder):
            ran.append(task.key)
            future = Future()
            future.set_result(function(task, folder))
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    return ran


def test_workers_that_are_gone_say_what_may_be_the_reason(tmp_path, monkeypatch):
    class Pool(Executor):
        def __init__(self, *args, **kwargs):
            pass

        def submit(self, *args):
            future = Future()
            future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
            return future

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    with pytest.raises(RuntimeError, match=r"^workers: one ended before its run did: memory ran out, or .*__main__"):
        run_study(options("natural"), tmp_path)


def test_a_run_is_repeatable_keeps_its_files_and_leaves_the_generators(tmp_path):
    task = Task(options("madry").recipe("madry"), 0, options("madry", n_autoattack=3))
    state = torch.get_rng_state()
    rows = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        rows.append(run(task, folder))
        assert module.finished(task, folder) == rows[-1]
    assert torch.equal(state, torch.get_rng_state())
    weights = [load_file(tmp_path / name / f"{task.key}.safetensors") for name in ("a", "b")]
    assert states_equal(*weights)
    assert rows[0] | dict.fromkeys(TIMES) == rows[1] | dict.fromkeys(TIMES)
    assert (rows[0]["n"], rows[0]["n_autoattack"], rows[0]["n_train"], rows[0]["nb_epochs"]) == (20, 3, 1048, 1)
    assert rows[0]["autoattack"] <= rows[0]["natural"]
    for name, n in (("natural", 20), ("pgd-20", 20), ("autoattack", 3)):
        right = rows[0][f"{name}_right"]
        assert (len(right), right.count("1") / n, set(right) <= {"0", "1"}) == (n, rows[0][name], True)
    assert len(pd.read_csv(tmp_path / "a" / f"{task.key}.history.csv")) == 1


def test_the_part_asked_for_is_judged(tmp_path):
    rows = {}
    for part in ("test", "validation"):
        judged = options("natural", part=part, n_test=None)
        rows[part] = run(Task(judged.recipe("natural"), 0, judged), tmp_path)
    assert (rows["test"]["n"], rows["validation"]["n"]) == (599, 150)


def test_a_guide_is_trained_once_and_is_the_natural_arm(tmp_path, monkeypatch):
    ran, seen = in_this_process(monkeypatch), []
    arms = ("bgat", "natural", "lbgat")
    table = run_study(options(*arms, seeds=(0, 1)), tmp_path, lambda done, total, row: seen.append((done, total)))
    assert table[["arm", "seed"]].to_numpy().tolist() == [[arm, seed] for arm in arms for seed in (0, 1)]
    assert seen == [(i, 6) for i in range(1, 7)]
    assert len(ran) == len(set(ran)) == 6
    assert [key.split("-seed")[0] for key in ran[:2]] == ["digits-natural"] * 2


def test_an_ensemble_of_one_architecture_has_two_different_guides(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    base = options("bgat")
    arms = {"two": base.arms["bgat"].override(guides=("small-cnn", "small-cnn"))}
    run_study(StudyOptions(arms, **{k: v for k, v in vars(base).items() if k != "arms"}), tmp_path)
    guides = [load_file(path) for path in (tmp_path / "runs").glob("digits-natural*.safetensors")]
    assert len(guides) == 2
    assert not states_equal(*guides)


def test_what_has_ended_is_not_run_again(tmp_path, monkeypatch):
    ran = in_this_process(monkeypatch)
    study = options("madry", "bgat")
    first = run_study(study, tmp_path)
    assert len(ran) == 3
    ran.clear()
    pd.testing.assert_frame_equal(run_study(study, tmp_path), first)
    assert ran == []
    (record,) = (tmp_path / "runs").glob("digits-madry*.json")
    row = json.loads(record.read_text())
    del row["row"]["pgd-20_right"]  # as older versions wrote it
    old = json.dumps(row)
    for damage in (lambda: record.write_text("{"), lambda: record.unlink(), lambda: record.write_text(old)):
        damage()
        again = run_study(study, tmp_path)
        pd.testing.assert_frame_equal(again.drop(columns=list(TIMES)), first.drop(columns=list(TIMES)))
    assert len(ran) == 3
    assert len(set(ran)) == 1
    ran.clear()
    run_study(options("madry", "bgat", n_test=30), tmp_path)
    assert len(ran) == 3  # judged otherwise, so other runs; the first ones are still there
    assert len(list((tmp_path / "runs").glob("*.json"))) == 6


def running(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" not in status.read_text()


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_number_autoattack_judges_all_images_that_are_judged(tmp_path):
    judged = options("natural", n_test=12, n_autoattack=None)
    row = run(Task(judged.recipe("natural"), 0, judged), tmp_path)
    assert (row["n"], row["n_autoattack"], len(row["autoattack_right"])) == (12, 12, 12)
    assert row["autoattack_kind"] == "autoattack (standard)"


def test_other_data_are_other_runs(tmp_path):
    study = options("madry")
    there = Task(study.recipe("madry"), 0, study)
    for changes in ({"root": tmp_path}, {"limit": 50}, {"part": "validation"}, {"n_autoattack": 1}):
        changed = options("madry", **changes)
        assert Task(changed.recipe("madry"), 0, changed).key != there.key


def test_a_run_that_cannot_be_judged_keeps_its_weights_and_the_others(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    judge, calls = module.run_suite, []

    def fail(*args, **how):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("attacks: too few classes")
        return judge(*args, **how)

    monkeypatch.setattr(module, "run_suite", fail)
    with pytest.raises(ValueError, match="too few classes"):
        run_study(options("madry", "trades6"), tmp_path)
    kept = {path.name.split("-seed")[0] for path in tmp_path.glob("runs/*.safetensors")}
    assert kept == {"digits-madry", "digits-trades6"}
    assert [path.name.split("-seed")[0] for path in tmp_path.glob("runs/*.json")] == ["digits-madry"]


def test_a_killed_study_goes_on_where_it_was(tmp_path):
    words = "study --recipe digits-natural --recipe digits-madry --seeds 2 --nb-epochs 2 --n-autoattack 0 --workers 1"
    command = [sys.executable, "-m", "art_lbgat", *words.split(), "--output", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob("runs/*.json")))
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = workers.read_text().split() if workers.exists() else []
    os.kill(process.pid, signal.SIGKILL)  # the study alone; its workers have to notice
    process.wait()
    wait_until(lambda: not any(map(running, children)))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*.json")}
    assert 1 <= len(kept) < 4
    arms = {name: RECIPES[name] for name in ("digits-natural", "digits-madry")}
    again = run_study(StudyOptions(arms, nb_epochs=2, n_autoattack=0, workers=1), tmp_path)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(again) == 4


TRAINING, EVALUATION = "runs/*.checkpoints/fit-001/step-*.safetensors", "runs/*.safetensors"
ALONE = {
    "demo": ("demo --method PGD-AT --method BGAT --nb-epochs 40", TRAINING, signal.SIGTERM),
    "study of one worker, Ctrl-C": ("study --recipe digits-madry --recipe digits-alp --workers 1", TRAINING, signal.SIGINT),
    "in the evaluation": ("study --recipe digits-madry --nb-epochs 1 --n-autoattack 300", EVALUATION, signal.SIGTERM),
}  # fmt: skip


@pytest.mark.parametrize(("words", "begun", "number"), ALONE.values(), ids=ALONE)
def test_a_signal_to_a_study_alone_ends_it_in_ten_seconds(words, begun, number, tmp_path):
    """As a scheduler or a container sends it: not to the workers, which have long runs before them."""
    command = [sys.executable, "-m", "art_lbgat", *words.split(), "--seeds", "1", "--output", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob(begun)))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    start = time.monotonic()
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert (process.returncode, b"interrupted: the same command resumes" in error) == (130, True)
    assert children
    wait_until(lambda: not any(map(running, children)), seconds=2)  # Python's own tracker of resources ends last
    assert not list(tmp_path.glob("runs/*.json"))
    if begun is TRAINING:  # the worker wrote where it was
        assert list(tmp_path.glob("runs/*.checkpoints/fit-001/interrupted.json"))


def test_summary_has_means_intervals_and_paired_differences():
    masks = {name: ["".join(map(str, mask)) for mask in np.random.default_rng(i).integers(2, size=(4, 50))]
             for i, name in enumerate(("natural_right", "pgd-20_right", "autoattack_right"))}  # fmt: skip
    runs = pd.DataFrame(
        {"arm": ["a", "a", "b", "b"], "eps": 0.1, "seed": [0, 1, 1, 0], "natural": [0.9, 0.8, 0.5, 0.7], "pgd-20": 0.5,
         "autoattack": [0.2, 0.4, 0.1, 0.1], "train_seconds": [1.0, 3.0, 2.0, 2.0], "judge_seconds": 1.0, **masks}
    )  # fmt: skip
    table = summarize(runs, baseline="a").set_index("arm")
    assert table.natural_mean["a"] == pytest.approx(85)
    assert table.natural_std["a"] == pytest.approx(np.std([90, 80], ddof=1))
    assert table.natural_ci["a"] == pytest.approx(12.706 * np.std([90, 80], ddof=1) / math.sqrt(2), rel=1e-4)
    first, second, other, same = (np.array(list(text)) == "1" for text in masks["autoattack_right"])
    found = paired_difference(np.stack([same, other]), np.stack([first, second]))  # b has its seeds the other way round
    ends = table.loc["b", ["autoattack_diff", "autoattack_diff_low", "autoattack_diff_high"]].astype(float)
    assert ends.tolist() == pytest.approx([100 * found.value, 100 * found.low, 100 * found.high])
    assert math.isnan(table.natural_diff["a"])
    assert table.seeds.tolist() == [2, 2]
    assert table.train_seconds["a"] == 2
    assert "natural_diff" not in summarize(runs)
    part = runs.drop(index=1)  # seeds that both have are compared
    lone = summarize(part, baseline="a").set_index("arm")
    assert lone.natural_diff["b"] == pytest.approx(100 * np.mean([int(b) - int(a) for a, b in zip(
        masks["natural_right"][0], masks["natural_right"][3], strict=True)]))  # fmt: skip
    assert math.isnan(module.half_interval(pd.Series([1.0])))
    cells = [module.cell(*each) for each in ((85.04, 7.07), (50, math.nan), (math.nan, math.nan))]
    assert cells == ["85.0 ± 7.1", "50.0", ""]
    with pytest.raises(ValueError, match="baseline: expected one of"):
        summarize(runs, baseline="c")
    with pytest.raises(ValueError, match=r"runs: expected the table of run_study, missing columns \['pgd-20_right'\]"):
        summarize(runs.drop(columns="pgd-20_right"), baseline="a")


@pytest.mark.parametrize(("change", "message"), [
    ({"arms": {}}, "arms: expected at least one"),
    ({"seeds": (-1,)}, "seeds: expected a whole number >= 0"),
    ({"seeds": (0, 0)}, r"seeds: expected different seeds, got \(0, 0\)"),
    ({"nb_epochs": 0}, "nb_epochs: expected"),
    ({"n_autoattack": -1}, "n_autoattack: expected"),
    ({"part": "train"}, "part: expected one of"),
])  # fmt: skip
def test_options_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        StudyOptions(**{"arms": options("madry").arms, **change})


def test_epochs_are_scaled_for_arms_and_guides():
    study = options("bgat", nb_epochs=50)
    recipe = study.recipe("bgat")
    assert (recipe.nb_epochs, recipe.milestones, recipe.run.eps_warmup_epochs) == (50, (30, 44), 24)
    guide = study.guide_recipe(recipe, "wrn-10-1")
    assert (guide.nb_epochs, guide.model, guide.eps, guide.method) == (50, "wrn-10-1", 0.1, "natural")


def test_a_run_that_was_stopped_in_training_goes_on_with_the_same_bits(tmp_path):
    folders = [tmp_path / name for name in ("whole", "stopped")]
    task = Task(options("madry").recipe("madry"), 0, options("madry", nb_epochs=3, limit=200))
    for folder in folders:
        folder.mkdir()
    run(task, folders[0])
    with pytest.MonkeyPatch.context() as patch:
        steps, original = [], torch.optim.SGD.step

        def step(self, *args, **kwargs):
            steps.append(1)
            if len(steps) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *args, **kwargs)

        patch.setattr(torch.optim.SGD, "step", step)
        with pytest.raises(Interrupted):
            run(task, folders[1])
    assert list(folders[1].glob("*.checkpoints/fit-001/step-*"))
    run(task, folders[1])
    first, second = (next(folder.glob("*.safetensors")) for folder in folders)
    assert first.read_bytes() == second.read_bytes()
    assert not list(folders[1].glob("*.checkpoints"))


def test_the_page_of_a_study_has_its_means_and_the_networks_of_its_first_seed(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    chosen = options("natural", "madry", "lbgat", seeds=(3, 4), n_autoattack=2)
    runs = run_study(chosen, tmp_path)
    state = torch.get_rng_state()
    content = study_content(chosen, tmp_path, runs, title="A study", commands=["art-lbgat study"])
    assert torch.equal(state, torch.get_rng_state())
    assert list(content.ours) == ["lbgat"]
    table = as_results(content.results, content.ours).table.set_index("model")
    for arm, part in runs.groupby("arm"):
        assert table.robust[arm] == pytest.approx(part.autoattack.mean())
        assert table.natural[arm] == pytest.approx(part.natural.mean())
        assert table.n[arm] == 2
    shown = content.attacks.set_index(["model", "attack"])
    assert shown.accuracy["madry", "pgd-20"] == pytest.approx(runs[runs.arm == "madry"]["pgd-20"].mean())
    subject = content.ours[0]
    weights = content.provenance["SHA-256"]
    for arm in chosen.arms:
        key = next(task.key for name, task in plan_runs(chosen)[1] if (name, task.seed) == (arm, 3))
        model = RECIPES["digits-natural"].build(seed=0).classifier.model
        load_weights(model, tmp_path / "runs" / f"{key}.safetensors")
        assert weights[f"weights of {arm}"] == weights_sha256(model)
    assert list(content.slices["model"].unique())[:2] == [f"guide of {subject}", subject]
    assert "means over 2 seeds" in content.notes[0]
    assert "seed 3" in content.notes[0]
    differences = content.differences.set_index(["other", "kind"])
    for arm in ("natural", "madry"):
        right = [
            np.array([list(text) for text in runs[runs.arm == each].autoattack_right]) == "1" for each in ("lbgat", arm)
        ]
        found = paired_difference(*right)
        assert tuple(differences.loc[(arm, "robust"), ["value", "low", "high", "seeds"]]) == found
        assert differences.real[arm, "robust"] == found.real
    page = render_report(content)
    assert page.count("A study") == 2
    assert "lbgat less each other model, in points, on the same images; 95 % intervals over images and 2 seeds" in page
    other = StudyOptions({**chosen.arms, "far": chosen.arms["madry"].override(eps=0.2)}, seeds=(3,))
    with pytest.raises(ValueError, match=r"options: expected arms of one eps and norm"):
        study_content(other, tmp_path, runs, title="A study")
    for path in (tmp_path / "runs").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FileNotFoundError):
        study_content(chosen, tmp_path, runs, title="A study")
