"""Memory and devices: what is done when memory runs out; how a program that runs ahead of its device stays ahead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_CPU_MESSAGES = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whatever device."""
    said = isinstance(error, RuntimeError) and any(message in str(error) for message in _CPU_MESSAGES)
    return said or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def in_chunks(function: Callable[[Tensor], Tensor], index: Tensor, batch_size: int) -> Tensor:
    """``function`` of all of ``index``, chunk by chunk; chunks are halved, and stay so, when memory runs out.

    For functions whose result for a sample does not depend on the samples beside it.
    """
    found: list[Tensor] = []
    first = 0
    while first < len(index):
        chunk = index[first : first + batch_size]
        try:
            found.append(function(chunk))
            first += len(chunk)
            continue
        except Exception as error:
            if not is_out_of_memory(error) or len(chunk) == 1:
                raise
        # Outside the handler, where the failed call's tensors are no longer held by the traceback.
        batch_size = len(chunk) // 2
        logger.warning("memory ran out with %d samples at a time; continuing with %d.", len(chunk), batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat(found)


@contextmanager
def explained_out_of_memory(batch_size: int | None) -> Iterator[None]:
    """What to set when memory runs out in training, where a smaller batch would be another training."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = "this batch size" if batch_size is None else f"{batch_size} samples at a time"
        raise RuntimeError(
            f"batch_size: memory ran out in training with {size}. BatchNorm and the learning rate "
            "depend on the batch, so it is not changed for you: lower batch_size (and the learning rate with it), or "
            "set precision='bf16', which halves the activations, or take a smaller network or guide."
        ) from error


def runs_ahead(device: torch.device) -> bool:
    """Whether the program runs ahead of the device, so that reading from there, or drawing for it here, would wait."""
    return device.type == "cuda"


def read_later(flag: Tensor) -> Callable[[], bool]:
    """A function that reads a flag, and waits only for what its device had been given before this call."""
    if not flag.is_cuda:
        return lambda: bool(flag)
    copied = flag.to("cpu", non_blocking=True)
    event: Any = torch.cuda.current_stream(flag.device).record_event()

    def read() -> bool:
        event.synchronize()
        return bool(copied)

    return read


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes are a small part of what is free on a CUDA device."""
    return size < torch.cuda.mem_get_info(device)[0] / 4


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``; to CUDA through pinned memory, so that the program does not wait for what runs there."""
    if device.type == "cuda" and value.device.type == "cpu":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
