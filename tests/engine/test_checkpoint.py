"""Checkpoints: what goes in comes out; kills, damage, full disks and foreign files lose and let in nothing."""

import json
import math
import os
import pickle  # noqa: TID251 (to make a malicious file)
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from art_lbgat.engine import checkpoint
from art_lbgat.engine.checkpoint import (
    Checkpoints,
    checkpoints,
    locked,
    pack,
    parse_every,
    prune,
    read_checkpoint,
    read_newest,
    unpack,
    write_checkpoint,
)

ROOT = Path(__file__).parents[2]


def equal(first, second):
    """The same types and the same bits."""
    if type(first) is not type(second):
        return False
    if isinstance(first, (torch.Tensor, np.ndarray)):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(map(equal, first.values(), second.values()))
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second or (first != first and second != second)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(
    scalars | st.lists(st.floats(width=32), min_size=1).map(torch.tensor),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_trees_come_back_as_they_were(tree):
    tensors, plain = pack(tree)
    back = unpack(json.loads(json.dumps(plain)), tensors)
    if not any(isinstance(leaf, torch.Tensor) and leaf.isnan().any() for leaf in tensors.values()):
        assert equal(tree, back)


def state(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    shared = torch.rand(4)
    return {
        "model": dict(model.state_dict()),
        "optimizers": [optimizer.state_dict()],
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
        "shared": [shared, shared[1:3]],
        "strided": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "arrays": [np.arange(3), np.array(2**63, dtype=np.uint64), np.array([7], dtype=np.uint16), np.zeros((0, 2))],
        "others": {"history": [{"loss": math.nan, "kept": True}], "empty": {}, "milestones": Counter({3: 1})},
    }


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tree = state()
    path = write_checkpoint(tmp_path, 12, tree, {"seed": 3})
    assert [each.name for each in tmp_path.iterdir()] == [path.name] == ["step-000000012.safetensors"]
    found = read_newest(tmp_path)
    assert (found.path, found.step, found.facts) == (path, 12, {"seed": 3})
    assert equal(found.state, tree)
    random.setstate(found.state["python"])
    np.random.set_state(found.state["numpy"])
    assert read_newest(tmp_path / "none") is None


def test_the_same_step_is_written_over_and_old_ones_pruned(tmp_path):
    for step in (1, 2, 3, 3):
        write_checkpoint(tmp_path, step, state(step), {"written": step})
    (tmp_path / ".step-left").touch()
    (tmp_path / "step-9").mkdir()  # of an earlier version
    assert [path.name[:14] for path in checkpoints(tmp_path)] == ["step-9", *(f"step-00000000{i}" for i in (3, 2, 1))]
    prune(tmp_path, 2)
    assert sorted(path.name[:14] for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003", "step-9"]


def test_what_cannot_be_kept_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"^/a/1: builtins.object cannot be kept as data"):
        write_checkpoint(tmp_path, 1, {"a": [1, object()]}, {})
    with pytest.raises(TypeError, match=r"expected text or whole numbers as keys, got \(1, 2\)"):
        pack({(1, 2): 3})
    assert list(tmp_path.iterdir()) == []


class Malicious:
    def __reduce__(self):
        return os.system, ("touch malicious",)


def flipped(data, generator):
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


DAMAGE = {
    "a bit": flipped,
    "truncated": lambda data, generator: data[: generator.randrange(len(data))],
    "another one": lambda data, generator: Path("step-000000001.safetensors").read_bytes(),
    "malicious": lambda data, generator: pickle.dumps(Malicious()),
    "empty": lambda data, generator: b"",
    "without our header": lambda data, generator: save({"a": torch.zeros(2)}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_is_named_and_the_one_before_is_used(damage, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path, 1, state(1), {"n": 1})
    bad = write_checkpoint(tmp_path, 2, state(2), {"n": 2})
    whole, generator = bad.read_bytes(), random.Random(0)
    for _ in range(60 if damage in ("a bit", "truncated") else 1):
        bad.write_bytes(DAMAGE[damage](whole, generator))
        with pytest.raises(ValueError, match="step-000000002") as error:
            read_checkpoint(bad)
        caplog.clear()
        found = read_newest(tmp_path)
        assert (found.step, found.facts) == (1, {"n": 1})
        assert str(error.value) in caplog.text
        bad.write_bytes(whole)
    assert read_newest(tmp_path).step == 2
    assert not list(tmp_path.glob("**/malicious"))


def test_a_renamed_one_another_format_an_earlier_version_and_nothing_but_damage_are_refused(tmp_path, monkeypatch):
    renamed = write_checkpoint(tmp_path, 2, state(), {}).rename(tmp_path / "step-000000009.safetensors")
    with pytest.raises(ValueError, match="holds step 2; it was renamed"):
        read_checkpoint(renamed)
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints in .* can be used: .*it was renamed"):
        read_newest(tmp_path)
    (tmp_path / "old" / "step-000000003").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"step-000000003 is a directory, as earlier versions wrote checkpoints"):
        read_newest(tmp_path / "old")
    with pytest.raises(ValueError, match=r"step-1.safetensors cannot be read \(No such file"):
        read_checkpoint(tmp_path / "step-1.safetensors")
    monkeypatch.setattr(checkpoint, "FORMAT", "3")
    newer = write_checkpoint(tmp_path, 3, state(), {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format '3', this version reads format '2'"):
        read_checkpoint(newer)


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from art_lbgat.engine.checkpoint import prune, read_newest, write_checkpoint
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    write_checkpoint(root, 0, {"x": torch.full((500, 500), 0.0)}, {"n": 0})
    random.seed(0)
    torn = 0
    for number in range(40):
        before = set(root.iterdir())
        pid = os.fork()
        if not pid:
            step = read_newest(root).step
            while True:
                step += 1
                write_checkpoint(root, step, {"x": torch.full((500, 500), float(step))}, {"n": step})
                prune(root, 2)
        while set(root.iterdir()) == before:  # however busy the machine is, it has begun to write
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        torn += bool(list(root.glob(".step-*")))
        found = read_newest(root)
        assert found.facts == {"n": found.step}
        assert (found.state["x"] == found.step).all()
    print(torn, found.step)
"""


def test_killed_while_writing_there_is_always_a_whole_one(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(KILLED)
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    torn, steps = map(int, subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    assert torn >= 3  # kills that hit a write in the middle
    assert steps > 10


def test_a_full_disk_is_an_error_and_leaves_the_last_one(tmp_path):
    write_checkpoint(tmp_path, 1, state(), {})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_checkpoint(tmp_path, 2, {"x": torch.rand(100, 100)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_newest(tmp_path).step == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_is_gone_or_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none"):
        write_checkpoint(tmp_path / "none", 1, state(), {})
    (tmp_path / "file").write_text("")
    message = r"checkpoint_dir: .*file.* cannot be written to"
    with pytest.raises(PermissionError, match=message), locked(tmp_path / "file" / "x"):
        pass


def test_one_run_at_a_time_and_no_stale_lock(tmp_path):
    root = tmp_path / "new" / "run"
    with locked(root), pytest.raises(BlockingIOError, match="another run is using"), locked(root):
        pass
    code = f"""
import os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from art_lbgat.engine.checkpoint import locked
with locked(pathlib.Path({str(root)!r})):
    os.kill(os.getpid(), {signal.SIGKILL.value})
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == -signal.SIGKILL
    with locked(root):
        assert checkpoints(root) == []


def test_when_they_are_written_as_text_or_number():
    assert parse_every(3) == {"epoch": 3}
    assert parse_every("2 epochs") == parse_every(" 2epoch ") == {"epoch": 2}
    assert parse_every("500 steps") == {"step": 500}
    assert parse_every("1 epoch, 0.5 minutes") == {"epoch": 1, "minute": 0.5}


TEXTS = ["", "steps", "0 steps", "1.5 epochs", "2 hours", "-1 step", "auto", "1 epoch,"]


@pytest.mark.parametrize("bad", [*TEXTS, 0, -1, 1.5, None, True, []])
def test_other_texts_and_numbers_are_refused(bad):
    text = "number of epochs, or text such as" if isinstance(bad, str) else "whole number >= 1"
    with pytest.raises((ValueError, TypeError), match=f"checkpoint_every: expected a {text}"):
        parse_every(bad)


@pytest.mark.parametrize(
    ("every", "events", "expected"),
    [
        ("1 epoch", "ssesse", "  x  x"),
        ("2 epochs", "sesese", "   x  "),
        ("2 steps", "sesses", "  x  x"),
        ("1 epoch, 2 steps", "sesse", " x xx"),
        ("2 minutes", "smsmse", "    x "),
        ("2 epochs, 1 minute", "semse", "   x "),
    ],
)
def test_when_they_are_due(every, events, expected, tmp_path, monkeypatch):
    """Events: a step, the end of an epoch, a minute that passes; ``x`` where one is due, and written."""
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint.time, "time", lambda: -clock[0])  # the clock on the wall is set back
    there, found = Checkpoints(tmp_path, 1, {}, {}), ""
    for step, event in enumerate(events):
        clock[0] += 60 * (event == "m")
        due = event != "m" and there.due(parse_every(every), epoch_ended=event == "e")
        if due:
            there.write(step, {}, keep=1)
        found += "x" if due else " "
    assert found == expected
    assert len(checkpoints(tmp_path)) == 1


def test_an_error_of_the_disk_says_whether_others_are_left(tmp_path):
    there = Checkpoints(tmp_path, 1, {}, {})
    there.write(1, {}, keep=2)
    (tmp_path / "step-000000002.safetensors").mkdir()
    with pytest.raises(OSError, match=r"could not be written to .*; the ones before it are intact"):
        there.write(2, {}, keep=2)
    shutil.rmtree(tmp_path)
    with pytest.raises(OSError, match=r"could not be written to .*; there are none there any more"):
        there.write(3, {}, keep=2)
