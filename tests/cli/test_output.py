"""What commands say: lines, JSON, tables; and what stays out of a pipe."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest

from art_lbgat.cli import output
from art_lbgat.cli.output import ProgressTracker, Reporter, duration, make_reporter, print_table, summary

ROW = {"fit": 1, "epoch": 2, "guidance_mse": 0.5, "guide_ce": 0.25, "loss": 1.5, "train_robust_accuracy": 0.4,
       "guide_accuracy": 0.9, "learning_rate": 0.1, "seconds": 2.0, "images_per_second": 640.0,
       "validation_natural_accuracy": 0.8, "validation_robust_accuracy": math.nan}  # fmt: skip
RUN = {"trainer": "LBGAT", "seed": 0, "nb_epochs": 4, "steps_per_epoch": 10, "epoch": 2, "history": [ROW]}


def test_a_row_as_a_text():
    assert (
        summary(ROW)
        == "loss 1.5 (guidance_mse 0.5, guide_ce 0.25), train robust 40.0 %, guide 90.0 %, validation natural 80.0 %"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_lines_say_what_is_left(capsys, monkeypatch):
    clock = iter([100.0, 103.0, 106.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    tracker = ProgressTracker(Reporter("lines"), "LBGAT")
    tracker.start(RUN)
    tracker.log(ROW, 20, 2)
    tracker.log({**ROW, "epoch": 3}, 30, 3)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "LBGAT: resumes in epoch 2 of 4"
    assert lines[1].endswith("640 images/s, 6.0 s left")
    assert lines[2].endswith("640 images/s, 3.0 s left")
    assert shown.out == ""


def test_json_of_what_json_has_not(capsys):
    frame = pd.DataFrame({"steps": pd.array([20, None], dtype="Int64"), "accuracy": [np.float32(0.5), math.inf]})
    Reporter("json").table("results", frame)
    Reporter("json").event("x", path=io, numbers=(np.int64(1), True, None), nested={"a": math.nan})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [
        {"event": "result", "steps": 20, "accuracy": 0.5},
        {"event": "result", "steps": None, "accuracy": None},
    ]
    assert lines[2]["numbers"] == [1, True, None]
    assert lines[2]["nested"] == {"a": None}


def test_which_reporter(monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        found = make_reporter(quiet=False, json_lines=False)
        assert (found.kind, found.bar) == ("lines", terminal)
    found = make_reporter(quiet=False, json_lines=True)
    assert (found.kind, found.bar) == ("json", False)
    assert make_reporter(quiet=True, json_lines=False).kind == "quiet"
    monkeypatch.setenv("RANK", "1")
    assert make_reporter(quiet=False, json_lines=False).kind == "quiet"


def test_text_in_brackets_is_shown_as_it_is_and_ids_are_whole(capsys):
    print_table("t", ("id", "objective"), [("a" * 90, "LBGAT [kl]")], left=("id", "objective"), whole=("id",))
    shown = capsys.readouterr().out
    assert "LBGAT [kl]" in shown
    assert "a" * 90 in shown
