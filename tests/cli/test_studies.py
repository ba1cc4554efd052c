"""The ``art-lbgat`` command as a user types it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from art_lbgat.data import read_images
from art_lbgat.models import create_classifier
from art_lbgat.recipes import RECIPES, Recipe
from tests.cli.conftest import done, invoke
from tests.data.cases import write_tree


def test_help_lists_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    names = "demo train evaluate predict benchmark leaderboard compare report recipes study doctor"
    for name in names.split():
        assert re.search(rf"│ {name} +[A-Z]", result.output), name
        assert invoke(name, "--help").exit_code == 0


def test_help_and_version_import_neither_torch_nor_art():
    """So that they answer in a fraction of a second; completion of options and commands too."""
    code = (
        "import sys; from typer.testing import CliRunner; from art_lbgat.cli.main import app\n"
        "for arguments in (['--help'], ['--version'], *([c, '--help'] for c in ('train', 'evaluate', 'benchmark', 'doctor'))):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "print([m for m in ('torch', 'art', 'numpy', 'pandas', 'robustbench') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_demo_trains_judges_prints_and_saves(tmp_path):
    """A small one, as a process of its own: two methods that share a guide, one epoch."""
    output = tmp_path / "out"
    words = "demo --seeds 2 --nb-epochs 1 --n-autoattack 3 --method PGD-AT --method BGAT --eps 0.1 --workers 2 --output"
    command = [sys.executable, "-m", "art_lbgat", *words.split(), output]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(text in said for text in ("PGD-AT", "BGAT", "eps = 0.1"))
    runs = pd.read_csv(output / "runs.csv")
    assert runs.groupby("arm").size().to_dict() == {"BGAT": 2, "PGD-AT": 2}
    assert all(runs[name].between(0, 1).all() for name in ("natural", "pgd-20", "autoattack"))
    summary = pd.read_csv(output / "summary.csv").set_index("arm")
    assert summary.natural_mean["BGAT"] == pytest.approx(100 * runs[runs.arm == "BGAT"].natural.mean())
    record = json.loads((output / "results.json").read_text())
    assert (record["arms"]["BGAT"]["eps"], record["arms"]["BGAT"]["nb_epochs"]) == (0.1, 1)
    assert record["versions"]["torch"]
    assert record["command"].startswith("art-lbgat demo --seeds 2")
    assert len(record["runs"]) == 4
    shown = f"{summary.natural_mean['BGAT']:.1f} ± {summary.natural_std['BGAT']:.1f}"
    assert f"| {shown} |" in (output / "table.md").read_text()
    assert shown in said
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "means over 2 seeds" in page
    assert f"open {output / 'report.html'}" in " ".join(said.split())


def test_demo_on_a_folder_of_images_is_one_command(tmp_path):
    write_tree(tmp_path / "photos", parts=("",), n=10, size=12)
    output = tmp_path / "out"
    words = "--image-size 8 --seeds 1 --nb-epochs 1 --n-autoattack 0 --method PGD-AT --method LBGAT --workers 1"
    result = done("demo", "--root", tmp_path / "photos", "--output", output, *words.split())
    assert pd.read_csv(output / "runs.csv").arm.tolist() == ["PGD-AT", "LBGAT"]
    record = json.loads((output / "results.json").read_text())
    assert (record["arms"]["LBGAT"]["eps"], record["arms"]["LBGAT"]["image_size"]) == (8 / 255, 8)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "class cat" in page
    assert "Each number is of one training" in page
    assert len(list((output / "runs").glob("*.guide.safetensors"))) == 1
    model = output / "models" / "lbgat"
    assert f"art-lbgat evaluate {model}" in " ".join(result.output.split())
    done("evaluate", model, "--csv", tmp_path / "again.csv")
    runs = pd.read_csv(output / "runs.csv").set_index("arm")
    for path in (tmp_path / "again.csv", model / "results.csv"):
        assert pd.read_csv(path).accuracy.tolist() == runs.loc["LBGAT", ["natural", "pgd-20"]].tolist()
    done("report", model, "--baseline", output / "models" / "pgd-at", "--n", "4")
    study = invoke("evaluate", output)
    assert study.exit_code == 2
    assert f"it is a study, expected one of {model}" in " ".join(study.output.split())
    photos = sorted((tmp_path / "photos" / "dog").iterdir())[:3]
    done("predict", model, *photos, "--csv", tmp_path / "said.csv")
    classifier = create_classifier("small-cnn", 2, (3, 8, 8), device_type="cpu", weights=model / "model.safetensors")
    best = classifier.predict(read_images(photos, 8).astype("float32") / np.float32(255)).argmax(axis=1)
    table = pd.read_csv(tmp_path / "said.csv")
    assert table["class"].tolist() == [("cat", "dog")[k] for k in best]
    assert table["probability %"].between(50, 100).all()
    assert invoke("predict", model, "no.jpg").exit_code == 2


@pytest.mark.parametrize("command", [["demo"], ["study", "--recipe", "digits-madry"]])
def test_a_study_writes_into_no_other_directory(command, tmp_path):
    (tmp_path / "config.toml").write_text("eps = 1\n")
    result = invoke(*command, "--output", tmp_path)
    assert result.exit_code == 2
    assert "holds other things (config.toml); expected a new or an empty directory" in " ".join(result.output.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml"]


@pytest.mark.parametrize(("command", "message"), [
    ("demo --eps -0.1", "eps: expected a finite number > 0, got -0.1"),
    ("demo --seeds 0", "seeds: expected at least one, got none"),
    ("demo --workers 0", "workers: expected a whole number >= 1"),
    ("demo --guide-ce-weight -1", "guide_ce_weight: expected a finite number >= 0"),
    ("study --recipe digits-lbgat --ablation alpha", "recipe: expected either --recipe or --ablation"),
    ("study --recipe digits-lbgat --recipe digits-lbgat", "recipe: expected different ids"),
    ("study --ablation alhpa", "did you mean 'alpha'"),
    ("study --ablation alpha --base digits-madry", "base: expected a recipe of method"),
    ("study --recipe digits-lbgat --set epz=1", "did you mean 'eps'"),
    ("study --recipe digits-lbgat --set eps=big", "eps: expected a finite number > 0, got 'big'"),
    ("study --recipe nothing.toml", "nothing.toml"),
    ("study --recipe digits-lbgat --recipe lbgat-cifar10-wrn34-10", "arms: expected recipes on the same data"),
    ("study --recipe cifar10-small-madry --seeds 1 --workers 1 --root .", "CIFAR-10"),
])  # fmt: skip
def test_bad_options_end_with_code_2_and_one_message(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*command.split(), "--output", "o")
    assert result.exit_code == 2
    assert message in re.sub(r"\s+", " ", result.output)
    assert "Traceback" not in result.output
    assert not (tmp_path / "o").exists()


def without_page(monkeypatch):
    """Runs that are replaced leave no networks to show; the paths of the pages that were asked for."""
    pages = []
    monkeypatch.setattr("art_lbgat.cli.study.keep_models", lambda *args: [Path("models/one")])
    for name in ("first_data", "study_content"):
        monkeypatch.setattr(f"art_lbgat.study.{name}", lambda *_, **__: None)
    monkeypatch.setattr("art_lbgat.report.write_report", lambda path, content: pages.append(path))
    return pages


def test_recipes_of_several_radii_have_a_table_and_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr("art_lbgat.study.run_study", lambda options, output, report: rows(list(options.arms)))
    pages = without_page(monkeypatch)
    RECIPES["digits-madry"].override(id="near", eps=0.1).save(tmp_path / "near.toml")
    recipes = ["--recipe", "digits-madry", "--recipe", tmp_path / "near.toml"]
    said = " ".join(done("study", *recipes, "--output", tmp_path / "o").output.split())
    assert "no page, since the recipes differ in eps or norm" in said
    assert pages == []


@pytest.mark.parametrize("ablation", ["guidance", "alpha", "guide-depth", "ensemble", "regularizer"])
def test_an_ablation_is_one_command(ablation, tmp_path, monkeypatch):
    """The arms of each ablation reach the study, with what was set; the runs themselves are replaced."""
    seen = {}

    def fake(options, output, report):
        seen["options"] = options
        return rows(list(options.arms), seeds=options.seeds, eps=(0.2,))

    monkeypatch.setattr("art_lbgat.study.run_study", fake)
    without_page(monkeypatch)
    done("study", "--ablation", ablation, "--seeds", "2", "--set", "eps=0.2", "--output", tmp_path)
    arms = seen["options"].arms
    assert len(arms) >= 3
    assert all(recipe.eps == 0.2 for recipe in arms.values())
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {arm} |" in table for arm in arms)
    assert f"natural vs {next(iter(arms))}" in table
    assert json.loads((tmp_path / "results.json").read_text())["arms"].keys() == arms.keys()


def test_recipes_prints_the_table_one_recipe_and_a_file(tmp_path):
    shown = done("recipes").output
    line = next(line for line in shown.splitlines() if "lbgat6-cifar100-wrn34-10" in line)
    expected = "cifar100,wrn-34-10,LBGAT + TRADES (a=6),0.031,27 F + 3 Fg,60.64,29.33,RobustBench"
    assert all(text in line for text in expected.split(","))
    assert all(name in shown for name in RECIPES)
    one = done("recipes", "lbgat9-awp-cifar100-wrn34-10").output
    assert "awp_gamma: 0.005" in one
    assert "passes per step: 33 F + 3 Fg" in one
    path = tmp_path / "mine.toml"
    done("recipes", "digits-lbgat", "--save", path)
    assert Recipe.read(path) == RECIPES["digits-lbgat"]
    for arguments in (["digits-lbgat", "--save", path], ["--save", tmp_path / "b.toml"],
                      ["digits-lbgat", "--save", tmp_path / "b.yaml"], ["digits-lbga"]):  # fmt: skip
        result = invoke("recipes", *arguments)
        assert result.exit_code == 2
        assert result.output.startswith("error: ")


def rows(arms=("PGD-AT", "BGAT"), seeds=(0, 1), eps=(0.1, 0.2)):
    masks = {name: [f"{mask:064b}" for mask in (2**64 - 1, 2**63 - 1, 2**32 - 1, 2**20 - 1)]
             for name in ("natural_right", "pgd-20_right", "autoattack_right")}  # fmt: skip
    return pd.DataFrame([
        {"arm": a, "recipe": "r", "eps": e, "seed": s, "natural": 0.9 + 0.02 * s, "pgd-20": 0.5,
         "autoattack": 0.25 + 0.1 * s, "autoattack_kind": "autoattack (standard)", "n": 599, "n_autoattack": 64,
         "flags": f"Square has gained {s}.5%" if a == "BGAT" else "", "part": "test", "selection": "none", "train_seconds": 3.0, "judge_seconds": 4.0,
         **{name: each[(2 * (a != arms[0]) + s) % 4] for name, each in masks.items()}}
        for e in eps for a in arms for s in seeds
    ])  # fmt: skip


def test_table_shows_mean_and_spread_for_each_eps_and_counts_warnings(tmp_path, monkeypatch):
    def fake(options, output, report):
        return rows(list(options.arms), eps=(options.arms["BGAT"].eps,))

    monkeypatch.setattr("art_lbgat.study.run_study", fake)
    pages = without_page(monkeypatch)
    command = "demo --eps 0.1 --eps 0.2 --method PGD-AT --method BGAT --output"
    result = done(*command.split(), tmp_path)
    assert result.output.count("91.0 ± 1.4") == 4
    assert result.output.count("30.0 ± 7.1") == 4
    for eps in ("0.1", "0.2"):
        assert f"eps = {eps}" in result.output
    assert pages == [tmp_path / "report-eps0.1.html", tmp_path / "report-eps0.2.html"]
    assert "warns in 4 of 8 runs" in re.sub(r"\s+", " ", result.output)
    table = (tmp_path / "table.md").read_text()
    assert table.count("| BGAT | 91.0 ± 1.4 | 50.0 ± 0.0 | 30.0 ± 7.1 | -58.6 [") == 2
    assert table.count("| AutoAttack vs PGD-AT |") == 2
    assert table.count("difference to PGD-AT in points [95 % interval], on the same images and seeds") == 2
    assert len(pd.read_csv(tmp_path / "runs.csv").filter(like="_right").columns) == 0
    assert len(json.loads((tmp_path / "results.json").read_text())["runs"][0]["natural_right"]) == 64


def test_autoattack_judges_all_digits_and_a_hundred_of_other_images(tmp_path, monkeypatch):
    seen = []

    def fake(options, output, report):
        seen.append(options.n_autoattack)
        return rows(list(options.arms), eps=(0.1,))

    monkeypatch.setattr("art_lbgat.study.run_study", fake)
    without_page(monkeypatch)
    for number, words in enumerate(("--recipe digits-madry", "--recipe digits-madry --n-autoattack 7",
                                    "--recipe cifar10-small-madry --root .")):  # fmt: skip
        done("study", *words.split(), "--output", tmp_path / str(number))
    done("demo", "--method", "BGAT", "--output", tmp_path / "demo")
    assert seen == [None, 7, 100, 100]


def test_what_is_no_standard_number_is_said_under_the_table(tmp_path, monkeypatch):
    def fake(options, output, report):
        table = rows(list(options.arms), eps=(0.2,))
        return table.assign(part="validation", selection="test", autoattack_kind="autoattack (custom)")

    monkeypatch.setattr("art_lbgat.study.run_study", fake)
    without_page(monkeypatch)
    result = done("study", "--recipe", "digits-madry", "--output", tmp_path)
    for text in (re.sub(r"\s+", " ", result.output), (tmp_path / "table.md").read_text()):
        assert "Evaluated on the validation part" in text
        assert "Epoch chosen on the test set (a reproduction, not a fair result): digits-madry" in text
        assert "AutoAttack is not the standard one: autoattack (custom)" in text


def test_an_interrupt_ends_with_code_130(tmp_path, monkeypatch):
    def interrupted(options, output, report):
        report(1, 2, rows().iloc[0].to_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr("art_lbgat.study.run_study", interrupted)
    assert invoke("demo", "--output", tmp_path).exit_code == 130
