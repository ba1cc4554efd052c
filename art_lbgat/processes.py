"""The processes of one training: alone, or several that torchrun started, joined by Accelerate.

Every process makes the same global batch, trains on its own share of the rows, and ends each step with the same
weights: gradients are those of the mean over the global batch, whatever the shares. One process is the special case
with nothing to prepare and nobody to wait for, in which no operation is added.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
    """The rows of a global batch that one process trains on.

    :param rows: Where they stand in the global batch; a process for which there are none takes the first, uncounted.
    :param total: Rows of the global batch.
    :param counted: Whether they belong to this process.
    """

    rows: slice
    total: int
    counted: bool = True

    def of(self, value: Tensor) -> Tensor:
        """The share of a tensor of the global batch, ``(total, ...)``; the tensor itself where the share is all.

        :param value: The tensor.
        """
        return value if self.rows == slice(0, self.total) else value[self.rows]


class Processes:
    """One process: every method is the identity."""

    rank = 0
    world = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def prepared(self, joint: nn.Module, find_unused: bool) -> Any:
        """The module as it is called in training.

        :param joint: The one module that is trained.
        :param find_unused: Whether some of its parameters take no part in a step.
        """
        return joint

    def share(self, total: int) -> Share:
        """The rows of a global batch of ``total`` rows that are this process's: in order, as even as they can be.

        :param total: Rows of the global batch.
        """
        return Share(slice(0, total), total)

    def weighted(self, loss: Tensor, share: Share) -> Tensor:
        """What to differentiate so that the gradient is that of the mean over the global batch.

        :param loss: The mean over this process's rows.
        :param share: Which these are.
        """
        return loss

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, the mean over all processes.

        :param loss: The loss of this process, a scalar.
        """
        loss.backward()  # type: ignore[no-untyped-call]

    def mean_of_batch(self, values: Sequence[Tensor | None], share: Share) -> list[Tensor | None]:
        """Means over the global batch of what each process has as a mean over its rows, None where it has None.

        :param values: The means of this process, scalars.
        :param share: Its rows.
        """
        return list(values)

    def total(self, values: Tensor) -> Tensor:
        """Sums over all processes.

        :param values: What this process has, of one shape everywhere.
        """
        return values

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest of each whole number over all processes.

        :param values: Those of this process.
        """
        return list(values)

    def check_same(self, value: int, message: str) -> None:
        """Refuse a whole number that is not the same in all processes, which all have to ask.

        :param value: The number of this process.
        :param message: The text of the error.
        :raises ValueError: With ``message``, in every process.
        """
        high, low = self.largest([value, -value])
        if high != -low:
            raise ValueError(message)

    def of_main(self, value: int) -> int:
        """The main process's whole number.

        :param value: That of this process.
        """
        return value

    def average_buffers(self, before: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Floating buffers (batch-norm statistics) become their means over all processes.

        :param before: Each buffer, and a copy of it from before the step, which all processes had alike.
        """

    @contextmanager
    def gathering(self) -> Iterator[Callable[[bytes], list[bytes]]]:
        """What each process has, given to all, in order of their ranks, however long one has to wait for another.

        :return: For the block, a function from what this process has to what every process has.
        """
        yield lambda mine: [mine]


class JoinedProcesses(Processes):
    """Several processes, one device each, joined by Accelerate on a process group of torch.

    :param device: The device of the classifiers of this process.
    :raises ImportError: Without the package ``accelerate``.
    :raises ValueError: If the environment asks for another engine than DDP, a GPU is shared, or ``WORLD_SIZE``
        disagrees with the processes that joined.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            raise ImportError(
                "WORLD_SIZE: several processes need the package accelerate: pip install accelerate."
            ) from error
        check_device(device)
        _join_group(device)
        handler = DistributedDataParallelKwargs(broadcast_buffers=False)
        self._handler = handler
        self._accelerator: Any = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[handler])
        check_joined(self._accelerator.num_processes, str(self._accelerator.distributed_type))
        self._device = device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes

    def prepared(self, joint: nn.Module, find_unused: bool) -> Any:
        """See :class:`Processes`: DistributedDataParallel, through ``Accelerator.prepare``."""
        self._handler.find_unused_parameters = find_unused
        self._accelerator._models.clear()  # it would keep the wrapper of every fit
        with named_loss_of_a_process(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            # not moved: it is on its device, and moving would give parameters other memory than averages of them share
            return self._accelerator.prepare(joint, device_placement=[False])

    def share(self, total: int) -> Share:
        """See :class:`Processes`."""
        # With fewer than two rows BatchNorm has no statistics, so a short batch is left to fewer processes.
        active = max(1, min(self.world, total // FEWEST_ROWS))
        if self.rank >= active:
            return Share(slice(0, min(FEWEST_ROWS, total)), total, counted=False)
        first, last = (total * rank // active for rank in (self.rank, self.rank + 1))
        return Share(slice(first, last), total)

    def weighted(self, loss: Tensor, share: Share) -> Tensor:
        """See :class:`Processes`: DDP takes the mean over processes, whose shares may be uneven."""
        return loss * (self._part(share) * self.world)

    def backward(self, loss: Tensor) -> None:
        """See :class:`Processes`."""
        with named_loss_of_a_process():
            self._accelerator.backward(loss)

    def mean_of_batch(self, values: Sequence[Tensor | None], share: Share) -> list[Tensor | None]:
        """See :class:`Processes`: one reduction of all values laid end to end."""
        there = [value for value in values if value is not None]
        if not there:
            return list(values)
        flat = self.total(torch.cat([value.flatten() for value in there]) * self._part(share))
        parts = iter(torch.split(flat, [value.numel() for value in there]))
        return [None if value is None else next(parts).reshape(value.shape) for value in values]

    def total(self, values: Tensor) -> Tensor:
        """See :class:`Processes`."""
        with named_loss_of_a_process():
            total: Tensor = self._accelerator.reduce(values.to(self._device), reduction="sum")
        return total

    def largest(self, values: Sequence[int]) -> list[int]:
        """See :class:`Processes`."""
        mine = torch.tensor([list(values)], dtype=torch.int64, device=self._device)
        with named_loss_of_a_process():
            everyones: Tensor = self._accelerator.gather(mine)
        return everyones.amax(dim=0).tolist()

    def of_main(self, value: int) -> int:
        """See :class:`Processes`."""
        return int(self.total(torch.tensor(value if self.is_main else 0, dtype=torch.int64)))

    def average_buffers(self, before: Sequence[tuple[Tensor, Tensor]]) -> None:
        """See :class:`Processes`: one reduction of all changes laid end to end; what did not change keeps its bits."""
        floats = [(buffer, old) for buffer, old in before if buffer.is_floating_point()]
        if not floats:
            return
        flat = self.total(torch.cat([(buffer - old).flatten() for buffer, old in floats])) / self.world
        changes = torch.split(flat, [buffer.numel() for buffer, _ in floats])
        for (buffer, old), change in zip(floats, changes, strict=True):
            buffer.copy_(old + change.reshape(buffer.shape))

    @contextmanager
    def gathering(self) -> Iterator[Callable[[bytes], list[bytes]]]:
        """See :class:`Processes`: over connections of their own, on the CPU, which close when the block is left.

        So a process that leaves it by an exception keeps nobody waiting.
        """
        import torch.distributed as dist

        with named_loss_of_a_process("evaluation", _GATHERING):
            self._accelerator.wait_for_everyone()  # notices a process that is gone; the next line would wait for it
            groups: list[Any] = [dist.new_group(backend="gloo", timeout=_PATIENCE)]

        def everyones(mine: Tensor) -> list[Tensor]:
            """One tensor of each process, all of this one's shape."""
            found = [torch.empty_like(mine) for _ in range(self.world)]
            with named_loss_of_a_process("evaluation", _GATHERING):
                dist.all_gather(found, mine, group=groups[0])
            return found

        def gather(mine: bytes) -> list[bytes]:
            """The bytes of each process, of any length."""
            lengths = [int(length) for length in everyones(torch.tensor(len(mine)))]
            padded = mine.ljust(max(1, *lengths), b"\0")  # rows of unequal length would arrive as garbage
            found = everyones(torch.frombuffer(bytearray(padded), dtype=torch.uint8))
            return [row[:length].numpy().tobytes() for row, length in zip(found, lengths, strict=True)]

        try:
            yield gather
        finally:
            dist.destroy_process_group(groups.pop())  # and let go of it, since only then the connections close

    def _part(self, share: Share) -> float:
        return (share.rows.stop - share.rows.start) / share.total if share.counted else 0.0


def join_processes(device: torch.device) -> Processes:
    """The processes of this training: those that the environment (torchrun's) or an existing process group declares.

    :param device: The device of the classifiers.
    :return: :class:`Processes` alone, or :class:`JoinedProcesses`.
    :raises ValueError: See :class:`JoinedProcesses`.
    """
    check_engine()
    if declared_world() == 1:
        return Processes()
    return JoinedProcesses(device)


def declared_world() -> int:
    """How many processes an existing process group has, or the environment declares.

    :raises ValueError: If ``WORLD_SIZE`` is no whole number of at least 1.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    declared = os.environ.get("WORLD_SIZE", "1")
    if not declared.isdigit() or int(declared) < 1:
        raise ValueError(f"WORLD_SIZE: expected a whole number of processes, at least 1, got {declared!r}.")
    return int(declared)


def is_main_process() -> bool:
    """Whether this process is the one that writes files and prints: the only one, or that of rank 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def check_engine() -> None:
    """Refuse what shards weights, since attacks need the whole model.

    :raises ValueError: If the environment asks for FSDP, DeepSpeed or Megatron-LM.
    """
    for variable, engine in _ENGINES.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise ValueError(
                f"{variable}: {engine} is not supported, since the attack needs the whole model on every device; start "
                "the script with torchrun, which trains by DDP."
            )


def check_joined(joined: int, kind: str) -> None:
    """Refuse a run whose processes did not all join, or joined in another way than DDP.

    :param joined: Processes that Accelerate sees.
    :param kind: Its name of how they are joined.
    :raises ValueError: If they are not.
    """
    declared = int(os.environ.get("WORLD_SIZE", joined))
    if declared != joined or joined == 1:
        raise ValueError(
            f"WORLD_SIZE: {declared} processes were declared, but {joined} joined; each would train alone and write "
            "the same files. Start the script with torchrun --nproc-per-node N."
        )
    if not kind.endswith(("MULTI_CPU", "MULTI_GPU")):
        raise ValueError(f"distributed type: {kind} is not supported; start the script with torchrun (gloo or nccl).")


def check_device(device: torch.device) -> None:
    """Refuse two processes on one GPU.

    :param device: The device of the classifier.
    :raises ValueError: If the device is not the GPU that this process was given.
    """
    local = os.environ.get("LOCAL_RANK", "")
    if device.type == "cuda" and local.isdigit() and device.index != int(local):
        raise ValueError(
            f"classifier: it is on {device}, but this process has LOCAL_RANK={local}; call "
            "torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) before building the classifiers."
        )


@contextmanager
def named_loss_of_a_process(work: str = "training", advice: str = _TRAINING) -> Iterator[None]:
    """Say what a broken connection means: another process ended.

    :param work: What the processes do together.
    :param advice: What to do about it.
    :raises RuntimeError: In place of the error of the process group.
    """
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


def _join_group(device: torch.device) -> None:
    """Start torch's process group, under a name of its own for each restart by torchrun."""
    import atexit

    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return
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
    if not torch.distributed.is_initialized():
        return
    time.sleep(_LET_GO)
    torch.distributed.destroy_process_group()
