"""AutoAttack shared by several processes: the bits of one, whatever happens on the way, and nobody waits for the dead."""

import json

import pytest

from art_lbgat.evaluation.record import Record
from art_lbgat.robustbench.result import BenchmarkResult
from tests.evaluation import sharded
from tests.robustbench.test_benchmark import make_cifar

SAME = ("whole", "l2", "masked", "nan", "one batch", "table", "state:whole")
REFUSED = ("fail", "leave", "other data", "state:locked", "state:none/state")
KILLED_AT = 4  # of the batches of a process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sharded")
    for each in (root, root / "one"):
        make_cifar(each / "data")
    return root


@pytest.fixture(scope="module")
def alone(folder):
    """What one process finds: this one, and the state file of one that was killed."""
    killed = sharded.launch(folder, 1, [f"kill:by one:{KILLED_AT}"])
    assert killed.returncode < 0, killed.stderr
    return {case: sharded.run_case(case, folder / "one") for case in (*SAME, "benchmark")}


@pytest.fixture(scope="module")
def pair(folder):
    """Two processes run every case, and are both killed in the last."""
    with Record(folder / "locked", {}):
        done = sharded.launch(folder, 2, [*SAME, "benchmark", *REFUSED, f"kill:by two:{KILLED_AT}"])
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    return done


@pytest.fixture(scope="module")
def three(folder, alone):
    """Three processes; they resume where one was killed, and in the end one of them calls it alone."""
    kept = entries(folder / "by one")
    assert ("natural", 0) in kept
    assert 1 < len(kept) <= KILLED_AT
    done = sharded.launch(folder, 3, ["state:by one", *SAME, "fail", "alone"])
    assert done.returncode == 0, done.stderr
    return done


def entries(path):
    return [(file.parent.name, int(file.stem.removeprefix("step-"))) for file in path.glob("*/step-*.safetensors")]


def error(folder, world, case):
    return [result["error"] for result in sharded.results(folder, world, case)]


@pytest.mark.parametrize("case", SAME)
def test_two_and_three_processes_give_the_bits_of_one(case, folder, alone, pair, three):
    expected = alone[case]
    assert "error" not in expected
    for world in (2, 3):
        for found in sharded.results(folder, world, case):
            assert sharded.same(expected, found), (world, found)


def test_the_cases_are_not_trivial(alone):
    assert 0 < alone["whole"]["robust"].sum() < alone["whole"]["right"].sum() < sharded.N
    accuracies = alone["whole"]["accuracies"]
    assert accuracies["apgd-ce"] > accuracies["apgd-t"] > 0
    assert "non-finite logits" in dict(alone["nan"]["flags"])
    assert "zero gradients" in dict(alone["masked"]["flags"])
    assert not sharded.same(alone["whole"], alone["l2"])


def test_both_killed_one_goes_on(folder, alone, pair):
    kept = entries(folder / "by two")
    whole = entries(folder / "whole")
    assert set(kept) < set(whole)
    assert len(kept) == 1 + 2 * (KILLED_AT - 1)  # the natural pass, and the rounds before the last
    assert sharded.same(alone["whole"], sharded.run_case("state:by two", folder))
    assert set(entries(folder / "by two")) == set(whole)


def test_one_killed_three_go_on(folder, alone, three):
    for found in sharded.results(folder, 3, "state:by one"):
        assert sharded.same(alone["whole"], found)
    assert set(entries(folder / "by one")) == set(entries(folder / "one" / "whole"))


def test_the_record_is_that_of_one_process(folder, alone, pair):
    found = []
    for path in (folder / "one" / "whole", folder / "whole"):
        places = entries(path)
        with Record(path, json.loads((path / "run.json").read_text())) as record:
            found.append({place: record.get(*place)._replace(seconds=0)._asdict() for place in places})
    assert found[0].keys() == found[1].keys()
    assert all(sharded.same(entry, found[1][place]) for place, entry in found[0].items())


def test_the_benchmark_is_that_of_one_process_and_saved_once(folder, alone, pair):
    for found in sharded.results(folder, 2, "benchmark"):
        assert sharded.same(alone["benchmark"], found)
    assert BenchmarkResult.load(folder / "0.json") == BenchmarkResult.load(folder / "one" / "0.json")
    assert not (folder / "1.json").exists()


def test_an_error_in_one_process_is_one_in_all(folder, pair, three):
    assert error(folder, 2, "fail") == [
        ["ValueError", f"{sharded.BROKEN} (raised by process 1 of 2)"],
        ["ValueError", sharded.BROKEN],
    ]
    named = ["ValueError", f"{sharded.BROKEN} (raised by process 2 of 3)"]
    assert error(folder, 3, "fail") == [named, named, ["ValueError", sharded.BROKEN]]


def test_an_error_of_the_state_file_is_one_in_all(folder, pair):
    for case, kind, words in (
        ("state:locked", "BlockingIOError", "another run is using"),
        ("state:none/state", "FileNotFoundError", "there is no directory"),
    ):
        main, other = error(folder, 2, case)
        assert main[0] == other[0] == kind
        assert words in main[1]
        assert other[1] == f"{main[1]} (raised by process 0 of 2)"


def test_processes_with_other_images_are_refused(folder, pair):
    for kind, message in error(folder, 2, "other data"):
        assert kind == "ValueError"
        assert "process 0 and process 1 differ (data: '" in message


def test_a_process_that_leaves_or_does_not_come_keeps_nobody_waiting(folder, pair, three):
    first, other = error(folder, 2, "leave")
    assert other == ["KeyboardInterrupt", ""]
    for kind, message in (first, sharded.results(folder, 3, "alone")[0]["error"]):
        assert kind == "RuntimeError"
        assert message.startswith("another process of this evaluation ended or cannot be reached")
        assert "Every process has to call it" in message


def test_an_attack_that_is_in_the_record_leaves_its_settings_to_the_next(tmp_path):
    """FAB has one restart after targeted FAB, five otherwise, in the published package."""
    restarts = []

    def stop_at_second(runner):
        restarts.append((runner.fab.targeted, runner.fab.n_restarts))
        if len(restarts) == 2:
            raise KeyboardInterrupt

    options = {"n": 8, "attacks": ["fab-t", "fab"], "batch_size": 8, "state_path": tmp_path / "state"}
    with sharded.fewer_steps(stop_at_second):
        with pytest.raises(KeyboardInterrupt):
            sharded.attacked(**options)
        sharded.attacked(**options)
        sharded.attacked(**{**options, "attacks": ["fab"], "state_path": None})
    assert restarts == [(True, 1), (False, 1), (False, 1), (False, 5)]
