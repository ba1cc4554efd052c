"""Exponential moving average of weights and buffers (EMA), through ``torch.optim.swa_utils``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class _State(nn.Module):
    """The parameters and buffers of a module, and nothing else of it: what a deep copy of any module can hold."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # A mask of -inf has no average, which would be NaN.
        buffers = [each for each in module.buffers() if not each.is_floating_point() or not bool(each.isinf().any())]
        for i, tensor in enumerate([*module.parameters(), *buffers]):
            self.register_buffer(str(i), tensor.detach())  # shares memory, so that it follows the training


class Average:
    """``a <- decay * a + (1 - decay) * w`` after each step, starting at the weights after the first.

    Floating buffers (batch-norm statistics) are averaged like weights, so that they belong to the averaged weights;
    counters are copied.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._live = _State(module)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

        def update(averaged: Any, current: Any, count: Any) -> None:
            if averaged[0].is_floating_point() or averaged[0].is_complex():
                average(averaged, current, count)
            else:
                for kept, new in zip(averaged, current, strict=True):
                    kept.copy_(new)

        self._averaged = AveragedModel(self._live, multi_avg_fn=update, use_buffers=True)

    def update(self) -> None:
        """Take the present weights into the average."""
        self._averaged.update_parameters(self._live)

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes: the averaged tensors and how many updates they hold."""
        return dict(self._averaged.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state` gave."""
        self._averaged.load_state_dict(state)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in the module inside the block; those being trained afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged weights and buffers with those of the module."""
        for kept, live in zip(self._averaged.module.buffers(), self._live.buffers(), strict=True):
            value: Tensor = live.clone()
            live.copy_(kept)
            kept.copy_(value)
