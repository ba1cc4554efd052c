"""How the forward passes of a run are executed: precision, memory format, compilation.

Nothing here changes what is computed but by rounding; with the defaults nothing is done at all. Losses, x_adv and the
updates of weights stay in fp32 whatever the precision of the passes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from art_lbgat.engine.options import RunOptions

Phase = Literal["train", "attack"]
logger = logging.getLogger(__name__)

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_FP16_GRADIENT_SCALE = 1024.0  # input gradients of an attack would underflow in fp16; only their direction is used


class Execution:
    """One module as a function of its inputs, run as the options say.

    The module itself stays as it is: ART, evaluation and checkpoints see no wrapper.
    """

    def __init__(self, module: nn.Module, options: RunOptions, device: torch.device, name: str) -> None:
        self._module, self._device, self._name = module, device, name
        self._channels_last = options.channels_last
        self._dtypes = {
            "train": _DTYPES[options.precision],
            "attack": _DTYPES[options.attack_precision or options.precision],
        }
        self._compiled: Any = torch.compile(module, dynamic=False) if options.compile else None
        self._size: int | None = None

    def train(self, inputs: Tensor) -> Any:
        """The output for a training pass, ``(N, C)``; fp32 whatever the precision."""
        return self._run(inputs, "train")

    def attack(self, inputs: Tensor) -> Any:
        """The output for a pass of an attack, ``(N, C)``; fp32 whatever the precision."""
        output = self._run(inputs, "attack")
        if self._dtypes["attack"] is torch.float16 and isinstance(output, Tensor):
            # The value is the same; the gradient is a multiple, as loss scaling makes it.
            output = output + (_FP16_GRADIENT_SCALE - 1) * (output - output.detach())
        return output

    def _run(self, inputs: Tensor, phase: Phase) -> Any:
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        dtype = self._dtypes[phase]
        if dtype is None:
            return self._call(inputs)
        # No cache: it keeps cast weights until the outermost block ends, which is that of the whole fit, while AWP and
        # the optimizer change weights between passes.
        with torch.autocast(self._device.type, dtype=dtype, cache_enabled=False):
            output = self._call(inputs)
        return output.float() if isinstance(output, Tensor) else output

    def _call(self, inputs: Tensor) -> Any:
        if self._size is None:
            self._size = len(inputs)
        # Another size (the last, partial batch) would be compiled anew.
        if self._compiled is None or len(inputs) != self._size:
            return self._module(inputs)
        try:
            return self._compiled(inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that is missing, or a module it cannot follow, raises many types
            self._compiled = None
            reason = str(error).strip().split("\n")[0]
            logger.warning(
                "compile=True: %s cannot be compiled (%s: %s); it runs as it is.",
                self._name,
                type(error).__name__,
                reason,
            )
            return self._module(inputs)


@contextmanager
def executions(
    modules: Sequence[tuple[str, nn.Module]], options: RunOptions, device: torch.device
) -> Iterator[list[Execution]]:
    """An :class:`Execution` for each module; memory format and matmul precision are as found at the end."""
    with (
        _channels_last([module for _, module in modules] if options.channels_last else []),
        _exact_float32(device),
    ):
        yield [Execution(module, options, device, name) for name, module in modules]


def gradient_scaler(options: RunOptions, device: torch.device) -> torch.amp.GradScaler | None:
    """What scales the loss of ``precision="fp16"``, or None."""
    if "fp16" not in (options.precision, options.attack_precision):
        return None
    if device.type != "cuda":
        raise ValueError(f"precision: 'fp16' needs a CUDA device, the classifier is on {device.type}; take 'bf16'.")
    return torch.amp.GradScaler(device.type) if options.precision == "fp16" else None


@contextmanager
def _channels_last(modules: Sequence[nn.Module]) -> Iterator[None]:
    """The weights of convolutions in channels_last, those that were not so before put back at the end."""
    changed = [p for module in modules for p in module.parameters() if p.ndim == 4 and p.is_contiguous()]
    for parameter in changed:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.data = parameter.data.contiguous()


@contextmanager
def _exact_float32(device: torch.device) -> Iterator[None]:
    """On CUDA, products of fp32 in full rather than in TF32; the switches are as found at the end."""
    if device.type != "cuda":
        yield
        return
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    found = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, found, strict=True):
            switch.allow_tf32 = value
