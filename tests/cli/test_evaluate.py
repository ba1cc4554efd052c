"""``evaluate``, ``benchmark``, ``leaderboard``, ``compare`` and ``report`` as a user types them."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from art_lbgat import load
from art_lbgat.cli.judge import find_target, published_rows
from art_lbgat.data import balanced_order, load_digits
from art_lbgat.evaluation import evaluate
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.models import create_classifier
from art_lbgat.recipes import RECIPES
from art_lbgat.robustbench import BenchmarkResult, compare, leaderboard
from art_lbgat.weights import save_weights
from tests.cli.conftest import SHORT, done, invoke
from tests.conftest import states_equal

MODULE = """
from art_lbgat.models import create_classifier
import torch

def build():
    torch.manual_seed(1)
    return create_classifier("small-cnn", 10, (1, 8, 8), device_type="cpu")
"""


def test_evaluate_gives_the_numbers_of_the_function(run, tmp_path):
    done("evaluate", run, "--attack", "natural", "--attack", "fgsm", "--n", "40", "--eps", "0.1", "--csv", tmp_path / "t.csv",
         "--quiet")  # fmt: skip
    table = pd.read_csv(tmp_path / "t.csv")
    classifier = create_classifier("small-cnn", 10, (1, 8, 8), device_type="cpu", weights=run / "model.safetensors")
    data = load_digits(seed=0)
    part = balanced_order(data.test_images.y, 0)[:40]
    x, y = data.test
    expected = evaluate(classifier, x[part], y[part], eps=0.1, attacks=("natural", "fgsm"))
    assert list(table.accuracy) == list(expected.accuracy)
    assert list(table.eps) == [0.0, 0.1]


def test_radius_and_part_are_those_of_the_run_unless_given(run):
    rows = [json.loads(line) for line in done("evaluate", run, "--n", "20", "--json-lines").stdout.splitlines()]
    written = pd.read_csv(run / "results.csv")
    assert [row["accuracy"] for row in rows] == list(written.accuracy)
    assert rows[1]["eps"] == 0.3
    held = done(*f"evaluate {run} --part validation --norm 2 --eps 0.5 --json-lines".split()).stdout.splitlines()
    n = len(load_digits(seed=0).validation_images.y)
    assert json.loads(held[1]) | {"n": n, "norm": "2", "eps": 0.5} == json.loads(held[1])


@pytest.mark.parametrize("what", ["directory", "weights", "config", "checkpoint", "newest"])
def test_every_name_of_a_run_gives_its_weights(run, tmp_path, what, caplog):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    checkpoint = next(copied.glob("checkpoints/fit-001/step-*"))
    if what == "newest":
        (copied / "model.safetensors").unlink()
    name = {"weights": copied / "model.safetensors", "config": copied / "config.toml", "checkpoint": checkpoint}
    found = find_target(str(name.get(what, copied)), device_type="cpu")
    assert states_equal(found.classifier.model.state_dict(), load_file(run / "model.safetensors"))
    named = f"LBGAT, {checkpoint.name}" if what == "checkpoint" else "LBGAT"
    assert (found.name, found.eps, found.norm, found.data) == (named, 0.3, "inf", "digits")
    assert ("has not ended: these are its weights after step-000000017" in caplog.text) == (what == "newest")
    assert states_equal(found.guide.model.state_dict(), load_file(run / "guide-0.safetensors"))


def test_weights_beside_a_configuration_are_those_that_are_judged(run, tmp_path):
    shutil.copy(run / "config.toml", tmp_path)
    torch.manual_seed(7)
    classifier = create_classifier("small-cnn", 10, (1, 8, 8), device_type="cpu")
    save_weights(classifier.model, tmp_path / "other.safetensors")
    found = find_target(str(tmp_path / "other.safetensors"), device_type="cpu")
    assert states_equal(found.classifier.model.state_dict(), classifier.model.state_dict())
    assert found.guide is None
    for call, error in ((tmp_path, FileNotFoundError), (tmp_path / "none.safetensors", FileNotFoundError)):
        with pytest.raises(error, match=r"^target: there "):
            find_target(str(call))


def test_a_function_of_a_module_in_this_directory(tmp_path, monkeypatch):
    (tmp_path / "my_model_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    words = "--data digits --eps 0.1 --n 20"
    rows = done("evaluate", "my_model_of_a_test:build", *words.split(), "--json-lines").stdout
    assert json.loads(rows.splitlines()[0])["n"] == 20
    (tmp_path / "failing_of_a_test.py").write_text("def build():\n    raise RuntimeError('no weights here')\n")
    for wrong, message in (("my_model_of_a_test:build --eps 0.1", "error: data: expected"),
                           ("my_model_of_a_test:build --data digits", "error: eps: expected"),
                           ("failing_of_a_test:build --data digits --eps 0.1", "called without arguments, failed (RuntimeError: no")):  # fmt: skip
        result = invoke("evaluate", *wrong.split())
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_a_name_of_the_zoo(tmp_path, monkeypatch):
    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        return create_classifier("small-cnn", 10, (3, 8, 8), device_type="cpu")

    monkeypatch.setattr("art_lbgat.robustbench.load_classifier", load)
    found = find_target("Some2020", dataset="cifar100", threat_model="Linf", model_dir=tmp_path, device_type="cpu")
    assert asked == [(("Some2020", "cifar100", "Linf", tmp_path), {"device_type": "cpu"})]
    assert (found.eps, found.norm, found.data) == (8 / 255, "inf", "cifar100")
    with pytest.raises(ValueError, match=r"^root: expected the path that holds cifar100"):
        found.load_data(None, None)


def test_evaluate_writes_a_page(run, tmp_path):
    done("evaluate", run, "--n", "30", "--attack", "pgd-20", "--output", tmp_path / "page.html")
    assert "LBGAT, test images" in (tmp_path / "page.html").read_text()
    result = invoke("evaluate", run, "--attack", "natural", "--output", tmp_path / "other.html")
    assert result.exit_code == 2
    assert "attack: expected one beside natural for a page" in result.output


def test_report_makes_the_page_again_with_a_baseline(run, tmp_path):
    other = tmp_path / "other"
    done("train", "digits-madry", *SHORT, "--limit", "100", "--output", other)
    before = sorted(path.name for path in run.iterdir())
    page = tmp_path / "page.html"
    said = done("report", run, "--baseline", other, "--n", "30", "--title", "Two of them", "--output", page).stdout
    assert str(page) in said
    text = page.read_text()
    assert all(word in text for word in ("Two of them", "PGD-AT", "LBGAT", "guide_ce_weight"))
    assert sorted(path.name for path in run.iterdir()) == before
    done("report", other, "--n", "30")
    assert (other / "report.html").exists()


def result():
    return BenchmarkResult(
        "mine", "small-cnn", "cifar10", "Linf", 8 / 255, Accuracy(90, 100), Accuracy(50, 100), {"apgd-ce": 0.5}, {}, {},
        ("100 images instead of 10,000",), 0, 250, "a", "b", {}, "cpu", {"apgd-ce": 1.0},
    )  # fmt: skip


def test_benchmark_passes_everything_on_prints_and_saves(run, tmp_path, monkeypatch):
    asked = {}

    def fake(classifier, *args, **kwargs):
        asked.update(kwargs, classifier=classifier, args=args)
        return result()

    monkeypatch.setattr("art_lbgat.robustbench.benchmark", fake)
    path = tmp_path / "result.json"
    shown = done("benchmark", run, "--n", "100", "--eps", "0.03", "--data-dir", tmp_path, "--attack", "apgd-ce", "--attack",
                 "square", "--batch-size", "50", "--seed", "3", "--state", tmp_path / "s", "--save", path, "--name", "mine")  # fmt: skip
    assert asked["args"] == ("cifar10", "Linf", 0.03, 100)
    assert asked["attacks"] == ["apgd-ce", "square"]
    assert asked["state_path"] == tmp_path / "s"
    found = [asked[name] for name in ("batch_size", "seed", "model_name", "architecture")]
    assert found == [50, 3, "mine", "small-cnn"]
    assert states_equal(asked["classifier"].model.state_dict(), load_file(run / "model.safetensors"))
    assert "not RobustBench standard: 100 images instead of 10,000" in shown.stdout
    assert str(compare(result())) in shown.stdout
    assert BenchmarkResult.load(path) == result()
    assert invoke("benchmark", run, "--save", path).exit_code == 2  # the file is there
    assert "mine, cifar10 Linf: robust 50.00 %" in done("compare", path).stdout


def test_leaderboard_prints_the_best_and_writes_all(tmp_path):
    board = leaderboard("cifar100", "Linf")
    shown = done("leaderboard", "cifar100", "Linf", "--top", "3", "--csv", tmp_path / "b.csv").stdout
    assert f"3 of {len(board)} rows" in shown
    assert all(name in shown for name in board.model_id[:3])
    assert board.model_id[3] not in shown
    assert len(pd.read_csv(tmp_path / "b.csv")) == len(board)
    assert "Cui2020Learnable" in done("leaderboard", "cifar100", "Linf", "--top", "0").stdout


def test_compare_shows_a_published_row_and_its_neighbours(tmp_path):
    shown = done("compare", "Cui2020Learnable_34_20", "--n-rows", "2", "--csv", tmp_path / "c.csv").stdout
    assert shown.strip() == str(compare("Cui2020Learnable_34_20", n_rows=2)).strip()
    assert "eps 0.031 instead of 8/255" in shown
    assert len(pd.read_csv(tmp_path / "c.csv")) == 3


def test_load_gives_a_run(run):
    found = load(run, "cpu")
    recipe = RECIPES["digits-lbgat"].override(nb_epochs=1)
    assert (found.recipe, found.eps, found.norm, found.class_names) == (recipe, 0.3, "inf", [])
    assert states_equal(found.classifier.model.state_dict(), load_file(run / "model.safetensors"))
    (guide,) = found.guides
    weights = load_file(run / "guide-0.safetensors")
    assert states_equal(guide.model.state_dict(), weights)
    found = load(str(run / "guide-0.safetensors"), device_type="cpu")
    assert found.name == "guide 0 of LBGAT"
    assert states_equal(found.classifier.model.state_dict(), weights)
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file or directory"):
        load(run / "nothing")
    with pytest.raises(ValueError, match=r"^path: there is no config.toml in or above"):
        load("/")


def test_baselines_of_one_name_are_all_shown_and_one_run_is_not_its_own_baseline(run, tmp_path):
    for place in ("x", "y"):
        shutil.copytree(run, tmp_path / place / "run")
    page = tmp_path / "page.html"
    done("report", run, "--baseline", tmp_path / "x" / "run", "--baseline", tmp_path / "y" / "run", "--n", "30",
         "--output", page)  # fmt: skip
    text = page.read_text()
    assert "LBGAT (run)" in text
    assert f"LBGAT ({tmp_path / 'y' / 'run'})" in text
    result = invoke("report", run, "--baseline", f"{run}/")
    assert result.exit_code == 2
    assert "baseline: expected different runs" in result.output
    again = invoke("report", run, "--output", page)
    assert (again.exit_code, "exists already" in again.output) == (2, True)


@pytest.mark.parametrize(("data", "norm", "there"), [("cifar10", "inf", True), ("cifar100", "2", False),
                                                     ("digits", "inf", False)])  # fmt: skip
def test_the_leaderboard_is_drawn_where_there_is_one(data, norm, there):
    found = published_rows(data, norm)
    assert ("Cui2020Learnable_34_20" in set(found.model_id)) if there else found is None
