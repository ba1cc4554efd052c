"""Keeping the best weights of a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Best:
    """The weights and buffers of the epoch with the highest score.

    :param modules: The modules whose state is kept together.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._states: list[dict[str, Any]] = []
        self.score: tuple[float, ...] | None = None
        self.epoch: int | None = None

    def offer(self, score: tuple[float, ...], epoch: int) -> None:
        """Copy the present state if ``score`` is higher than the best so far; of equal scores the first stays."""
        if self.score is None or score > self.score:
            self.score, self.epoch = score, epoch
            self._states = [
                {name: _copied(value) for name, value in module.state_dict().items()} for module in self._modules
            ]

    def restore(self) -> None:
        """Put the best state back into the modules."""
        for module, state in zip(self._modules, self._states, strict=True):
            module.load_state_dict(state)


def _copied(value: Any) -> Any:
    """A copy of one entry of a state dict, which may be anything (``get_extra_state``)."""
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
