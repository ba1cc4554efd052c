"""Shares of a batch, and what is refused before processes join; joined ones are trained in qa/faults."""

import sys

import pytest
import torch
from art_lbgat.engine.batchnorm import batchnorm_synchronized
from art_lbgat.trainers.checks import check_processes
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from art_lbgat import RunOptions, processes
from art_lbgat.processes import JoinedProcesses, Processes, Share, is_main_process, join_processes
from tests.conftest import conv_net

CPU = torch.device("cpu")


def joined(rank, world):
    found = object.__new__(JoinedProcesses)
    found.rank, found.world = rank, world
    return found


@given(total=st.integers(1, 200), world=st.integers(2, 9))
def test_shares_are_every_row_once_and_never_a_single_one(total, world):
    shares = [joined(rank, world).share(total) for rank in range(world)]
    rows = [row for share in shares if share.counted for row in range(share.rows.start, share.rows.stop)]
    assert rows == list(range(total))
    sizes = [share.rows.stop - share.rows.start for share in shares]
    assert min(sizes) >= min(2, total)  # BatchNorm needs two, also where they are not counted
    counted = [size for size, share in zip(sizes, shares, strict=True) if share.counted]
    assert max(counted) - min(counted) <= 1
    weights = [joined(rank, world)._part(share) for rank, share in enumerate(shares)]
    assert sum(weights) == pytest.approx(1)
    assert all(share.total == total for share in shares)


def test_one_process_changes_nothing():
    alone, x = Processes(), torch.rand(5, requires_grad=True)
    share = alone.share(5)
    assert (alone.rank, alone.world, alone.is_main) == (0, 1, True)
    assert share.of(x) is x
    assert alone.weighted(x, share) is x
    assert alone.total(x) is x
    assert alone.largest([3, 0]) == [3, 0]
    assert alone.of_main(7) == 7
    assert alone.mean_of_batch([x, None], share) == [x, None]
    assert alone.prepared(nn.Identity(), find_unused=True).__class__ is nn.Identity
    alone.backward((x * 2).sum())
    assert torch.equal(x.grad, torch.full((5,), 2.0))
    assert torch.equal(Share(slice(1, 3), 5).of(x), x[1:3])


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_engines_that_shard_weights_are_refused_by_name(variable, monkeypatch):
    monkeypatch.setenv(variable, "true")
    name = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM"}[variable[15:]]
    with pytest.raises(
        ValueError, match=f"{variable}: {name} is not supported, since the attack needs the whole model"
    ):
        join_processes(CPU)
    monkeypatch.setenv(variable, "false")
    assert join_processes(CPU).world == 1


def test_what_the_environment_declares(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert type(join_processes(CPU)) is Processes
    for bad in ("two", "0", "-1", ""):
        monkeypatch.setenv("WORLD_SIZE", bad)
        with pytest.raises(
            ValueError, match=f"WORLD_SIZE: expected a whole number of processes, at least 1, got '{bad}'"
        ):
            join_processes(CPU)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="RANK: not set, though WORLD_SIZE is; start the script with torchrun"):
        join_processes(CPU)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match="WORLD_SIZE: several processes need the package accelerate"):
        join_processes(CPU)
    for rank, main in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert is_main_process() is main


def test_processes_that_did_not_join_are_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match=r"WORLD_SIZE: 2 processes were declared, but 1 joined; each would train alone"
    ):
        processes.check_joined(1, "DistributedType.NO")
    with pytest.raises(ValueError, match=r"distributed type: DistributedType.FSDP is not supported"):
        processes.check_joined(2, "DistributedType.FSDP")
    processes.check_joined(2, "DistributedType.MULTI_CPU")


def test_two_processes_on_one_gpu_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"classifier: it is on cuda:0, but this process has LOCAL_RANK=1"):
        processes.check_device(torch.device("cuda", 0))
    processes.check_device(torch.device("cuda", 1))
    processes.check_device(CPU)


def test_a_broken_connection_says_what_it_means():
    peer = r"another process of this training ended .*Connection closed by peer"
    with pytest.raises(RuntimeError, match=peer), processes.named_loss_of_a_process():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:39411\nmore")
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), processes.named_loss_of_a_process():
        raise RuntimeError("sizes differ")


def test_options_that_several_processes_cannot_follow():
    two = joined(0, 2)
    with pytest.raises(ValueError, match="cache_guide: expected False with 2 processes"):
        check_processes(RunOptions(), two, True, CPU, 8)
    with pytest.raises(ValueError, match="warm_start: expected False with 2 processes"):
        check_processes(RunOptions(warm_start=True), two, False, CPU, 8)
    with pytest.raises(
        ValueError, match=r"batch_size: it is that of all 2 processes together; expected at least 4, got 3"
    ):
        check_processes(RunOptions(), two, False, CPU, 3)
    with pytest.raises(ValueError, match="sync_batchnorm: needs CUDA devices, the classifier is on cpu"):
        check_processes(RunOptions(sync_batchnorm=True), two, False, CPU, 8)
    check_processes(RunOptions(), two, False, CPU, 4)
    check_processes(RunOptions(sync_batchnorm=True), two, False, torch.device("cuda", 0), None)


def test_batchnorm_is_synchronised_for_a_while_and_shares_what_it_learns():
    net = conv_net()
    net[1].eval()
    found = list(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with batchnorm_synchronized([net]):
        assert [type(layer).__name__ for layer in net].count("SyncBatchNorm") == 2
        assert not net[1].training
        assert net[4].weight is found[4].weight
        with torch.no_grad():
            net[4].running_mean += 1
        net[1].train()
    assert list(net) == found
    assert net[1].training
    assert torch.equal(net[4].running_mean, state["4.running_mean"] + 1)
    assert net.state_dict().keys() == state.keys()
