"""A small training run that every fault is tried on: two epochs of everything that a checkpoint has to hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from art_lbgat import StepSchedule
from art_lbgat.engine.checkpoint import read_newest
from art_lbgat.fingerprint import module_weights
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import OPTIONS, TRAINERS, another

X, Y = make_data(26)
HELD = make_data(8, seed=1)
#: What changes nothing in the bits of a run, and differs from one run to the next.
_NOT_REPEATED = ["seconds", "images_per_second"]


class Case:
    """One trainer with fresh models, always the same.

    :param name: A trainer of ``tests.trainers.cases``.
    :param directory: Where checkpoints go, or None.
    :param options: Options of the trainer beside those of every case.
    """

    def __init__(self, name: str, directory: Path | None = None, **options: Any) -> None:
        torch.set_num_threads(1)
        self.classifier = make_classifier(lr=0.02)
        self.guide = another(self.classifier)
        every: dict[str, Any] = {"ema_decay": 0.8, "awp_gamma": 0.01, "awp_start_epoch": 2, "seed": None}
        if directory is not None:
            every |= {"checkpoint_dir": directory, "checkpoint_every": "1 step"}
        self.trainer = TRAINERS[name](self.classifier, guide=self.guide, **{**OPTIONS, **every, **options})

    def fit(self, **changes: Any) -> Case:
        """Train from the first step, or from the newest checkpoint."""
        torch.manual_seed(5)  # the seed of the run is drawn from here
        settings: dict[str, Any] = {
            "validation_data": HELD,
            "batch_size": 8,
            "nb_epochs": 2,
            "scheduler": StepSchedule((1,)),
            "augmentation": "crop+flip",
        }
        self.trainer.fit(X, Y, **{**settings, **changes})
        return self

    def randomness(self) -> str:
        """The generators as the last step left them: what the newest checkpoint holds."""
        newest = read_newest(Path(self.trainer.options.checkpoint_dir) / f"fit-{self.trainer.fits:03d}")
        return _tensors(newest.state["randomness"])

    def digest(self) -> str:
        """One SHA-256 over the weights of all models, optimizers, history, kept weights and generators after a fit."""
        history = self.trainer.history.drop(columns=_NOT_REPEATED).to_csv()
        kept = [str(sorted(self.trainer.kept_weights)), *map(_tensors, self.trainer.kept_weights.values())]
        models = [module_weights(each.model) for each in (self.classifier, self.guide)]
        optimizers = [_tensors(each.optimizer.state_dict()) for each in (self.classifier, self.guide)]
        generators = str(torch.get_rng_state().sum().item()), str(torch.rand(3).tolist())
        return hashlib.sha256("\n".join([history, *kept, *models, *optimizers, *generators]).encode()).hexdigest()


def _tensors(tree: Any) -> str:
    """Every tensor of a tree, and everything else, as text."""
    if isinstance(tree, torch.Tensor):
        return f"{tree.dtype}{tree.flatten().tolist()}"
    if isinstance(tree, dict):
        return str({key: _tensors(value) for key, value in tree.items()})
    return str([_tensors(value) for value in tree]) if isinstance(tree, (list, tuple)) else repr(tree)
