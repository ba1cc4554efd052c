"""Trackers: told of every epoch once, also over a stop; CSV and TensorBoard read back."""

import importlib.machinery
import sys
import types

import pandas
import pytest

from art_lbgat.engine.signals import Interrupted
from art_lbgat.engine.trackers import CSVTracker, ServiceTracker, Trackers
from tests.trainers.cases import Case, stop_after


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
    assert "settings/text_summary" in events.Tags()["tensors"]


def test_bad_trackers_are_refused(monkeypatch):
    for bad in ("csv", CSVTracker("x"), [object()], [CSVTracker]):
        with pytest.raises(TypeError, match=r"trackers: expected (a list|objects with start, log and finish)"):
            Case("lbgat", trackers=bad)
    with pytest.raises(ValueError, match=r"service: expected one of .*'tensorboard'"):
        ServiceTracker("tensorbord")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"service: wandb needs a package: pip install 'art-lbgat\[wandb\]'"):
        ServiceTracker("wandb")


class Service(types.ModuleType):
    """Stands for the package of a service: notes which of its functions are called, and with what."""

    def __init__(self, name, functions):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls = []
        for function in functions:
            setattr(self, function, lambda *given, f=function, **named: self.calls.append((f, *given, named)) or self)


SETTINGS = {"ema_decay": 0.9, "trainer": "LBGAT", "fit": 1, "seed": 2, "nb_epochs": 3}
NUMBERS = {"loss": 0.5, "epoch": 2.0}
SERVICES = {
    "wandb": [
        ("init", {"project": "digits", "config": SETTINGS, "entity": "team"}),
        ("log", NUMBERS, {"step": 10}),
        ("finish", {}),
    ],
    "mlflow": [
        ("set_experiment", "digits", {}),
        ("start_run", {"entity": "team"}),
        ("log_params", SETTINGS, {}),
        ("log_metrics", NUMBERS, 10, {}),
        ("end_run", {}),
    ],
}


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_told_in_their_own_words(name, monkeypatch, tmp_path):
    service = Service(name, ["set_tracking_uri", *(call for call, *_ in SERVICES[name])])
    monkeypatch.setitem(sys.modules, name, service)
    trackers = Trackers([ServiceTracker(name, "digits", tmp_path, entity="team")])
    trackers.finish("failed")  # before it was started: nothing to finish
    settings = {name: value for name, value in SETTINGS.items() if name != "ema_decay"}
    trackers.start({**settings, "options": {"ema_decay": 0.9, "trackers": (), "patience": None}})
    trackers.epoch({"loss": 0.5, "selection": "validation"}, 10, 2)
    trackers.finish("finished")
    where = [("set_tracking_uri", tmp_path.resolve().as_uri(), {})] if name == "mlflow" else []
    assert service.calls == where + SERVICES[name]
