"""Exponential moving average of weights and buffers (EMA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from art_lbgat.engine.options import RunOptions


class Average:
    """``a <- decay * a + (1 - decay) * w`` after each step, starting at the weights after the first.

    Floating buffers (batch-norm statistics) are averaged like weights, so that they belong to the averaged weights;
    counters are copied. ``ema_start`` and ``ema_warmup`` of the options say when, and with which decay at first.
    """

    def __init__(self, module: nn.Module, decay: float, options: RunOptions) -> None:
        self._decay, self._start, self._warmup = decay, options.ema_start, options.ema_warmup
        # A mask of -inf has no average, which would be NaN.
        buffers = [each for each in module.buffers() if not each.is_floating_point() or not bool(each.isinf().any())]
        # These share memory with the module, so that they follow the training.
        self._live = [tensor.detach() for tensor in (*module.parameters(), *buffers)]
        self._kept = [tensor.clone() for tensor in self._live]
        self._updates = 0  # since averaging began

    @torch.no_grad()
    def update(self, share: float) -> None:
        """Take the present weights into the average, at a share of the run."""
        averaged: tuple[list[Any], list[Any]] = [], []
        for kept, live in zip(self._kept, self._live, strict=True):
            if self._updates and (kept.is_floating_point() or kept.is_complex()):
                averaged[0].append(kept)
                averaged[1].append(live)
            else:
                kept.copy_(live)
        if averaged[0]:
            warm = (1 + self._updates) / (10 + self._updates)
            torch._foreach_lerp_(*averaged, 1 - (min(self._decay, warm) if self._warmup else self._decay))
        self._updates = 0 if share < self._start else self._updates + 1

    def state(self) -> dict[str, Any]:
        """What :meth:`load` takes: the averaged tensors and how many updates they hold."""
        return {"tensors": self._kept, "updates": self._updates}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state` gave."""
        for kept, value in zip(self._kept, state["tensors"], strict=True):
            kept.copy_(value)
        self._updates = state["updates"]

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
        for kept, live in zip(self._kept, self._live, strict=True):
            value = live.clone()
            live.copy_(kept)
            kept.copy_(value)
