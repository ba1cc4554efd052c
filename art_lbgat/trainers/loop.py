"""The training loop of one fit: epochs, and the one step that every method takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from art_lbgat.bridge import TensorView
from art_lbgat.data.streams import Stream
from art_lbgat.engine.history import Meter
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.modes import Modes
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.randomness import Key, seed_everything
from art_lbgat.engine.step import learning_rate, optimizer_step
from art_lbgat.objectives.terms import Terms, total
from art_lbgat.trainers.adversary import Adversary
from art_lbgat.trainers.checks import check_outputs
from art_lbgat.trainers.progress import Progress

Natural = Literal["none", "value", "graph"]


@dataclass(frozen=True)
class Loop:
    """Everything one fit needs, put together once.

    :param student: The classifier that is made robust.
    :param guides: The guides, or none.
    :param joint: The module of student and guides that is trained.
    :param natural: What the method needs of ``M_r(x)``: nothing, its value, or its graph.
    :param terms: ``(logits, y, y_guide) -> Terms``: the method.
    :param options: How to run.
    :param adversary: Makes ``x_adv``, or None.
    :param optimizers: The student's, then that of each trained guide.
    :param modes: The modes of the student, then of each guide.
    """

    student: TensorView
    guides: Sequence[TensorView]
    joint: Joint
    natural: Natural
    terms: Callable[[Mapping[str, Tensor], Tensor, Tensor], Terms]
    options: RunOptions
    adversary: Adversary | None
    optimizers: Sequence[torch.optim.Optimizer]
    modes: Sequence[Modes]

    def epoch(self, stream: Stream, key: Key, progress: Progress) -> dict[str, Any]:
        """One pass over the data.

        :param stream: The data.
        :param key: Seed, fit and epoch.
        :param progress: Told of each step.
        :return: The row of the history.
        :raises ValueError: If no batch came.
        """
        meter, start = Meter(), time.perf_counter()
        rates = [learning_rate(optimizer) for optimizer in self.optimizers]
        seed_everything(key.derive("data"))
        for step, (x, y) in enumerate(stream.epoch(key)):
            self.step(x.to(self.student.device), y.to(self.student.device), key._replace(step=step), meter)
            progress.update(key.epoch, meter)
        if not meter.samples:
            raise ValueError(f"x: no batch came in epoch {key.epoch}; expected at least one.")
        seconds = time.perf_counter() - start
        row: dict[str, Any] = {"fit": key.fit, "epoch": key.epoch, **meter.means(), "learning_rate": rates[0]}
        if len(rates) > 1:
            row["guide_learning_rate"] = rates[1]
        if self.adversary is not None and self.adversary.ascent is not None:
            row["eps"] = self.adversary.ascent.eps * self.options.eps_factor(key.epoch)
        return {**row, "seconds": seconds, "images_per_second": meter.samples / seconds}

    def step(self, x: Tensor, y: Tensor, key: Key, meter: Meter) -> None:
        """One training step: attack, forwards, loss, backward, optimizer steps.

        :param x: Raw natural inputs, ``(N, ...)``, on the device.
        :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
        :param key: Where in the run this is; every random number of the step is a function of it.
        :param meter: Told of terms and outputs.
        """
        seed_everything(key.derive("step"))
        student_modes, *guide_modes = self.modes
        x_adv: Tensor | None = None
        if self.adversary is not None:
            student_modes.evaluate()
            x_adv = self.adversary.examples(x, y, key, self.options.eps_factor(key.epoch))
        student_modes.train()
        for guide in guide_modes:
            guide.train() if self.joint.train_guides else guide.evaluate()
        logits, y_student, y_guide = self._forward(x, x_adv, y, key.derive("defences"))
        if key.epoch == 1 and key.step == 0:
            check_outputs(logits, len(x), self.student.classifier.nb_classes)
        terms = self.terms(logits, y_student, y_guide)
        loss = total(terms)
        optimizer_step(loss, self.joint.trained(), self.optimizers, self.options.max_grad_norm)
        meter.add(terms, loss, logits, y_student, y_guide)

    def _forward(
        self, x: Tensor, x_adv: Tensor | None, y: Tensor, seed: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Preprocess for each model, all with the same random draws, and run the joint module."""
        adversarial = natural = None
        y_student = y_guide = y
        if x_adv is not None:
            adversarial, y_student = self.student.fit_inputs(x_adv, y, seed)
        if self.natural != "none":
            natural, y_student = self.student.fit_inputs(x, y, seed)
        guide_inputs = []
        for guide in self.guides:
            if self.joint.train_guides:
                inputs, y_guide = guide.fit_inputs(x, y, seed)
            else:
                with torch.no_grad():
                    inputs = guide.predict_inputs(x)
            guide_inputs.append(inputs)
        return self.joint(adversarial, natural, guide_inputs, self.natural == "graph"), y_student, y_guide
