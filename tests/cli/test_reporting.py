"""What commands say: lines, JSON, bars; and what stays out of a pipe."""

import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from art_lbgat.commands import reporting
from art_lbgat.commands.live import Live, epoch_row
from art_lbgat.commands.reporting import JSONLines, Lines, Reporter, duration, make_reporter, summary
from rich.console import Console

ROW = {"fit": 1, "epoch": 2, "guidance_mse": 0.5, "guide_ce": 0.25, "loss": 1.5, "train_robust_accuracy": 0.4,
       "guide_accuracy": 0.9, "learning_rate": 0.1, "seconds": 2.0, "images_per_second": 640.0,
       "validation_natural_accuracy": 0.8, "validation_robust_accuracy": math.nan}  # fmt: skip
RUN = {
    "trainer": "LBGAT",
    "fit": 1,
    "seed": 0,
    "nb_epochs": 4,
    "steps_per_epoch": 10,
    "epoch": 1,
    "options": {},
    "history": [],
}


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
    monkeypatch.setattr(reporting.time, "monotonic", lambda: next(clock))
    (tracker,) = Lines().trackers("LBGAT", 64)
    tracker.start({**RUN, "epoch": 2, "history": [ROW]})
    tracker.log(ROW, 20, 2)
    tracker.log({**ROW, "epoch": 3}, 30, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "LBGAT: goes on in epoch 2 of 4"
    assert lines[1].endswith("640 images/s, 6.0 s left")
    assert lines[2].endswith("640 images/s, 3.0 s left")


def test_json_of_what_json_has_not(capsys):
    frame = pd.DataFrame({"steps": pd.array([20, None], dtype="Int64"), "accuracy": [np.float32(0.5), math.inf]})
    JSONLines().table("results", frame)
    JSONLines().event("x", path=io, numbers=(np.int64(1), True, None), nested={"a": math.nan})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [
        {"event": "result", "steps": 20, "accuracy": 0.5},
        {"event": "result", "steps": None, "accuracy": None},
    ]
    assert lines[2]["numbers"] == [1, True, None]
    assert lines[2]["nested"] == {"a": None}


def test_which_reporter(monkeypatch):
    assert type(make_reporter(quiet=True, json_lines=False)) is Reporter
    assert type(make_reporter(quiet=False, json_lines=True)) is JSONLines
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert type(make_reporter(quiet=False, json_lines=False)) is Lines
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert type(make_reporter(quiet=False, json_lines=False)) is Live
    monkeypatch.setenv("RANK", "1")
    assert type(make_reporter(quiet=False, json_lines=False)) is Reporter


def test_bars_show_epochs_steps_losses_speed_and_time_left(monkeypatch):
    live = Live()
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    live._progress.live.console = live._console = console
    clock = iter([100.0, 101.0, 102.0, 103.0, 104.0, 105.0])
    with live:
        (bars,) = live.trackers("LBGAT", 64)
        bars.start(RUN)
        assert bars.every_seconds == 0.5
        monkeypatch.setattr("art_lbgat.commands.live.time.monotonic", lambda: next(clock))
        running = {name: ROW[name] for name in ("guidance_mse", "loss", "train_robust_accuracy")}
        bars.log({**running, "step_in_epoch": 2}, 2, 1)
        bars.log({**running, "step_in_epoch": 4}, 4, 1)
        epochs, steps = live._progress.tasks
        assert (steps.completed, steps.total) == (4, 10)
        assert (epochs.completed, epochs.total) == (0, 4)
        assert steps.fields["text"] == "128 images/s"
        assert epochs.fields["text"] == "18 s left"  # 36 steps at 2 a second
        assert live._progress.detail == "loss 1.5, train robust 40.0 %"
        bars.log({**ROW, "epoch": 1}, 10, 1)
        assert epochs.completed == 1
        assert steps.completed == 0
        live._progress.refresh()
        bars.finish("finished")
        assert not live._progress.tasks
    shown = console.file.getvalue()
    assert re.search(r"epoch +loss +.*images/s", shown)
    assert re.search(r"1/4 +1\.5000 ", shown)
    assert "images/s" in shown


def test_rows_of_epochs_stand_below_their_headings_and_fit_the_terminal():
    values = {"guidance_mse": 12.3456, "trades": 0.00071, "guide_ce": 1234.5, "loss": 0.5, "train_robust_accuracy": 1.0,
              "guide_accuracy": 0.05, "validation_natural_accuracy": 0.5, "images_per_second": 12345.6}  # fmt: skip
    header, row = epoch_row(values, "9/10", 120, len("10/10"))
    upper, lower = header.split("\n")
    assert row.split() == ["9/10", "0.5000", "12.3456", "0.0007", "1.234e+03", "100.0", "5.0", "50.0", "12346"]
    for name, cell in (("guidance_mse", "12.3456"), ("guide_ce", "1.234e+03"), ("images/s", "12346")):
        assert lower.index(name) + len(name) <= row.index(cell) + len(cell) <= len(row)
    assert upper.split() == ["train", "validation"]
    assert upper.index("validation") == lower.rindex("natural %") + len("natural %") - len("validation")
    narrow = epoch_row(values, "9/10", 80, len("10/10"))
    assert max(map(len, "\n".join(narrow).split("\n"))) <= 80
    assert "guidance_mse" not in narrow[0]
    assert narrow[1].split() == ["9/10", "0.5000", "100.0", "5.0", "50.0", "12346"]
    later = epoch_row({**values, "loss": 17.2, "guidance_mse": 0.00001}, "10/10", 120, len("10/10"))
    assert later[0] == header
