"""Train and eval mode, and ``requires_grad``, switched for a while and put back as found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


class Modes:
    """The modes of one module during a run: listed once, switched by plain assignments.

    A submodule that is in eval mode although its root is in train mode was frozen by the user (BatchNorm, Dropout):
    it stays in eval mode when the rest trains.

    :param module: The module; its present flags are what :meth:`restore` returns to.
    """

    def __init__(self, module: nn.Module) -> None:
        self._found = [(m, m.training) for m in module.modules()]
        self._train = [(m, flag or not module.training) for m, flag in self._found]
        self._parameters = [(p, p.requires_grad) for p in module.parameters()]

    def train(self) -> None:
        """Train mode, except for what the user had frozen; parameters require gradients as found."""
        for module, flag in self._train:
            module.training = flag
        self._unfreeze()

    def evaluate(self) -> None:
        """Eval mode everywhere, and no parameter requires a gradient (only inputs are differentiated)."""
        for module, _ in self._found:
            module.training = False
        for parameter, _ in self._parameters:
            parameter.requires_grad_(False)

    def restore(self) -> None:
        """Modes and ``requires_grad`` exactly as they were found."""
        for module, flag in self._found:
            module.training = flag
        self._unfreeze()

    def normalizes_batches(self) -> bool:
        """Whether a BatchNorm layer will normalise by the statistics of the batch in train mode."""
        return any(flag and isinstance(m, nn.modules.batchnorm._BatchNorm) for m, flag in self._train)

    def _unfreeze(self) -> None:
        for parameter, flag in self._parameters:
            parameter.requires_grad_(flag)


@contextmanager
def preserved_modes(modules: Sequence[nn.Module]) -> Iterator[list[Modes]]:
    """Yield the :class:`Modes` of each module, and restore all of them at the end, also after an exception."""
    modes = [Modes(module) for module in modules]
    try:
        yield modes
    finally:
        for each in modes:
            each.restore()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in eval mode without parameter gradients for the length of the block."""
    with preserved_modes([module]) as (modes,):
        modes.evaluate()
        yield
