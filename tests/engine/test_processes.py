"""Several processes: shares of a batch, what is refused before they join, and two that train as one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from art_lbgat import RunOptions
from art_lbgat.classifier import TensorView
from art_lbgat.processes import Processes, Share, is_main_process, join_processes, named_loss_of_a_process
from art_lbgat.trainers.inputs import check_run
from tests.conftest import make_classifier
from tests.engine.two_processes import train

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@given(total=st.integers(1, 200), world=st.integers(2, 9))
def test_shares_are_every_row_once_and_never_a_single_one(total, world):
    all_processes = [Processes(CPU, rank, world) for rank in range(world)]
    shares = [each.share(total) for each in all_processes]
    rows = [row for share in shares if share.counted for row in range(share.rows.start, share.rows.stop)]
    assert rows == list(range(total))
    sizes = [share.rows.stop - share.rows.start for share in shares]
    assert min(sizes) >= min(2, total)  # BatchNorm needs two, also where they are not counted
    counted = [size for size, share in zip(sizes, shares, strict=True) if share.counted]
    assert max(counted) - min(counted) <= 1
    one = torch.ones((), dtype=torch.float64)
    weights = [float(each.weighted(one, share)) for each, share in zip(all_processes, shares, strict=True)]
    assert sum(weights) == pytest.approx(world)  # DDP takes their mean
    assert all(share.total == total for share in shares)


def test_one_process_changes_nothing():
    alone, x = Processes(), torch.rand(5, requires_grad=True)
    share = alone.share(5)
    assert (alone.rank, alone.world, alone.is_main) == (0, 1, True)
    assert share.of(x) is x
    assert alone.weighted(x, share) is x
    assert alone.total(x) is x
    assert alone.largest([3, 0]) == [3, 0]
    assert alone.from_main(7) == 7
    assert alone.mean_of_batch([x, None], share) == [x, None]
    assert alone.prepared(nn.Identity(), find_unused=True).__class__ is nn.Identity
    with alone.gathering() as gather:
        assert gather(b"mine") == [b"mine"]
    alone.backward((x * 2).sum())
    assert torch.equal(x.grad, torch.full((5,), 2.0))
    assert torch.equal(Share(slice(1, 3), 5).of(x), x[1:3])


@pytest.mark.parametrize(
    ("variable", "name"),
    [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
     ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM")],
)  # fmt: skip
def test_engines_that_shard_weights_are_refused_by_name(variable, name, monkeypatch):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"{variable}: {name} is not supported, since the attack needs the whole mod"):
        join_processes(CPU)
    monkeypatch.setenv(variable, "false")
    assert join_processes(CPU).world == 1


def test_what_the_environment_declares(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert join_processes(CPU).world == 1
    for bad in ("two", "0", "-1", ""):
        monkeypatch.setenv("WORLD_SIZE", bad)
        with pytest.raises(
            ValueError, match=f"WORLD_SIZE: expected a whole number of processes, at least 1, got '{bad}'"
        ):
            join_processes(CPU)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK: not set, though WORLD_SIZE is; start the script with torchrun"):
        join_processes(CPU)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"classifier: it is on cuda:0, but this process has LOCAL_RANK=1"):
        join_processes(torch.device("cuda", 0))
    for rank, main in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main_process() is main


def test_a_broken_connection_says_what_it_means():
    peer = r"another process of this training ended .*Connection closed by peer"
    with pytest.raises(RuntimeError, match=peer), named_loss_of_a_process():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:39411\nmore")
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), named_loss_of_a_process():
        raise RuntimeError("sizes differ")


def test_a_batch_needs_two_rows_of_each_process():
    view = TensorView(make_classifier())
    given_ = (RunOptions(), view, [view.classifier.optimizer], [], Processes(CPU, 0, 2))
    with pytest.raises(ValueError, match=r"batch_size: it is that of all 2 processes together; expected at least 4"):
        check_run(*given_, batch_size=3, validated=False)
    check_run(*given_, batch_size=4, validated=False)


def two(directory, nb_epochs, *how):
    """What both processes found."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.engine.two_processes", str(directory), str(nb_epochs), *how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(Path(f"{directory}-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_train_as_one_and_a_run_goes_on_with_another_number(tmp_path):
    expected = train(None, 3)
    first, second = two(tmp_path / "whole", 3)
    assert first == second
    begun = two(tmp_path / "begun", 2)
    resumed = train(tmp_path / "begun", 3)  # by this process alone
    assert len(begun[0]["history"]) == 2
    for found in (first, resumed):
        assert_alike(found, expected)


def test_two_processes_follow_the_curves_of_one(tmp_path):
    first, second = two(tmp_path / "run", 3, "curves")
    assert first == second
    assert_alike(first, train(None, 3, curves=True))


def assert_alike(found, expected):
    np.testing.assert_allclose(found["weights"], expected["weights"], rtol=0, atol=1e-12)
    for row, wanted in zip(found["history"], expected["history"], strict=True):
        assert {k: v for k, v in row.items() if isinstance(v, float)} == pytest.approx(
            {k: v for k, v in wanted.items() if isinstance(v, float)}, abs=1e-6
        )
