"""Every trainer in one table, and one small run that holds all that a checkpoint has to keep."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from art_lbgat import StepSchedule
from art_lbgat.attacks import NFGSMAttack, PGDAttack, TRADESAttack
from art_lbgat.engine.checkpoint import read_newest
from art_lbgat.fingerprint import weights_sha256
from art_lbgat.trainers import METHODS
from art_lbgat.trainers.guided import GuidedTrainer
from tests.conftest import make_classifier, make_data

OPTIONS: dict[str, Any] = {"seed": 3, "verbose": False}


def pgd(classifier: Any, **kwargs: Any) -> PGDAttack:
    return PGDAttack(classifier, **{"eps": 0.03, "eps_step": 0.015, "max_iter": 2, **kwargs})


def trades(classifier: Any, **kwargs: Any) -> TRADESAttack:
    return TRADESAttack(classifier, **{"eps": 0.03, "eps_step": 0.015, "max_iter": 2, **kwargs})


def another(classifier: Any) -> Any:
    """A guide for ``classifier``: the same declarations, other weights."""
    clip = classifier.clip_values
    if clip is not None:
        clip = (float(clip[0]), float(clip[1])) if np.ndim(clip) == 1 else tuple(clip)
    return make_classifier(
        seed=1, lr=0.02, shape=classifier.input_shape, classes=classifier.nb_classes, clip_values=clip
    )


def _builder(name: str) -> Callable[..., Any]:
    """``(classifier, guide, attack, **options) -> trainer``; a method takes what it has a use for."""

    def build(classifier: Any, guide: Any = None, attack: Any = None, **kwargs: Any) -> Any:
        short = {"ema_decay": 0.8} if name == "adr" else {}  # of runs of a few steps, the average is what is kept
        options = {**OPTIONS, **short, **kwargs}
        if name == "natural":
            return METHODS[name](classifier, **options)
        if attack is None:
            fast = {"eps_step": 0.0375, "max_iter": 1} if name == "fast-at" else {}
            kind = METHODS[name].attack_kind
            attack = trades(classifier) if kind == "trades" else pgd(classifier, **fast)
            attack = NFGSMAttack(classifier, eps=0.03) if kind == "n-fgsm" else attack
        if issubclass(METHODS[name], GuidedTrainer):
            options.setdefault("preset", "paper")
        if METHODS[name].takes_guide:
            return METHODS[name](classifier, guide or another(classifier), attack, **options)
        return METHODS[name](classifier, attack, **options)

    return build


TRAINERS = {name: _builder(name) for name in METHODS}
ADVERSARIAL = {name: build for name, build in TRAINERS.items() if name != "natural"}

X, Y = make_data(26)
HELD = make_data(8, seed=1)
#: What changes nothing in the bits of a run, and differs from one run to the next.
NOT_REPEATED = ["seconds", "images_per_second"]


class Case:
    """One trainer with fresh models, always the same: two epochs of four steps."""

    def __init__(
        self, name: str, directory: Path | None = None, attack: Callable[[Any], Any] | None = None, **options: Any
    ) -> None:
        torch.set_num_threads(1)
        self.classifier = make_classifier(lr=0.02)
        self.guide = another(self.classifier)
        every: dict[str, Any] = {"ema_decay": 0.8, "awp_gamma": 0.01, "awp_start_epoch": 2, "seed": None}
        if directory is not None:
            every |= {"checkpoint_dir": directory, "checkpoint_every": "1 step"}
        made = None if attack is None else attack(self.classifier)
        self.trainer = TRAINERS[name](self.classifier, self.guide, made, **{**every, **options})

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
        assert newest is not None
        return _text(newest.state["randomness"])

    def digest(self) -> str:
        """One SHA-256 over the weights of all models, optimizers, history, kept weights and generators after a fit."""
        history = self.trainer.history.drop(columns=NOT_REPEATED).to_csv()
        kept = [str(sorted(self.trainer.kept_weights)), *map(_text, self.trainer.kept_weights.values())]
        models = [weights_sha256(each.model) for each in (self.classifier, self.guide)]
        optimizers = [_text(each.optimizer.state_dict()) for each in (self.classifier, self.guide)]
        generators = str(torch.get_rng_state().sum().item()), str(torch.rand(3).tolist())
        return hashlib.sha256("\n".join([history, *kept, *models, *optimizers, *generators]).encode()).hexdigest()


def stop_after(case: Case, steps: int) -> Case:
    """SIGTERM in the midst of the optimizer's step of this number."""
    done = []

    def hook(*_: object) -> None:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    case.classifier.optimizer.register_step_post_hook(hook)
    return case


def _text(tree: Any) -> str:
    """Every tensor of a tree, and everything else, as text."""
    if isinstance(tree, torch.Tensor):
        return f"{tree.dtype}{tree.flatten().tolist()}"
    if isinstance(tree, dict):
        return str({key: _text(value) for key, value in tree.items()})
    return str([_text(value) for value in tree]) if isinstance(tree, (list, tuple)) else repr(tree)
