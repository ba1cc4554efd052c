"""The training loop of one fit: epochs, and the one step that every method takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from art_lbgat.bridge import TensorView
from art_lbgat.data.streams import Batch, Stream
from art_lbgat.engine.average import Average
from art_lbgat.engine.awp import buffers_kept, perturbed_parameters, weight_perturbation, weights_perturbed
from art_lbgat.engine.history import Meter
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.memory import to_device
from art_lbgat.engine.modes import Modes
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.randomness import Key, seed_everything
from art_lbgat.engine.step import learning_rate, optimizer_step
from art_lbgat.objectives.terms import Terms, total
from art_lbgat.trainers.adversary import Adversary
from art_lbgat.trainers.checks import check_outputs
from art_lbgat.trainers.guide_cache import GuideCache
from art_lbgat.trainers.progress import Progress
from art_lbgat.trainers.warm_starts import WarmStarts

Natural = Literal["none", "value", "graph"]


class Inputs(NamedTuple):
    """What one step gives the models, preprocessed for each.

    :param adversarial: For ``M_r(x_adv)``, or None.
    :param natural: For ``M_r(x)``, or None.
    :param guides: For each guide that is to be run.
    :param cached: The guides' logits, where they are known from an earlier epoch.
    :param y_student: Labels of the student.
    :param y_guide: Labels of the guide.
    """

    adversarial: Tensor | None
    natural: Tensor | None
    guides: Sequence[Tensor]
    cached: Tensor | None
    y_student: Tensor
    y_guide: Tensor


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
    :param average: The moving average of the student's weights, or None.
    :param guide_cache: Keeps the logits of frozen guides, or None.
    :param scaler: Scales the loss of fp16, or None.
    :param warm_starts: Keeps ``x_adv`` for the next epoch, or None.
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
    average: Average | None = None
    guide_cache: GuideCache | None = None
    scaler: torch.amp.GradScaler | None = None
    warm_starts: WarmStarts | None = None

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
        for step, batch in enumerate(stream.epoch(key)):
            self.step(batch, key._replace(step=step), meter)
            progress.update(key.epoch, meter)
        if not meter.samples:
            raise ValueError(f"x: no batch came in epoch {key.epoch}; expected at least one.")
        seconds = time.perf_counter() - start
        row: dict[str, Any] = {"fit": key.fit, "epoch": key.epoch, **meter.means(), "learning_rate": rates[0]}
        if len(rates) > 1:
            row["guide_learning_rate"] = rates[1]
        if self.adversary is not None and self.adversary.eps is not None:
            row["eps"] = self.adversary.eps * self.options.eps_factor(key.epoch)
        if self.adversary is not None:
            max_iter = self._max_iter(self.adversary, key.epoch)
            row.update({} if max_iter is None else {"max_iter": max_iter}, **self.adversary.tally.take())
        return {**row, "seconds": seconds, "images_per_second": meter.samples / seconds}

    def step(self, batch: Batch, key: Key, meter: Meter) -> None:
        """One training step: attack, forwards, loss, backward, optimizer steps.

        :param batch: Raw natural inputs and labels.
        :param key: Where in the run this is; every random number of the step is a function of it.
        :param meter: Told of terms and outputs.
        """
        seed_everything(key.derive("step"))
        x, y = (to_device(value, self.student.device) for value in (batch.x, batch.y))
        student_modes, *guide_modes = self.modes
        x_adv: Tensor | None = None
        if self.adversary is not None:
            student_modes.evaluate()
            x_adv = self._examples(self.adversary, x, y, batch.rows, key)
        student_modes.train()
        for guide in guide_modes:
            guide.train() if self.joint.train_guides else guide.evaluate()
        cached = None if self.guide_cache is None else self.guide_cache.get(batch.rows)
        draws = any(view.draws_in_training for view in (self.student, *self.guides))
        inputs = self._inputs(x, x_adv, y, key.derive("defences") if draws else 0, cached)
        with self._weights_perturbed(inputs, key.epoch) as guide_logits:
            logits = self._forward(inputs, guide_logits)
            if key.epoch == 1 and key.step == 0:
                check_outputs(logits, len(x), self.student.classifier.nb_classes)
            if self.guide_cache is not None and batch.rows is not None and cached is None:
                self.guide_cache.put(batch.rows, logits["guide"])
            terms = self.terms(logits, inputs.y_student, inputs.y_guide)
            loss = total(terms)
            optimizer_step(loss, self.joint.trained(), self.optimizers, self.options.max_grad_norm, self.scaler)
        if self.average is not None:
            self.average.update()
        meter.add(terms, loss, logits, inputs.y_student, inputs.y_guide)

    def _examples(self, adversary: Adversary, x: Tensor, y: Tensor, rows: Tensor | None, key: Key) -> Tensor:
        """``x_adv``, with the ball, the steps and the start that the options give it in this epoch."""
        x_adv = adversary.examples(
            x,
            y,
            key,
            self.options.eps_factor(key.epoch),
            max_iter=self._max_iter(adversary, key.epoch),
            warm_start=None if self.warm_starts is None else self.warm_starts.get(rows),
        )
        if self.warm_starts is not None:
            self.warm_starts.put(rows, x_adv)
        return x_adv

    def _max_iter(self, adversary: Adversary, epoch: int) -> int | None:
        """The attack's steps in an epoch, or None where they do not rise."""
        if adversary.ascent is None or not self.options.max_iter_warmup_epochs:
            return None
        return self.options.steps(adversary.ascent.max_iter, epoch)

    def _inputs(self, x: Tensor, x_adv: Tensor | None, y: Tensor, seed: int, cached: Tensor | None) -> Inputs:
        """Preprocess for each model, all with the same random draws."""
        adversarial = natural = None
        y_student = y_guide = y
        if x_adv is not None:
            adversarial, y_student = self.student.fit_inputs(x_adv, y, seed)
        if self.natural != "none":
            natural, y_student = self.student.fit_inputs(x, y, seed)
        guide_inputs = []
        for guide in self.guides if cached is None else ():
            if self.joint.train_guides:
                inputs, y_guide = guide.fit_inputs(x, y, seed)
            else:
                with torch.no_grad():
                    inputs = guide.predict_inputs(x)
            guide_inputs.append(inputs)
        return Inputs(adversarial, natural, guide_inputs, cached, y_student, y_guide)

    def _forward(self, inputs: Inputs, guide_logits: Tensor | None) -> dict[str, Tensor]:
        """The joint module; the guides are not run again where their logits are known."""
        known = inputs.cached if guide_logits is None else guide_logits
        guide_inputs = inputs.guides if known is None else ()
        logits = self.joint(inputs.adversarial, inputs.natural, guide_inputs, self.natural == "graph")
        return logits if known is None else {**logits, "guide": known}

    @contextmanager
    def _weights_perturbed(self, inputs: Inputs, epoch: int) -> Iterator[Tensor | None]:
        """The student's weights moved by AWP inside the block, where it is on; yields the guide's logits then.

        The guide is run once, here, and its logits go into both losses: AWP moves the student only.
        """
        if not self.options.perturbs_weights(epoch):
            yield None
            return
        # With weight 0, M_r(x) moves batch-norm statistics and nothing else; here even these are put back.
        needed = inputs if self.natural == "graph" else inputs._replace(natural=None)
        parameters = perturbed_parameters(self.student.module, self.optimizers)
        with buffers_kept(self.student.module):
            logits = self._forward(needed, None)
            guide_logits = logits.get("guide")
            if guide_logits is not None:
                logits["guide"] = guide_logits.detach()
            if self.natural == "value":
                logits["natural"] = logits["adversarial"].detach()
            loss = total(self.terms(logits, inputs.y_student, inputs.y_guide))
            perturbation = weight_perturbation(loss, parameters, self.options.awp_gamma or 0.0)
        with weights_perturbed(parameters, perturbation):
            yield guide_logits
