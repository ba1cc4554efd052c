"""``art-lbgat train``: the directory of a run, going on, refusing, progress, dry run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from art_lbgat.cli import train
from art_lbgat.engine.checkpoint import locked, read_newest
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.runs import Config
from tests.cli.conftest import SHORT, done, invoke
from tests.conftest import states_equal

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
FILES = {"checkpoints", "config.toml", "history.csv", "results.csv", "table.md", "model.safetensors",
         "guide-0.safetensors", "trained-on.txt"}  # fmt: skip


def same_weights(first, second):
    return states_equal(load_file(first / "model.safetensors"), load_file(second / "model.safetensors"))


def test_a_run_is_one_directory_that_reads_back(run):
    assert {path.name for path in run.iterdir()} == FILES
    recipe = RECIPES["digits-lbgat"].override(nb_epochs=1)
    assert Recipe.read(run / "config.toml") == recipe
    written = Config(recipe, n_test=20, report=False, input_shape=(1, 8, 8), nb_classes=10)
    assert Config.read(run / "config.toml") == written
    history = pd.read_csv(run / "history.csv")
    assert list(history.epoch) == [1]
    assert list(history.kept) == [True]
    results = pd.read_csv(run / "results.csv")
    assert list(results.attack) == ["natural", "pgd-20"]
    assert set(results.n) == {20}
    shown = f"{100 * results.accuracy[0]:.2f}"
    assert f"| natural | 0 | 20 | {shown} |" in (run / "table.md").read_text()
    experiment = recipe.build(seed=0, verbose=False)  # the same training by hand ends in the same bits
    experiment.fit()
    assert states_equal(load_file(run / "model.safetensors"), experiment.classifier.model.state_dict())
    assert states_equal(load_file(run / "guide-0.safetensors"), experiment.guides[0].model.state_dict())


def test_what_was_written_is_what_trains_again(run, tmp_path):
    done("train", run / "config.toml", "--output", tmp_path / "again", "--n-test", "20", "--no-report")
    assert same_weights(run, tmp_path / "again")


def test_settings_of_recipe_and_run_and_the_seed_reach_the_training(tmp_path):
    done("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--seed", "3", "--limit", "100", "--set", "eps=0.1",
         "--set", "checkpoint_every=2 epochs", "--set", "awp_gamma=none", "--set", "eps_warmup_epochs=2")  # fmt: skip
    written = Config.read(tmp_path / "a" / "config.toml")
    assert (written.recipe.eps, written.seed, written.limit) == (0.1, 3, 100)
    assert (written.recipe.run.checkpoint_every, written.recipe.run.awp_gamma) == ("2 epochs", None)
    assert pd.read_csv(tmp_path / "a" / "history.csv").eps[0] == 0.05  # half of it
    checkpoint = read_newest(tmp_path / "a" / "checkpoints" / "fit-001")
    assert checkpoint.facts["settings"]["options"]["seed"] == 3


def test_frozen_guides_are_trained_first_and_kept(tmp_path):
    command = ("train", "digits-bgat", "--output", tmp_path / "a", *SHORT, "--limit", "100")
    result = done(*command)
    assert result.stderr.count("guide 0: epoch ") == 25
    assert (tmp_path / "a" / "checkpoints" / "guide-0" / "fit-001").is_dir()
    assert len(pd.read_csv(tmp_path / "a" / "guide-0-history.csv")) == 25
    guide = tmp_path / "a" / "guide-0.safetensors"
    given = done("train", "digits-bgat", "--output", tmp_path / "b", *SHORT, "--limit", "100", "--guide-weights", guide)
    assert "guide 0" not in given.stderr
    assert same_weights(tmp_path / "a", tmp_path / "b")
    again = done(*command, "--resume")  # neither is trained anew
    assert "guide 0: all 25 epochs are done" in again.stderr


def test_the_page_holds_the_table_and_the_configuration_and_autoattack_takes_the_first_images(tmp_path, few_queries):
    done("train", "digits-lbgat", "--output", tmp_path, *SHORT[:-1], "--limit", "100", "--n-autoattack", "10")
    page, results = (tmp_path / "report.html").read_text(), pd.read_csv(tmp_path / "results.csv").set_index("attack")
    assert results.n["autoattack (standard)"] == 10
    shown = f"{100 * results.accuracy['natural']:.1f}"
    assert all(text in page for text in (shown, "guide_ce_weight", "LBGAT on digits"))


def test_a_finished_run_is_refused_and_goes_on_with_resume(run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    before = (copied / "config.toml").read_text()
    assert invoke("train", "digits-lbgat", "--output", copied, *SHORT).exit_code == 2
    assert invoke("train", "digits-lbgat", "--output", copied, *SHORT, "--set", "eps=0.1").exit_code == 2
    refused = invoke("train", "digits-lbgat", "--output", copied, *SHORT, "--set", "eps=0.1", "--resume")
    assert refused.exit_code == 2
    assert "attack.eps: 0.3 -> 0.1" in refused.output
    assert (copied / "config.toml").read_text() == before  # nothing was touched
    assert (copied / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
    more = done("train", "--output", copied, "--resume", "--set", "nb_epochs=2")
    assert "resumes in epoch 2 of 2" in more.stderr
    assert list(pd.read_csv(copied / "history.csv").epoch) == [1, 2]
    assert Config.read(copied / "config.toml").recipe.nb_epochs == 2
    whole = tmp_path / "whole"
    done("train", "digits-lbgat", "--set", "nb_epochs=2", "--n-test", "20", "--no-report", "--output", whole)
    assert same_weights(copied, whole)


def test_a_stop_while_judging_is_130_and_the_same_command_ends_it(tmp_path, monkeypatch):
    def stopped(*args, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    command = ("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--limit", "100")
    monkeypatch.setattr("art_lbgat.runs.evaluate_images", stopped)
    found = signal.getsignal(signal.SIGTERM)
    result = invoke(*command)
    assert result.exit_code == 130
    assert "interrupted: the same command resumes" in result.stderr
    assert signal.getsignal(signal.SIGTERM) == found
    assert not (tmp_path / "a" / "results.csv").exists()
    monkeypatch.undo()
    assert "all 1 epochs are done" in done(*command).stderr
    assert (tmp_path / "a" / "results.csv").exists()


def test_sigterm_ends_a_training_with_130_and_the_same_command_goes_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "art_lbgat", "train", "digits-lbgat", "--set", "nb_epochs=6", "--n-test", "20",
               "--no-report", "--output"]  # fmt: skip
    path = tmp_path / "stopped"
    process = subprocess.Popen([*command, path], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (path / "history.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "SIGTERM: stopped in epoch" in errors
    assert "Traceback" not in errors
    assert not (path / "results.csv").exists()
    assert "goes on from" in done(*map(str, command[3:]), path).stderr
    done(*command[3:], tmp_path / "whole")
    assert same_weights(path, tmp_path / "whole")
    columns = ["epoch", "loss", "guidance_mse", "train_robust_accuracy"]
    histories = [pd.read_csv(each / "history.csv")[columns] for each in (path, tmp_path / "whole")]
    pd.testing.assert_frame_equal(*histories, rtol=1e-12)


def test_torchrun_trains_with_two_processes_and_one_of_them_writes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "art_lbgat",
               "train", "digits-lbgat", *SHORT, "--n-autoattack", "4", "--limit", "100", "--output", tmp_path / "two"]  # fmt: skip
    both = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("LBGAT: epoch 1/1") == 1
    assert both.stdout.count("saved in") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == FILES
    checkpoint = read_newest(tmp_path / "two" / "checkpoints" / "fit-001")
    assert checkpoint.facts["surroundings"]["processes"] == 2
    done("train", "digits-lbgat", *SHORT, "--limit", "100", "--output", tmp_path / "one")
    losses = [pd.read_csv(tmp_path / name / "history.csv").loss[0] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)  # BatchNorm has the statistics of each share


def test_json_lines_are_all_that_is_on_stdout_and_a_service_is_told_too(tmp_path):
    result = done("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--limit", "100", "--json-lines",
                  "--tracker", "tensorboard")  # fmt: skip
    assert list((tmp_path / "a" / "tracker").rglob("events.out.tfevents*"))
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["event"] for each in events] == ["start", "epoch", "finished", "trained", "result", "result", "done"]
    assert (events[0]["nb_epochs"], events[0]["steps_per_epoch"]) == (1, 2)
    assert events[1]["loss"] == pd.read_csv(tmp_path / "a" / "history.csv").loss[0]
    assert [each["attack"] for each in events[4:6]] == ["natural", "pgd-20"]
    assert result.stderr == ""


def test_quiet_is_quiet_and_a_log_has_a_line_per_epoch_without_colour(tmp_path):
    quiet, loud = (done("train", "digits-madry", "--output", tmp_path / str(i), *SHORT, "--limit", "100", *more)
                   for i, more in enumerate([["--quiet"], []]))  # fmt: skip
    assert quiet.output == ""
    assert re.fullmatch(r"PGD-AT: epoch 1/1: loss [\d.]+, train robust [\d.]+ %, \d+ images/s\n", loud.stderr)
    assert "pgd-20" in loud.stdout
    assert "\x1b" not in loud.output


def test_two_runs_in_one_directory_are_refused(tmp_path):
    train.make_config("digits-madry", ["nb_epochs=1"], limit=100).write(tmp_path / "a")
    with locked(tmp_path / "a" / "checkpoints" / "fit-001"):
        result = invoke("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--limit", "100")
    assert result.exit_code == 2
    assert "another run is using" in result.stderr
    assert not (tmp_path / "a" / "history.csv").exists()


def test_dry_run_measures_and_writes_nothing(tmp_path):
    result = done("train", "digits-lbgat6", "--dry-run", "--output", tmp_path / "a", "--set", "awp_gamma=0.01")
    assert not (tmp_path / "a").exists()
    assert "awp_gamma = 0.01" in result.stdout
    assert "parameters: classifier 13,026, guide 0 13,026" in result.stdout
    assert f"passes per step: {RECIPES['digits-lbgat6'].override(awp_gamma=0.01).cost}" in result.stdout
    assert "steps: 17 per epoch, 425 in all" in result.stdout
    assert re.search(r"time: about [\d.]+ \w+.*, by two steps of [\d.e-]+ s\n  training: [\d.]+ \w+", result.stdout)
    assert re.search(r"memory: [\d,]+ MiB", result.stdout)


def test_dry_run_counts_guides_and_validation(tmp_path):
    result = done("train", "digits-bgat", "--dry-run", "--json-lines", "--set", "keep=best", "--limit", "100")
    (plan,) = map(json.loads, result.stdout.splitlines())
    assert plan["event"] == "plan"
    assert plan["steps_per_epoch"] == 2
    assert plan["training"] == pytest.approx(25 * 2 * plan["step"])
    assert plan["guides"] > 0
    assert plan["validation"] > 0
    assert plan["configuration"]["training"] == {"seed": 0, "limit": 100, "n_autoattack": 0, "report": True}


def test_dry_run_leaves_global_generators_alone():
    drawn = []
    for command in ((), ("train", "digits-madry", "--dry-run", "--limit", "100")):
        torch.manual_seed(5)
        np.random.seed(5)
        if command:
            done(*command)
        drawn.append((torch.rand(1), np.random.rand()))
    assert drawn[0] == drawn[1]


def test_another_failure_is_1_and_one_message_and_debug_shows_where(tmp_path, monkeypatch):
    def broken(*args, **how):
        raise KeyError("gone")

    monkeypatch.setattr("art_lbgat.runs.evaluate_images", broken)
    command = ("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--limit", "100", "-q")
    result = invoke(*command)
    assert result.exit_code == 1
    assert result.stderr == "error: KeyError: 'gone' (art-lbgat --debug ... shows where)\n"
    shown = invoke("--debug", *command)
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr
    assert 'raise KeyError("gone")' in shown.stderr


def test_nan_is_a_failure_and_no_bad_input(tmp_path):
    result = invoke("train", "digits-madry", "--output", tmp_path / "a", *SHORT, "--set", "learning_rate=1e30", "-q")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
