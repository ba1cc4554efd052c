"""The processes of one run: alone, or several that torchrun, ``accelerate launch`` or SLURM started.

Every process makes the same global batch, takes its own share of the rows, and ends each step with the same weights:
gradients are those of the mean over the global batch, whatever the shares. Alone, every method is the identity.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

FEWEST_ROWS = 2  # of a global batch, for a process that takes part
_PATIENCE = timedelta(days=30)  # a batch of an attack may take hours; a process that ends is noticed at once
_LET_GO = 0.2  # seconds; a thread of gloo needs microseconds, once it is given the interpreter
_TRAINING = "With checkpoint_dir, start all processes again (any number) and the run goes on from its last checkpoint."
_GATHERING = (
    "Every process has to call it, not the main one alone. With state_path, start all processes again (any number) and "
    "the run goes on from the batches it holds."
)
_ENGINES = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


class Share(NamedTuple):
    """The rows of a global batch that one process works on; one without rows takes the first ones, uncounted."""

    rows: slice
    total: int
    counted: bool = True

    def of(self, value: Tensor) -> Tensor:
        """These rows of a tensor of the global batch; the tensor itself where they are all."""
        return value if self.rows == slice(0, self.total) else value[self.rows]


class Processes:
    """One process, or with ``world > 1`` several of a process group, one device each."""

    def __init__(self, device: torch.device | None = None, rank: int = 0, world: int = 1) -> None:
        self.device, self.rank, self.world = device, rank, world

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def prepared(self, module: nn.Module, find_unused: bool) -> Any:
        """The module as it is called in training; ``find_unused`` if some parameters take no part in a step."""
        if self.world == 1:
            return module
        with named_loss_of_a_process():
            return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=find_unused)

    def share(self, total: int) -> Share:
        """The rows of a global batch that are this process's: in order, as even as they can be."""
        # With fewer than two rows BatchNorm has no statistics, so a short batch is left to fewer processes.
        active = max(1, min(self.world, total // FEWEST_ROWS))
        if self.rank >= active:
            return Share(slice(0, min(FEWEST_ROWS, total)), total, counted=False)
        return Share(slice(total * self.rank // active, total * (self.rank + 1) // active), total)

    def weighted(self, loss: Tensor, share: Share) -> Tensor:
        """What to differentiate for the gradient of the mean over the global batch: DDP averages uneven shares."""
        return loss if self.world == 1 else loss * (_part(share) * self.world)

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, the mean over all processes."""
        with named_loss_of_a_process():
            loss.backward()  # type: ignore[no-untyped-call]

    def mean_of_batch(self, values: Sequence[Tensor | None], share: Share) -> list[Tensor | None]:
        """Means over the global batch of means over each process's rows: one reduction of all laid end to end."""
        there = [value for value in values if value is not None]
        if self.world == 1 or not there:
            return list(values)
        flat = self.total(torch.cat([value.flatten() for value in there]) * _part(share))
        parts = iter(torch.split(flat, [value.numel() for value in there]))
        return [None if value is None else next(parts).reshape(value.shape) for value in values]

    def total(self, values: Tensor) -> Tensor:
        """Sums over all processes of values of one shape."""
        return values if self.world == 1 else self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest of each whole number over all processes."""
        if self.world == 1:
            return [int(value) for value in values]
        found = self._reduced(torch.tensor(list(values), dtype=torch.int64), dist.ReduceOp.MAX)
        return found.tolist()

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        found = values.to(self.device, copy=True)
        with named_loss_of_a_process():
            dist.all_reduce(found, operation)
        return found

    def check_same(self, value: int, message: str) -> None:
        """Refuse, in every process, a whole number that is not the same in all of them."""
        high, low = self.largest([value, -value])
        if high != -low:
            raise ValueError(message)

    def from_main(self, value: int) -> int:
        """The main process's whole number."""
        return int(self.total(torch.tensor(value if self.is_main else 0, dtype=torch.int64)))

    def on_main(self, action: Callable[[], Any]) -> Any:
        """The result of ``action`` in the main process, None in others; if it fails, all fail, and nobody waits."""
        found, error = None, None
        if self.is_main:
            try:
                found = action()
            except Exception as raised:
                error = raised
        failed = self.largest([error is not None])[0]
        if error is not None:
            raise error
        if failed:
            raise RuntimeError("the main process failed; its own error says why.")
        return found

    def average_buffers(self, before: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Floating buffers (batch-norm statistics) become their means over all processes; the rest keeps its bits.

        ``before`` has each buffer, and a copy of it from before the step, which all processes had alike.
        """
        floats = [(buffer, old) for buffer, old in before if buffer.is_floating_point()]
        if self.world == 1 or not floats:
            return
        flat = self.total(torch.cat([(buffer - old).flatten() for buffer, old in floats])) / self.world
        changes = torch.split(flat, [buffer.numel() for buffer, _ in floats])
        for (buffer, old), change in zip(floats, changes, strict=True):
            buffer.copy_(old + change.reshape(buffer.shape))

    @contextmanager
    def gathering(self) -> Iterator[Callable[[Any], list[Any]]]:
        """For the block, a function from an object of this process to those of all, in the order of ranks.

        Over connections of their own, however long one waits, which close when the block is left: a process that
        leaves it by an exception keeps nobody waiting.
        """
        if self.world == 1:
            yield lambda mine: [mine]
            return
        with named_loss_of_a_process("evaluation", _GATHERING):
            dist.barrier()  # notices a process that is gone; the next line would wait for it
            groups: list[Any] = [dist.new_group(backend="gloo", timeout=_PATIENCE)]

        def gather(mine: Any) -> list[Any]:
            found: list[Any] = [None] * self.world
            with named_loss_of_a_process("evaluation", _GATHERING):
                dist.all_gather_object(found, mine, group=groups[0])
            return found

        try:
            yield gather
        finally:
            dist.destroy_process_group(groups.pop())  # and let go of it, since only then the connections close


def _part(share: Share) -> float:
    return (share.rows.stop - share.rows.start) / share.total if share.counted else 0.0


def join_processes(device: torch.device) -> Processes:
    """The processes that the environment or an existing process group declares, the group started if need be.

    :raises ValueError: An engine other than DDP, a GPU that two processes share, an incomplete environment.
    """
    for variable, engine in _ENGINES.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise ValueError(
                f"{variable}: {engine} is not supported, since the attack needs the whole model on every device; start "
                "the script with torchrun, which trains by DDP."
            )
    if declared_world() == 1:
        return Processes()
    local = os.environ.get("LOCAL_RANK", "")
    if device.type == "cuda" and local.isdigit() and device.index != int(local):
        raise ValueError(
            f"classifier: it is on {device}, but this process has LOCAL_RANK={local}; call "
            "torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) before building the classifiers."
        )
    if not dist.is_initialized():
        _start_group(device)
    return Processes(device, dist.get_rank(), dist.get_world_size())


def declared_world() -> int:
    """How many processes an existing process group has, or the environment declares."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    declared = os.environ.get("WORLD_SIZE", "1")
    if not declared.isdigit() or int(declared) < 1:
        raise ValueError(f"WORLD_SIZE: expected a whole number of processes, at least 1, got {declared!r}.")
    return int(declared)


def is_main_process() -> bool:
    """Whether this process is the one that writes files and prints: the only one, or that of rank 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def named_loss_of_a_process(work: str = "training", advice: str = _TRAINING) -> Iterator[None]:
    """Say what a broken connection means: another process ended."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text for sign in ("onnection", "gloo", "NCCL", "timed out", "Timed out", "peer")):
            raise
        raise RuntimeError(
            f"another process of this {work} ended or cannot be reached, so this one stops too. {advice} "
            f"({text.splitlines()[0]})"
        ) from error


def _start_group(device: torch.device) -> None:
    """Start torch's process group, under a name of its own for each restart by torchrun."""
    from torch.distributed.rendezvous import rendezvous

    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"{missing[0]}: not set, though WORLD_SIZE is; start the script with torchrun.")
    store, rank, world = next(rendezvous("env://"))
    # What the ranks of an earlier attempt left in the store of the agent would be taken for addresses of this one's.
    attempt = f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=world)
    atexit.register(_leave_group)


def _leave_group() -> None:
    """End the connections when the interpreter does, after the threads of gloo have let go of the last tensors.

    Letting go needs the interpreter: a thread that is late ends the process by SIGABRT, and torchrun all the others.
    """
    if dist.is_initialized():
        time.sleep(_LET_GO)
        dist.destroy_process_group()
