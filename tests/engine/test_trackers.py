"""Trackers: told of every epoch once, also over a stop; CSV and TensorBoard read back."""

import sys

import pandas
import pytest

from art_lbgat.engine.signals import Interrupted
from art_lbgat.engine.trackers import CSVTracker, ServiceTracker, Trackers
from qa.faults.training import Case
from tests.trainers.test_resume import stop_after


class Notes:
    def __init__(self, every_seconds=None):
        self.calls = []
        if every_seconds is not None:
            self.every_seconds = every_seconds

    def start(self, run):
        self.run = dict(run)
        self.calls.append("start")

    def log(self, values, step, epoch):
        self.calls.append((dict(values), step, epoch))

    def finish(self, status):
        self.calls.append(status)


def test_a_tracker_is_told_of_each_epoch():
    notes = Notes()
    case = Case("lbgat", trackers=[notes]).fit()
    start, *rows, end = notes.calls
    assert (start, end) == ("start", "finished")
    assert [(step, epoch) for _, step, epoch in rows] == [(4, 1), (8, 2)]
    assert [row["loss"] for row, *_ in rows] == case.trainer.history.loss.tolist()
    told = {name: notes.run[name] for name in ("trainer", "fit", "nb_epochs", "steps_per_epoch", "epoch", "history")}
    assert told == {"trainer": "LBGAT", "fit": 1, "nb_epochs": 2, "steps_per_epoch": 4, "epoch": 1, "history": []}
    assert notes.run["options"]["ema_decay"] == 0.8
    assert notes.run["seed"] == case.trainer.seed


def test_running_means_come_within_epochs_where_asked_for():
    notes = Notes(every_seconds=0.0)
    Case("lbgat", trackers=[notes]).fit()
    within = [(row["step_in_epoch"], step, epoch) for row, step, epoch in notes.calls[1:-1] if "step_in_epoch" in row]
    assert within == [(i + 1, 4 * (epoch - 1) + i + 1, epoch) for epoch in (1, 2) for i in range(4)]
    assert all("guidance_mse" in row for row, *_ in notes.calls[1:-1])


def test_csv_has_each_epoch_once_also_over_a_stop(tmp_path):
    path = tmp_path / "new" / "history.csv"

    def make():
        return Case("lbgat", tmp_path / "run", trackers=[CSVTracker(path)])

    with pytest.raises(Interrupted):
        stop_after(make(), 6).fit(nb_epochs=3)
    assert pandas.read_csv(path).epoch.tolist() == [1]
    case = make().fit(nb_epochs=3)
    found = pandas.read_csv(path)
    assert found.epoch.tolist() == [1, 2, 3]
    assert found.loss.tolist() == pytest.approx(case.trainer.history.loss.tolist(), rel=1e-12)


def test_the_status_of_runs_that_do_not_end(tmp_path):
    notes = Notes()
    with pytest.raises(Interrupted):
        stop_after(Case("lbgat", tmp_path, trackers=[notes]), 2).fit()
    assert notes.calls[-1] == "interrupted"

    class Broken(Notes):
        def log(self, values, step, epoch):
            raise RuntimeError("no connection")

    broken = Broken()
    with pytest.raises(RuntimeError, match="no connection"):
        Case("lbgat", trackers=[broken]).fit()
    assert broken.calls[-1] == "failed"


def test_a_tracker_that_cannot_finish_is_a_warning(caplog):
    class Stuck(Notes):
        def finish(self, status):
            raise RuntimeError("stuck")

    case = Case("lbgat", trackers=[Stuck(), Notes()]).fit()
    assert "trackers: Stuck could not finish (stuck)" in caplog.text
    assert case.trainer.options.trackers[1].calls[-1] == "finished"


def test_tensorboard_is_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = ServiceTracker("tensorboard", "digits", tmp_path, every_seconds=0.0)
    case = Case("lbgat", trackers=[tracker]).fit()
    events = EventAccumulator(str(tmp_path / "digits"))
    events.Reload()
    loss = events.Scalars("loss")
    assert [each.step for each in loss] == [4, 8]
    assert [each.value for each in loss] == pytest.approx(case.trainer.history.loss.tolist(), rel=1e-6)
    assert len(events.Scalars("running/guidance_mse")) == 8
    assert any((tmp_path / "digits").rglob("hparams.yml"))


def test_bad_trackers_are_refused(monkeypatch):
    for bad, message in (("csv", "got 'csv'"), ([object()], "expected objects with start, log and finish"),
                         ([CSVTracker], "expected objects with start"), (CSVTracker("x"), "expected a list")):  # fmt: skip
        with pytest.raises(TypeError, match=f"trackers: .*{message}"):
            Case("lbgat", trackers=bad)
    with pytest.raises(ValueError, match=r"service: expected one of .*'tensorboard'"):
        ServiceTracker("tensorbord")
    for package in ("wandb",):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=r"service: wandb needs a package: pip install 'art-lbgat\[wandb\]'"):
            ServiceTracker("wandb")


def test_services_are_started_as_accelerate_starts_them(monkeypatch):
    from accelerate import tracking

    seen = []

    class Service:
        requires_logging_directory = False

        def __init__(self, project, **options):
            seen.append((project, options))

        def store_init_configuration(self, values):
            seen.append(values)

        def log(self, values, step):
            seen.append((values, step))

        def finish(self):
            seen.append("finished")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Service)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    trackers = Trackers([ServiceTracker("wandb", "project", entity="team")])
    trackers.finish("failed")  # before it was started: nothing to finish
    trackers.start(
        {"options": {"ema_decay": 0.9, "trackers": ()}, "trainer": "LBGAT", "fit": 1, "seed": 2, "nb_epochs": 3}
    )
    trackers.epoch({"loss": 0.5, "selection": "validation"}, 10, 2)
    trackers.finish("finished")
    settings = {"ema_decay": 0.9, "trainer": "LBGAT", "fit": 1, "seed": 2, "nb_epochs": 3}
    assert seen == [("project", {"entity": "team"}), settings, ({"loss": 0.5, "epoch": 2}, 10), "finished"]
