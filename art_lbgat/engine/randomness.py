"""Randomness that is a function of (seed, fit, epoch, step), and global generators left as found.

A run that is resumed at any step, or that runs on another device, draws the same numbers: nothing depends on how
often a generator was used before.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class Key(NamedTuple):
    """Where in a run a random number is drawn.

    :param seed: The seed of the run.
    :param fit: Which call of ``fit`` on this trainer, from 1.
    :param epoch: The epoch, from 1; 0 for draws that belong to no epoch.
    :param step: The step within the epoch, from 0.
    """

    seed: int
    fit: int = 1
    epoch: int = 0
    step: int = 0

    def derive(self, purpose: str) -> int:
        """A 63-bit seed for one purpose (``"attack"``, ``"order"``, ...) at this place of the run.

        :param purpose: The name of the purpose.
        """
        words = [self.seed, self.fit, self.epoch, self.step, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator for one purpose: the same numbers whatever the device of the model.

        :param purpose: The name of the purpose.
        """
        return torch.Generator().manual_seed(self.derive(purpose))


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (call it inside :func:`preserved_randomness`).

    :param seed: Any non-negative integer below 2**63.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:  # the same for the CPU, without a traceback kept for devices that are not there (0.4 ms)
        torch.default_generator.manual_seed(seed)


@functools.cache
def _has_accelerator() -> bool:
    kinds = (torch.cuda, torch.backends.mps, getattr(torch, "xpu", None))  # xpu came with torch 2.3
    return any(kind is not None and kind.is_available() for kind in kinds)


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
    """Put the global generators where :func:`random_states` found them; of CUDA only the devices there are now.

    :param states: What was found.
    """
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


def draw_seed() -> int:
    """One seed below 2**31 from torch's global generator, which advances by that one draw."""
    return int(torch.randint(2**31, ()).item())
