"""What is run side by side: ours, the authors' procedure, and the floor of bare passes; each trains LBGAT + TRADES."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import nn

from art_lbgat import LBGATTrainer, RunOptions
from art_lbgat.attacks import TRADESAttack
from art_lbgat.models import create_classifier
from qa.benchmarks import authors as published
from qa.benchmarks.models import CLASSES, find_model, make_data
from qa.benchmarks.timing import Contestant

EPS, STEP, RATE = published.EPS, published.STEP, 0.01


@dataclass(frozen=True)
class Task:
    """What every contestant has to do in one run.

    :param model: Name of the network.
    :param batch: Samples per step.
    :param alpha: Weight of the KL term.
    :param k: Steps of the attack.
    :param steps: Training steps of one run: one epoch over ``steps * batch`` images.
    :param device: Where.
    """

    model: str
    batch: int = 64
    alpha: float = 0.0
    k: int = 10
    steps: int = 1
    device: str = "cpu"

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The images and labels of one run."""
        return make_data(find_model(self.model).shape, self.steps * self.batch)

    def module(self, guide: bool = False) -> nn.Module:
        """A fresh network on the device, the same weights for all."""
        with torch.random.fork_rng():
            torch.manual_seed(int(guide))
            found = find_model(self.model)
            return (found.guide if guide else found.build)().to(self.device)

    def classifier(self, guide: bool = False) -> PyTorchClassifier:
        """The same in an ART classifier, with the optimizer of the recipes."""
        shape = find_model(self.model).shape
        kind = "cpu" if self.device == "cpu" else "gpu"
        return create_classifier(
            self.module(guide), CLASSES, shape, learning_rate=RATE, momentum=0.9, weight_decay=2e-4, device_type=kind
        )


def missing_options(options: dict[str, Any]) -> list[str]:
    """The names that ``RunOptions`` does not have."""
    return sorted(set(options) - {field.name for field in fields(RunOptions)})


def trainer(task: Task, **options: Any) -> LBGATTrainer:
    """Our trainer for a task.

    :param task: The task.
    :param options: Fields of ``RunOptions``.
    :return: The trainer.
    """
    student, guide = task.classifier(), task.classifier(guide=True)
    attack = TRADESAttack(student, eps=EPS, eps_step=STEP, max_iter=task.k)
    return LBGATTrainer(
        student, guide, attack, regularizer="trades", regularizer_weight=task.alpha, seed=0, verbose=False, **options
    )


def ours(task: Task, **options: Any) -> Contestant:
    """A call of ``fit`` for one epoch, as a user makes it: checks, stream, records and all.

    :param task: The task.
    :param options: Fields of ``RunOptions``.
    :return: Runs it; reports as ``"epoch"`` the seconds of the epoch without what ``fit`` does before and after.
    """
    made, (x, y) = trainer(task, **options), task.data()

    def run() -> dict[str, float]:
        made.fit(x, y, batch_size=task.batch, nb_epochs=1)
        return {"epoch": float(made.history["seconds"].iloc[-1])}

    return run


def authors(task: Task) -> Contestant:
    """The authors' procedure on the same images, without shuffling, records or checks.

    :param task: The task.
    :return: Runs it.
    """
    student, guide = task.module(), task.module(guide=True)
    parameters = [*student.parameters(), *guide.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=2e-4)
    x, y = (torch.from_numpy(array).split(task.batch) for array in task.data())

    def run() -> None:
        for images, labels in zip(x, y, strict=True):
            batch = images.to(task.device), labels.to(task.device)
            published.step(student, guide, optimizer, *batch, alpha=task.alpha, steps=task.k)

    return run


def floor(task: Task) -> Contestant:
    """The passes that ``LBGATTrainer.cost`` counts, and nothing else: no step of x_adv, no loss, no optimizer.

    :param task: The task.
    :return: Runs it.
    """
    student, guide = task.module(), task.module(guide=True)
    batches = [images.to(task.device) for images in torch.from_numpy(task.data()[0]).split(task.batch)]
    parameters = [*student.parameters(), *guide.parameters()]
    own = list(student.parameters())
    weights = torch.rand(task.batch, CLASSES, device=task.device)  # what a loss would send back

    def one(x: torch.Tensor) -> None:
        student.eval()
        for parameter in own:
            parameter.requires_grad = False
        with torch.no_grad():
            student(x)
        leaf = x.clone().requires_grad_(True)
        for _ in range(task.k):
            torch.autograd.grad(student(leaf), leaf, weights)
        student.train()
        for parameter in own:
            parameter.requires_grad = True
        adversarial = student(x)
        with torch.set_grad_enabled(task.alpha > 0):
            natural = student(x)
        outputs = [adversarial, guide(x), *([natural] if task.alpha else [])]
        torch.autograd.backward(outputs, [weights] * len(outputs))
        for parameter in parameters:
            parameter.grad = None

    def run() -> None:
        for x in batches:
            one(x)

    return run
