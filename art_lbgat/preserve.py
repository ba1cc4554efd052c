"""What is unchanged after a call: train and eval modes, ``requires_grad`` flags, global random states.

Random numbers of a run are a function of (seed, fit, epoch, step): one that is resumed at any step, or that runs on
another device of the same kind, draws the same ones.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from art_lbgat.memory import runs_ahead

_CPU = torch.device("cpu")


class Modes:
    """The modes of one module during a run: listed once, switched by plain assignments.

    A submodule that is in eval mode although its root is in train mode was frozen by the user (BatchNorm, Dropout):
    it stays in eval mode when the rest trains.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # A frozen TorchScript module has no mode any more: it is in that of evaluation.
        self._found = [(m, getattr(m, "training", False)) for m in module.modules()]
        self._parameters = [(p, p.requires_grad) for p in module.parameters()]
        self._train = self._found if self._found[0][1] else None

    def train(self) -> None:
        """Train mode, except for what the user had frozen; parameters require gradients as found."""
        self._set(self._train_modes())

    def evaluate(self) -> None:
        """Eval mode everywhere, and no parameter requires a gradient (only inputs are differentiated)."""
        for module, _ in self._found:
            module.training = False
        for parameter, _ in self._parameters:
            parameter.requires_grad_(False)

    def restore(self) -> None:
        """Modes and ``requires_grad`` exactly as they were found."""
        self._set(self._found)

    def normalizes_batches(self) -> bool:
        """Whether a BatchNorm layer will normalise by the statistics of the batch in train mode."""
        return any(train and isinstance(m, nn.modules.batchnorm._BatchNorm) for m, train in self._train_modes())

    def _train_modes(self) -> list[tuple[nn.Module, bool]]:
        if self._train is None:
            # All in eval mode (as ART's predict leaves it): the module's own train() says what trains, since
            # keeping BatchNorm frozen by overriding it is common.
            now = [(m, m.training) for m, _ in self._found]
            self._module.train()
            self._train = [(m, m.training) for m, _ in self._found]
            for module, training in now:
                module.training = training
        return self._train

    def _set(self, modes: list[tuple[nn.Module, bool]]) -> None:
        for module, training in modes:
            module.training = training
        for parameter, flag in self._parameters:
            parameter.requires_grad_(flag)


@contextmanager
def plain_autograd(device: torch.device) -> Iterator[None]:
    """No ambient ``no_grad``, ``inference_mode``, ``autocast`` or default dtype: they break attacks or change them."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(dtype)


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


class Key(NamedTuple):
    """Where in a run a random number is drawn: fit and epoch from 1 (epoch 0 belongs to none), step from 0."""

    seed: int
    fit: int = 1
    epoch: int = 0
    step: int = 0

    def derive(self, purpose: str) -> int:
        """A 63-bit seed for one purpose (``"attack"``, ``"order"``, ...) at this place of the run."""
        words = [self.seed, self.fit, self.epoch, self.step, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def generator(self, purpose: str, device: torch.device = _CPU) -> torch.Generator:
        """A generator for one purpose: of ``device`` on CUDA, else of the CPU, with the same numbers everywhere."""
        return torch.Generator(device if runs_ahead(device) else "cpu").manual_seed(self.derive(purpose))


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (call it inside :func:`preserved_randomness`)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:  # the same for the CPU, without a traceback kept for devices that are not there (0.4 ms)
        torch.default_generator.manual_seed(seed)


@functools.cache
def _has_accelerator() -> bool:
    return any(kind.is_available() for kind in (torch.cuda, torch.backends.mps, torch.xpu))


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Put the global generators of python, numpy, torch and CUDA back as they were, also after an exception."""
    found = random_states()
    try:
        yield
    finally:
        set_random_states(found)


def random_states() -> dict[str, Any]:
    """The states of the global generators of python, numpy, torch and each CUDA device, as plain data."""
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the global generators where :func:`random_states` found them; of CUDA only the devices there are now."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


def draw_seed() -> int:
    """One seed below 2**31 from torch's global generator, which advances by that one draw."""
    return int(torch.randint(2**31, ()).item())
