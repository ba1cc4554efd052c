"""How the forward passes of a run are executed: precision, memory format, compilation.

Nothing here changes what is computed but by rounding; with the defaults nothing is done at all. Losses, x_adv and the
updates of weights stay in fp32 whatever the precision of the passes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from art_lbgat.classifier import run_module
from art_lbgat.engine.options import RunOptions

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
        self._dtype = _DTYPES[options.precision]
        self._attack_dtype = _DTYPES[options.attack_precision or options.precision]
        self._compiled: Any = torch.compile(module, dynamic=False) if options.compile else None
        self._size: int | None = None

    def train(self, inputs: Tensor) -> Any:
        """The output for a training pass, ``(N, C)``; fp32 whatever the precision."""
        return self._run(inputs, self._dtype)

    def attack(self, inputs: Tensor) -> Any:
        """The output for a pass of an attack, ``(N, C)``; fp32 whatever the precision."""
        output = self._run(inputs, self._attack_dtype)
        if self._attack_dtype is torch.float16 and isinstance(output, Tensor):
            # The value is the same; the gradient is a multiple, as loss scaling makes it.
            output = output + (_FP16_GRADIENT_SCALE - 1) * (output - output.detach())
        return output

    def _run(self, inputs: Tensor, dtype: torch.dtype | None) -> Any:
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if dtype is None:
            return self._call(inputs)
        # No cache: it keeps cast weights until the outermost block ends, which is that of the whole fit, while AWP and
        # the optimizer change weights between passes.
        with torch.autocast(self._device.type, dtype=dtype, cache_enabled=False):
            output = self._call(inputs)
        return output.float() if isinstance(output, Tensor) else output

    def _call(self, inputs: Tensor) -> Any:
        self._size = self._size or len(inputs)
        # Another size (the last, partial batch) would be compiled anew.
        if self._compiled is None or len(inputs) != self._size:
            return run_module(self._module, inputs, self._name)
        try:
            return self._compiled(inputs.clone())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that is missing, or a module it cannot follow, raises many types
            self._compiled = None
            reason = f"{type(error).__name__}: " + str(error).strip().partition("\n")[0]
            logger.warning("compile=True: %s cannot be compiled (%s); it runs as it is.", self._name, reason)
            return run_module(self._module, inputs, self._name)


@contextmanager
def executions(
    modules: Sequence[tuple[str, nn.Module]], options: RunOptions, device: torch.device
) -> Iterator[list[Execution]]:
    """An :class:`Execution` for each module: with ``channels_last`` on weights in that memory format, on CUDA without
    TF32; both are undone at the end.
    """
    weights = [p for _, module in modules for p in module.parameters() if p.ndim == 4 and p.is_contiguous()]
    weights = weights if options.channels_last else []
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    switches = [(each, each.allow_tf32) for each in backends if device.type == "cuda"]
    try:
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        for backend, _ in switches:
            backend.allow_tf32 = False
        yield [Execution(module, options, device, name) for name, module in modules]
    finally:
        for weight in weights:
            weight.data = weight.data.contiguous()
        for backend, found in switches:
            backend.allow_tf32 = found


def gradient_scaler(options: RunOptions, device: torch.device) -> torch.amp.GradScaler | None:
    """What scales the loss of ``precision="fp16"``, or None."""
    if "fp16" not in (options.precision, options.attack_precision):
        return None
    if device.type != "cuda":
        raise ValueError(f"precision: 'fp16' needs a CUDA device, the classifier is on {device.type}; take 'bf16'.")
    return torch.amp.GradScaler(device.type) if options.precision == "fp16" else None
