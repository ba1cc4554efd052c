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
from pathlib import Path

import numpy as np
import pytest
import torch
from art_lbgat.engine.tree import put_together, take_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from art_lbgat.engine import checkpoint
from art_lbgat.engine.checkpoint import checkpoints, locked, prune, read_checkpoint, read_newest, write_checkpoint

ROOT = Path(__file__).parents[2]


def equal(first, second):
    """The same types and the same bits."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second or (isinstance(first, float) and math.isnan(first) and math.isnan(second))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
trees = st.recursive(
    scalars | st.lists(st.floats(width=32), min_size=1).map(torch.tensor),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_trees_come_back_as_they_were(tree):
    tensors, described = take_apart(tree)
    back = put_together(json.loads(json.dumps(described)), tensors)
    if not any(isinstance(leaf, torch.Tensor) and leaf.isnan().any() for leaf in tensors.values()):
        assert equal(tree, back)


def parts(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    random_state = {
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
    }
    shared = torch.rand(4)
    return {
        "student": model.state_dict(),
        "optimizers": [optimizer.state_dict()],
        "random": random_state,
        "more": {"shared": [shared, shared[1:3]], "history": [{"loss": math.nan, "kept": True}], "empty": {},
                 "strided": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), "array": np.arange(3)},
    }  # fmt: skip


def plain(tree):
    return {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tree = parts()
    path = write_checkpoint(tmp_path, 12, tree, {"seed": 3})
    assert path.name == "step-000000012"
    found = read_newest(tmp_path)
    assert (found.path, found.step, found.facts) == (path, 12, {"seed": 3})
    assert equal(plain(found.parts), plain(tree))
    random.setstate(found.parts["random"]["python"])
    np.random.set_state(found.parts["random"]["numpy"])
    assert not list(tmp_path.glob(".tmp-*"))
    assert read_newest(tmp_path / "none") is None


def test_the_same_step_is_written_beside_and_old_ones_pruned(tmp_path):
    for step in (1, 2, 3, 3):
        write_checkpoint(tmp_path, step, parts(step), {})
    (tmp_path / ".tmp-left").mkdir()
    assert [path.name for path in checkpoints(tmp_path)][:2] == ["step-000000003-001", "step-000000003"]
    prune(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003-001", "step-000000003"]
    assert read_newest(tmp_path).step == 3
    write_checkpoint(tmp_path, 3, parts(3), {})
    prune(tmp_path, 1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000003-002"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_cannot_be_kept_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"^/a/1: builtins.object cannot be kept as data"):
        write_checkpoint(tmp_path, 1, {"part": {"a": [1, object()]}}, {})
    with pytest.raises(TypeError, match=r"expected text or whole numbers as keys, got \(1, 2\)"):
        take_apart({(1, 2): 3})
    assert list(tmp_path.iterdir()) == []


def flip(path, generator):
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def truncate(path, generator):
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])


def delete(path, generator):
    path.unlink()


def swap(path, generator):
    other = generator.choice([p for p in path.parent.iterdir() if p != path])
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def of_another(path, generator):
    shutil.copy(path.parent.parent / "step-000000001" / path.name, path)


class Malicious:
    def __reduce__(self):
        return os.system, ("touch malicious",)


def malicious(path, generator):
    path.write_bytes(pickle.dumps(Malicious()))


@pytest.mark.parametrize("damage", [flip, truncate, delete, swap, of_another, malicious])
def test_any_damage_is_named_and_the_one_before_is_used(damage, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    good = write_checkpoint(tmp_path, 1, parts(1), {"n": 1})
    bad = write_checkpoint(tmp_path, 2, parts(2), {"n": 2})
    kept = tmp_path / "kept"
    shutil.copytree(bad, kept)
    generator, tried = random.Random(0), 0
    for file in sorted(path.name for path in bad.iterdir()):
        for _ in range(10 if damage in (flip, truncate) else 1):
            if damage is of_another and (bad / file).read_bytes() == (good / file).read_bytes():
                continue
            damage(bad / file, generator)
            with pytest.raises(ValueError, match="step-000000002") as error:
                read_checkpoint(bad)
            caplog.clear()
            found = read_newest(tmp_path)
            assert (found.step, found.facts) == (1, {"n": 1})
            assert str(error.value) in caplog.text
            shutil.rmtree(bad)
            shutil.copytree(kept, bad)
            tried += 1
    assert tried >= (60 if damage in (flip, truncate) else 5)
    assert read_newest(tmp_path).step == 2
    assert not list(tmp_path.glob("**/malicious"))


def test_a_renamed_one_a_newer_format_and_nothing_but_damage_are_refused(tmp_path):
    path = write_checkpoint(tmp_path, 2, parts(), {})
    path.rename(tmp_path / "step-000000009")
    with pytest.raises(ValueError, match="holds step 2; it was renamed"):
        read_checkpoint(tmp_path / "step-000000009")
    with pytest.raises(ValueError, match=r"none of the 1 checkpoints in .* can be used: "):
        read_newest(tmp_path)
    shutil.rmtree(tmp_path / "step-000000009")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        newer = write_checkpoint(tmp_path, 3, parts(), {})
    with pytest.raises(ValueError, match="has format 2, this version reads format 1"):
        read_checkpoint(newer)


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from art_lbgat.engine.checkpoint import prune, read_newest, write_checkpoint
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    write_checkpoint(root, 0, {"a": {"x": torch.full((500, 500), 0.0)}}, {"n": 0})
    random.seed(0)
    torn = 0
    for number in range(40):
        pid = os.fork()
        if not pid:
            step = read_newest(root).step
            while True:
                step += 1
                write_checkpoint(root, step, {"a": {"x": torch.full((500, 500), float(step))}}, {"n": step})
                prune(root, 2)
        time.sleep(random.uniform(0.01, 0.08))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        torn += bool(list(root.glob(".tmp-*")))
        found = read_newest(root)
        assert found.facts == {"n": found.step}
        assert (found.parts["a"]["x"] == found.step).all()
    print(torn, found.step)
"""


def test_killed_while_writing_there_is_always_a_whole_one(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    torn, steps = map(int, done.stdout.split())
    assert torn >= 3  # kills that hit a write in the middle
    assert steps > 10


def test_a_full_disk_is_an_error_and_leaves_the_last_one(tmp_path):
    write_checkpoint(tmp_path, 1, parts(), {})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint_dir: the checkpoint of step 2 cannot be written|File too large"):
            write_checkpoint(tmp_path, 2, {"big": {"x": torch.rand(100, 100)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_newest(tmp_path).step == 1
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_directory_that_is_gone_or_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none"):
        write_checkpoint(tmp_path / "none", 1, parts(), {})
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PermissionError, match=r"checkpoint_dir: .*file.* cannot be written to"),
        locked(tmp_path / "file" / "x"),
    ):
        pass


def test_one_run_at_a_time_and_no_stale_lock(tmp_path):
    root = tmp_path / "new" / "run"
    with locked(root), pytest.raises(BlockingIOError, match="another run is using"), locked(root):
        pass
    code = f"""
import sys, os, signal
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from art_lbgat.engine.checkpoint import locked
with locked(Path({str(root)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == -signal.SIGKILL
    with locked(root):
        assert checkpoints(root) == []
