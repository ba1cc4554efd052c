"""Train and eval mode, and ``requires_grad``, switched for a while and put back as found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

Flags = list[tuple[nn.Module, bool]]


class Modes:
    """The modes of one module during a run: listed once, switched by plain assignments.

    A submodule that is in eval mode although its root is in train mode was frozen by the user (BatchNorm, Dropout):
    it stays in eval mode when the rest trains.

    :param module: The module; its present flags are what :meth:`restore` returns to.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._found = [(m, m.training) for m in module.modules()]
        self._parameters = [(p, p.requires_grad) for p in module.parameters()]
        self._train = self._found if module.training else None

    def train(self) -> None:
        """Train mode, except for what the user had frozen; parameters require gradients as found."""
        _set(self._train_flags())
        self._unfreeze()

    def evaluate(self) -> None:
        """Eval mode everywhere, and no parameter requires a gradient (only inputs are differentiated)."""
        for module, _ in self._found:
            module.training = False
        for parameter, _ in self._parameters:
            parameter.requires_grad_(False)

    def restore(self) -> None:
        """Modes and ``requires_grad`` exactly as they were found."""
        _set(self._found)
        self._unfreeze()

    def normalizes_batches(self) -> bool:
        """Whether a BatchNorm layer will normalise by the statistics of the batch in train mode."""
        return any(flag and isinstance(m, nn.modules.batchnorm._BatchNorm) for m, flag in self._train_flags())

    def _train_flags(self) -> Flags:
        if self._train is None:
            # All in eval mode (as ART's predict leaves it): the module's own train() says what trains, since
            # keeping BatchNorm frozen by overriding it is common.
            now = [(m, m.training) for m, _ in self._found]
            self._module.train()
            self._train = [(m, m.training) for m, _ in self._found]
            _set(now)
        return self._train

    def _unfreeze(self) -> None:
        for parameter, flag in self._parameters:
            parameter.requires_grad_(flag)


def _set(flags: Flags) -> None:
    for module, flag in flags:
        module.training = flag


@contextmanager
def plain_autograd(device: torch.device) -> Iterator[None]:
    """No ambient ``no_grad``, ``inference_mode`` or ``autocast``: they break attacks, or change them in silence.

    :param device: Whose autocast is switched off.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def preserved_modes(modules: Sequence[nn.Module]) -> Iterator[list[Modes]]:
    """Yield the :class:`Modes` of each module, and restore all of them at the end, also after an exception.

    :param modules: The modules.
    """
    modes = [Modes(module) for module in modules]
    try:
        yield modes
    finally:
        for each in modes:
            each.restore()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in eval mode without parameter gradients for the length of the block.

    :param module: The module.
    """
    with preserved_modes([module]) as (modes,):
        modes.evaluate()
        yield
