"""A run that was stopped anywhere ends in the bits of one never stopped; what is not the same run is refused."""

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from safetensors.torch import load_file
from torch.optim import lr_scheduler as lr
from torch.utils.data import DataLoader, TensorDataset

from art_lbgat import StepSchedule
from art_lbgat.data import MixedData
from art_lbgat.engine.checkpoint import INTERRUPTED, checkpoints, locked, read_newest
from art_lbgat.engine.signals import Interrupted
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import TRAINERS, Case, X, Y, another, pgd, stop_after

ROOT = Path(__file__).parents[2]
STEPS = 8  # of the run of Case


def stopped_and_gone_on(make, steps, fit=lambda case: case.fit()):
    """A case stopped after each of these numbers of steps (counted anew), then run to its end."""
    for number in steps:
        with pytest.raises(Interrupted):
            fit(stop_after(make(), number))
    return fit(make())


@functools.cache
def never_stopped(name="lbgat"):
    """The digest of the run of a case without checkpoints."""
    return Case(name).fit().digest()


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopped_at_any_step(step, tmp_path):
    assert stopped_and_gone_on(lambda: Case("lbgat", tmp_path), [step]).digest() == never_stopped()


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_stopped_three_times(name, tmp_path):
    assert stopped_and_gone_on(lambda: Case(name, tmp_path), [2, 1, 3]).digest() == never_stopped(name)


VARIANTS = {
    "last weights, clipped": ("lbgat", {"keep": "last", "max_grad_norm": 0.1, "ema_decay": None}, {}),
    "rare validation": ("madry", {"validate_every": 2}, {"nb_epochs": 3}),
    "patience": ("madry", {"patience": 1}, {"nb_epochs": 12}),
    "no validation": ("trades", {}, {"validation_data": None}),
    "no scheduler": ("mart", {"eps_warmup_epochs": 2}, {"scheduler": None}),
    "a plateau": ("madry", {}, {"scheduler": lambda o: lr.ReduceLROnPlateau(o), "nb_epochs": 3}),
    "one cycle": ("lbgat", {}, {"scheduler": lambda o: lr.OneCycleLR(o, 0.1, total_steps=STEPS)}),
    "one cycle by epochs": ("lbgat", {}, {"scheduler": lambda o: lr.OneCycleLR(o, 0.1, total_steps=2)}),
    "curves over the run": (
        "lbgat",
        {"eps_warmup": 0.6, "max_iter_schedule": ((0.0, 1), (0.5, 3)), "ema_start": 0.3, "ema_warmup": True},
        {"scheduler": "one-cycle"},
    ),
    "a warm-up, then steps": (
        "madry",
        {},
        {
            "scheduler": lambda o: lr.SequentialLR(
                o, [lr.LinearLR(o, 0.5, total_iters=1), lr.MultiStepLR(o, [1, 2])], milestones=[2]
            ),
            "nb_epochs": 4,
        },
    ),
    "bf16": ("lbgat", {"precision": "bf16"}, {}),
    "a helper": ("bgat", {"helper_weight": 0.5, "regularizer": "alp"}, {}),
    "its own average": ("adr", {"rebat_weight": 1.0}, {"nb_epochs": 3}),
    "a robust teacher": ("bgat", {"guidance": "rslad"}, {}),
    "weights of classes": ("lbgat", {"guidance": "ikl", "regularizer": "gkl"}, {"nb_epochs": 3}),
    "seeded": ("lbgat", {"seed": 7}, {"validation_data": None, "validation_split": 0.2}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_every_option(variant, tmp_path):
    name, options, changes = VARIANTS[variant]

    def fit(case):
        return case.fit(**changes)

    expected = fit(Case(name, **options)).digest()
    assert stopped_and_gone_on(lambda: Case(name, tmp_path, **options), [2, 3], fit).digest() == expected


def shuffled(seed=3):
    return DataLoader(
        TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
        batch_size=8,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )


class Noisy(torch.utils.data.Dataset):
    """Draws from the global generators, as transforms do."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return torch.from_numpy(X[index]) * torch.rand(1) * np.random.uniform(0.5, 1), Y[index]


SOURCES = {
    "loader with a generator of its own": shuffled,
    "data set with random transforms": Noisy,
    "ART generator": lambda: PyTorchDataGenerator(shuffled(), size=26, batch_size=8),
    "mixed data": lambda: MixedData((X, Y), make_data(10, seed=5), 0.25),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("steps", [[2], [4], [5, 2]])
def test_from_any_source(source, steps, tmp_path):
    def fit(case):
        torch.manual_seed(5)
        data = SOURCES[source]()
        if isinstance(data, PyTorchDataGenerator):
            case.trainer.fit_generator(data, nb_epochs=3)
        else:
            case.trainer.fit(data, batch_size=8, nb_epochs=3)
        return case

    expected = fit(Case("madry")).digest()
    assert stopped_and_gone_on(lambda: Case("madry", tmp_path), steps, fit).digest() == expected


def test_a_loader_that_gives_other_batches_is_refused(tmp_path):
    def fit(case, seed):
        torch.manual_seed(5)
        data = PyTorchDataGenerator(shuffled(seed), size=26, batch_size=8)
        case.trainer.fit_generator(data, nb_epochs=3)

    for stop in (2, 4):
        with pytest.raises(Interrupted):
            fit(stop_after(Case("madry", tmp_path / str(stop)), stop), 3)
        with pytest.raises(ValueError, match="x: the loader gives other batches than in the run that was stopped"):
            fit(Case("madry", tmp_path / str(stop)), 4)


def test_in_the_same_process_with_the_same_objects(tmp_path):
    expected = never_stopped()
    case = stop_after(Case("lbgat", tmp_path), 5)
    with pytest.raises(Interrupted) as stopped:
        case.fit()
    assert stopped.value.code == 130
    assert "stopped in epoch 2 of 2 after 1 of its steps" in str(stopped.value)
    noted = json.loads((tmp_path / "fit-001" / INTERRUPTED).read_text())
    assert noted == {"signal": "SIGTERM", "epoch": 2, "step": 1, "steps": 5}
    assert case.fit().digest() == expected
    assert not (tmp_path / "fit-001" / INTERRUPTED).exists()
    assert len(case.trainer.history) == 2


def test_several_fits_of_one_script_each_go_on(tmp_path):
    def script(directory, stop=0):
        case = Case("lbgat", directory)
        if stop:
            stop_after(case, stop)
        return case.fit(nb_epochs=1).fit()

    expected = script(None).digest()
    for stop in (2, 5):  # the second in the second fit, when the first is done: it is not trained again
        with pytest.raises(Interrupted):
            script(tmp_path, stop)
    assert script(tmp_path).digest() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"fit-001", "fit-002"}


def test_more_epochs_may_be_asked_for_and_fewer_are_refused(tmp_path):
    expected = Case("lbgat").fit(nb_epochs=4).digest()
    Case("lbgat", tmp_path).fit()
    assert Case("lbgat", tmp_path, verbose=False, checkpoint_every=1).fit(nb_epochs=4).digest() == expected
    again = Case("lbgat", tmp_path).fit(nb_epochs=4)
    assert again.digest() == expected  # it had ended: nothing is trained
    with pytest.raises(
        ValueError, match=r"nb_epochs: .*step-\d+\.safetensors is in epoch 4 already; expected at least that, got 2"
    ):
        Case("lbgat", tmp_path).fit(nb_epochs=2)


@pytest.mark.parametrize("options", [{}, {"guidance": "ikl"}])
def test_a_signal_during_validation(tmp_path, options):
    def fit(case):
        return case.fit(validation_data=make_data(16, seed=1))  # two batches

    case, calls = Case("lbgat", tmp_path, **options), []

    def validated(module, args):
        if not module.training and not torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    case.classifier.model.register_forward_pre_hook(validated)
    with pytest.raises(Interrupted, match="in epoch 1 of 2 after 4 of its steps"):
        fit(case)
    assert fit(Case("lbgat", tmp_path, **options)).digest() == fit(Case("lbgat", **options)).digest()


def test_a_signal_while_the_last_checkpoint_is_written(tmp_path):
    case, steps = Case("lbgat", tmp_path, checkpoint_every="3 steps"), []

    def asked(*_):
        if len(steps) == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    case.classifier.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    case.classifier.model.register_state_dict_pre_hook(asked)
    with pytest.raises(Interrupted, match="after 0 of its steps"):
        case.fit(validation_data=None)
    again = Case("lbgat", tmp_path).fit(validation_data=None)
    assert again.digest() == Case("lbgat").fit(validation_data=None).digest()


def test_must_never_and_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"resume: 'must', but there is no checkpoint in"):
        Case("lbgat", tmp_path / "run", resume="must").fit()
    expected = never_stopped()
    assert Case("lbgat", tmp_path / "run", resume="never", keep_checkpoints=9).fit().digest() == expected
    there = checkpoints(tmp_path / "run" / "fit-001")
    assert len(there) >= 2
    with pytest.raises(ValueError, match=r"resume: 'never', but .* holds checkpoints of a run"):
        Case("lbgat", tmp_path / "run", resume="never").fit()
    with pytest.raises(ValueError, match=r"is older than step-\d+\.safetensors in .*, which the run would overwrite"):
        Case("lbgat", tmp_path / "run", resume=there[1]).fit()
    with pytest.raises(FileNotFoundError, match=r"resume: expected 'auto', .* got .*nowhere"):
        Case("lbgat", tmp_path / "run", resume=tmp_path / "nowhere").fit()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="resume: there is no checkpoint in"):
        Case("lbgat", tmp_path / "other", resume=tmp_path / "empty").fit()
    for path in (there[-1], str(tmp_path / "run" / "fit-001")):
        other = tmp_path / f"other-{Path(path).name}"
        assert Case("lbgat", other, resume=path).fit().digest() == expected
    assert Case("lbgat", tmp_path / "run", resume="must").fit().digest() == expected


CHANGES = {
    "options.ema_decay: 0.8 -> 0.7": ({"ema_decay": 0.7}, {}),
    "options.seed: None -> 1": ({"seed": 1}, {}),
    "data.batch_size: 8 -> 4": ({}, {"batch_size": 4}),
    "data.augmentation: {": ({}, {"augmentation": None}),
    "validation_data:": ({}, {"validation_data": make_data(8, seed=2)}),
    "scheduler[0].milestones[0]: 1 -> 2": ({}, {"scheduler": StepSchedule((2,))}),
    "method.guide_ce_weight: 1.0 -> 2.0": ({"guide_ce_weight": 2.0}, {}),
    "method.regularizer": ({"regularizer": "alp"}, {}),
}


@pytest.mark.parametrize("named", CHANGES)
def test_changed_settings_are_refused_with_old_and_new(named, tmp_path):
    options, fit = CHANGES[named]
    Case("lbgat", tmp_path).fit()
    with pytest.raises(ValueError, match=r"resume: the settings are not those of") as error:
        Case("lbgat", tmp_path, **options).fit(**fit)
    assert named in str(error.value)
    assert "What may change: nb_epochs, verbose, trackers, on_step, checkpoint_dir" in str(error.value)


def test_changed_models_attacks_optimizers_and_data_are_refused(tmp_path):
    def run(classifier=None, guide=None, attack=None, x=X, lr=0.02):
        classifier = classifier or make_classifier(lr=lr)
        trainer = TRAINERS["bgat"](
            classifier,
            guide=guide or another(classifier),
            attack=attack and attack(classifier),
            checkpoint_dir=tmp_path,
        )
        trainer.fit(x, Y, nb_epochs=1, batch_size=8)

    run()
    cases = {
        "classifier.layout": {"classifier": make_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)))},
        "guides[0].weights": {"guide": make_classifier(seed=9)},
        "attack.eps: 0.03 -> 0.02": {"attack": lambda c: pgd(c, eps=0.02)},
        "data.sha256": {"x": X * 0.5},
        "optimizers[0].groups[0].lr: 0.02 -> 0.5": {"lr": 0.5},
    }  # fmt: skip
    for named, changed in cases.items():
        with pytest.raises(ValueError, match="resume: the settings") as error:
            run(**changed)
        assert named in str(error.value)
    run()


def test_other_surroundings_are_a_warning(tmp_path, caplog):
    Case("lbgat", tmp_path).fit()
    torch.set_num_threads(2)
    try:
        case = Case("lbgat", tmp_path)
        torch.set_num_threads(2)
        with caplog.at_level(logging.WARNING):
            case.fit()
    finally:
        torch.set_num_threads(1)
    assert "the last bits may differ from a run never stopped: threads: 1 -> 2" in caplog.text


def test_the_second_of_two_runs_in_a_directory_is_refused(tmp_path):
    with locked(tmp_path / "fit-001"), pytest.raises(BlockingIOError, match="checkpoint_dir: another run is using"):
        Case("lbgat", tmp_path).fit()
    Case("lbgat", tmp_path).fit()


def test_what_a_checkpoint_holds(tmp_path):
    case = Case("bgat", tmp_path, keep_checkpoints=3).fit()
    root = tmp_path / "fit-001"
    newest = read_newest(root)
    assert newest.step == STEPS
    assert states_equal(newest.state["models"]["classifier"], case.trainer.kept_weights["raw"]["classifier"])
    assert [path.name for path in checkpoints(root)] == [f"step-00000000{step}.safetensors" for step in (8, 7, 6)]
    assert {"settings", "surroundings", "written"} == set(newest.facts)
    guide = {f"guide-0.{name}": value for name, value in copied_state(case.guide.model).items()}
    assert states_equal(load_file(root / "guides.safetensors"), guide)  # frozen, so once


def test_a_frozen_guide_in_channels_last_is_kept_too(tmp_path):
    case = Case("bgat", tmp_path, channels_last=True).fit()
    guide = {f"guide-0.{name}": value for name, value in copied_state(case.guide.model).items()}
    assert states_equal(load_file(tmp_path / "fit-001" / "guides.safetensors"), guide)


def test_a_scheduler_that_cannot_be_kept_is_refused_before_the_first_step(tmp_path):
    class Scheduler:
        def step(self):
            pass

    case = Case("madry", tmp_path)
    before = copied_state(case.classifier.model)
    with pytest.raises(TypeError, match="scheduler: Scheduler has no state_dict and load_state_dict"):
        case.fit(scheduler=Scheduler())
    assert states_equal(before, copied_state(case.classifier.model))


def test_handlers_are_as_found_and_untouched_without_checkpoints(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before, seen = [signal.getsignal(n) for n in numbers], []

    def look(*_):
        seen.append([signal.getsignal(n) for n in numbers])

    for directory in (None, tmp_path):
        case = Case("madry", directory)
        case.classifier.optimizer.register_step_post_hook(look)
        case.fit()
        assert [signal.getsignal(n) for n in numbers] == before
    assert seen[0] == before
    assert seen[-1] != before


SCRIPT = """
    import os, signal, sys, time
    sys.path.insert(0, {root!r})
    from tests.trainers.cases import Case
    case = Case("lbgat", sys.argv[1])
    number, again = int(sys.argv[2]), len(sys.argv) > 3
    done = []
    def hook(*_):
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), number)
            if again:
                time.sleep(0.6)
                os.kill(os.getpid(), number)
                time.sleep(0.1)
    case.classifier.optimizer.register_step_post_hook(hook)
    case.fit()
    print(case.digest())
"""


def script(*arguments):
    code = textwrap.dedent(SCRIPT).format(root=str(ROOT))
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_exit_codes_and_the_line_that_says_how_to_go_on(tmp_path):
    expected = never_stopped()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        done = script(tmp_path / "run", int(number))
        assert done.returncode == 130, done.stderr
        assert f"{number.name}: stopped in epoch" in done.stderr
        assert "The same call, or command, goes on from there." in done.stderr
        assert "Traceback" not in done.stderr
    assert Case("lbgat", tmp_path / "run").fit().digest() == expected


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    done = script(tmp_path / "run", int(signal.SIGINT), "again")
    assert done.returncode in (-signal.SIGINT, 130, 1)
    assert "KeyboardInterrupt" in done.stderr
    assert "stopped in epoch" not in done.stderr
    assert read_newest(tmp_path / "run" / "fit-001").step <= 3


def test_a_damaged_newest_one_does_not_outlive_those_that_are_written_after_it(tmp_path, caplog):
    expected = never_stopped()
    Case("lbgat", tmp_path, checkpoint_every="2 steps", keep_checkpoints=4).fit()
    root = tmp_path / "fit-001"
    (root / "step-000000008.safetensors").write_bytes(b"x")
    with pytest.raises(Interrupted):
        stop_after(Case("lbgat", tmp_path, keep_checkpoints=1), 1).fit()
    assert [path.name for path in root.glob("damaged-*")] == ["damaged-step-000000008.safetensors"]
    assert "checkpoint set aside as" in caplog.text
    assert read_newest(root) is not None
    assert Case("lbgat", tmp_path, keep_checkpoints=1).fit().digest() == expected


def test_a_path_is_where_a_run_begins_and_the_same_call_goes_on(tmp_path):
    expected = never_stopped()
    with pytest.raises(Interrupted):
        stop_after(Case("lbgat", tmp_path / "a"), 3).fit()

    def make():
        return Case("lbgat", tmp_path / "b", resume=tmp_path / "a" / "fit-001")

    with pytest.raises(Interrupted):
        stop_after(make(), 2).fit()
    assert read_newest(tmp_path / "b" / "fit-001").step == 5
    assert make().fit().digest() == expected
    assert read_newest(tmp_path / "a" / "fit-001").step == 3


@pytest.mark.parametrize(
    ("options", "fit"), [({}, {"scheduler": "cosine"}), ({"eps_warmup": 0.5}, {}), ({"ema_start": 0.5}, {})]
)
def test_a_schedule_over_the_run_is_that_of_its_epochs(options, fit, tmp_path):
    with pytest.raises(Interrupted):
        stop_after(Case("madry", tmp_path, **options), 3).fit(**fit)
    with pytest.raises(ValueError, match=r"resume: the settings .* epochs of the schedule: 2 -> 4"):
        Case("madry", tmp_path, **options).fit(nb_epochs=4, **fit)


@pytest.mark.parametrize("resume", ["must", "path"])
def test_a_second_fit_is_trained_whatever_the_first_went_on_from(resume, tmp_path):
    expected = Case("lbgat").fit().fit()
    with pytest.raises(Interrupted):
        stop_after(Case("lbgat", tmp_path / "a"), 3).fit()
    if resume == "path":
        case = Case("lbgat", tmp_path / "b", resume=tmp_path / "a" / "fit-001")
    else:
        case = Case("lbgat", tmp_path / "a", resume="must")
    case.fit().fit()
    assert case.trainer.history.fit.tolist() == [1, 1, 2, 2]
    assert case.trainer.history.loss.tolist() == expected.trainer.history.loss.tolist()


def test_the_same_objects_go_on_where_a_scheduler_moves_the_momentum_too(tmp_path):
    case = Case("madry", tmp_path)
    scheduler = lr.OneCycleLR(case.classifier.optimizer, 0.1, total_steps=2 * STEPS)
    with pytest.raises(Interrupted):
        stop_after(case, 6).fit(nb_epochs=4, scheduler=scheduler)
    assert len(case.fit(nb_epochs=4, scheduler=scheduler).trainer.history) == 4
