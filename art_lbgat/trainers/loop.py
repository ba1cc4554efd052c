"""The one step that every method takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art_lbgat.classifier import TensorView
from art_lbgat.data.streams import Batch
from art_lbgat.engine.average import Average
from art_lbgat.engine.awp import buffers_kept, perturbed_parameters, weight_perturbation, weights_perturbed
from art_lbgat.engine.history import Meter
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.nonfinite import MAX_SKIPPED, NonFiniteError, all_finite, describe
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.step import learning_rate, step_optimizers, take_gradients
from art_lbgat.losses import Terms, total
from art_lbgat.memory import to_device
from art_lbgat.preserve import Key, Modes, preserved_randomness, seed_everything
from art_lbgat.processes import Processes, Share
from art_lbgat.trainers.adversary import Adversary
from art_lbgat.trainers.checks import check_outputs
from art_lbgat.trainers.guide_cache import GuideCache
from art_lbgat.trainers.inputs import Inputs, Natural, make_inputs
from art_lbgat.trainers.warm_starts import WarmStarts

logger = logging.getLogger(__name__)


class _Perturbing(NamedTuple):
    """What AWP has computed already.

    :param guide_logits: The guides' logits, or None where they are not known.
    :param losses: The loss that the weights were moved along, or nothing.
    """

    guide_logits: Tensor | None = None
    losses: Sequence[Tensor] = ()


@dataclass
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
    :param processes: Who else trains on the same batches.
    :param agree: Told before the optimizers step whether this process has found NaN or Inf; says whether any has.
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
    processes: Processes = field(default_factory=Processes)
    agree: Callable[[bool], bool] = bool
    average: Average | None = None
    guide_cache: GuideCache | None = None
    scaler: torch.amp.GradScaler | None = None
    warm_starts: WarmStarts | None = None
    _prepared: Any = None
    _skipped_in_a_row: int = 0

    def step(self, batch: Batch, key: Key, meter: Meter) -> bool:
        """One training step: attack, forwards, loss, backward, optimizer steps.

        :param batch: Raw natural inputs and labels of the global batch, of which this process takes its share.
        :param key: Where in the run this is; every random number of the step is a function of it.
        :param meter: Told of terms and outputs.
        :return: Whether the optimizers stepped.
        :raises NonFiniteError: NaN or Inf arose, and ``on_nonfinite`` does not leave the step out.
        """
        share = batch.share or self.processes.share(len(batch.x))
        cut = share.of if batch.share is None else _whole
        seed_everything(key.derive(self._own("step")))
        x, y = (to_device(cut(value), self.student.device) for value in (batch.x, batch.y))
        rows = None if batch.rows is None else cut(batch.rows)
        buffers = self._buffers() if self.options.on_nonfinite == "skip" or self.processes.world > 1 else []
        x_adv = self._examples(x, y, rows, key, share)
        cached = None if self.guide_cache is None else self.guide_cache.get(rows)
        draws = any(view.draws_in_training for view in (self.student, *self.guides))
        seed = key.derive(self._own("defences")) if draws else 0
        views = (self.student, *self.guides)
        inputs = make_inputs(views, self.natural, self.joint.train_guides, x, x_adv, y, seed, cached)
        if self._prepared is None:
            self._prepared = self.processes.prepared(self.joint, self._has_unused(inputs))
        with self._weights_perturbed(inputs, key.epoch, share) as perturbing:
            logits = self._forward(self._prepared, inputs, perturbing.guide_logits)
            if key.epoch == 1 and key.step == 0:
                check_outputs(logits, len(x), self.student.classifier.nb_classes)
            terms = self.terms(logits, inputs.y_student, inputs.y_guide)
            loss = total(terms)
            norm = take_gradients(
                self.processes.weighted(loss, share),
                self.joint.trained(),
                self.optimizers,
                self.options.max_grad_norm,
                self.scaler,
                self.processes.backward,
            )
            places = [
                *([] if x_adv is None else [x_adv]),
                *([] if batch.rows is not None else [x]),
                *perturbing.losses,
                *logits.values(),
                loss,
            ]
            # With fp16 gradients overflow now and then; the scaler leaves these steps out.
            found = not all_finite(places if self.scaler is not None else [*places, norm])
            stepped = not self.agree(found)
            if stepped:
                step_optimizers(self.optimizers, norm, self.scaler)
        if not stepped:
            self._report(key, x, x_adv, logits, terms, norm, rows)
            if self.options.on_nonfinite == "skip":
                for buffer, value in buffers:
                    buffer.copy_(value)
            return False
        self._skipped_in_a_row = 0
        self.processes.average_buffers(buffers)
        self._remember(rows, x_adv, None if cached is not None else logits.get("guide"))
        meter.add(terms, loss, logits, inputs.y_student, inputs.y_guide, share.counted)
        return True

    def _remember(self, rows: Tensor | None, x_adv: Tensor | None, guide_logits: Tensor | None) -> None:
        """Take what a step has made into the cache, the warm starts and the average."""
        if self.guide_cache is not None and rows is not None and guide_logits is not None:
            self.guide_cache.put(rows, guide_logits)
        if self.warm_starts is not None and x_adv is not None:
            self.warm_starts.put(rows, x_adv)
        if self.average is not None:
            self.average.update()

    def _own(self, purpose: str) -> str:
        """A purpose of random numbers that are this process's own, since its samples are."""
        return purpose if self.processes.rank == 0 else f"{purpose} of process {self.processes.rank}"

    def _examples(self, x: Tensor, y: Tensor, rows: Tensor | None, key: Key, share: Share) -> Tensor | None:
        """``x_adv``, with the ball, steps and start that the options give it in this epoch; leaves modes as trained."""
        student_modes, *guide_modes = self.modes
        adversary, x_adv = self.adversary, None
        if adversary is not None:
            student_modes.evaluate()
            x_adv = adversary.examples(
                x,
                y,
                key,
                self.options.eps_factor(key.epoch),
                starts=adversary.starts(x, key, share),
                max_iter=self.max_iter(adversary, key.epoch),
                purpose=self._own("attack"),
            )
        student_modes.train()
        for guide in guide_modes:
            guide.train() if self.joint.train_guides else guide.evaluate()
        return x_adv

    def max_iter(self, adversary: Adversary, epoch: int) -> int | None:
        """The attack's steps in an epoch, or None where they do not rise.

        :param adversary: The attack.
        :param epoch: The epoch, from 1.
        """
        if adversary.ascent is None or not self.options.max_iter_warmup_epochs:
            return None
        return self.options.steps(adversary.ascent.max_iter, epoch)

    def _forward(self, joint: Any, inputs: Inputs, guide_logits: Tensor | None) -> dict[str, Tensor]:
        """The joint module; the guides are not run again where their logits are known."""
        known = inputs.cached if guide_logits is None else guide_logits
        guide_inputs = inputs.guides if known is None else ()
        logits: dict[str, Tensor] = joint(inputs.adversarial, inputs.natural, guide_inputs, self.natural == "graph")
        return logits if known is None else {**logits, "guide": known}

    @contextmanager
    def _weights_perturbed(self, inputs: Inputs, epoch: int, share: Share) -> Iterator[_Perturbing]:
        """The student's weights moved by AWP inside the block, where it is on.

        The guide is run once, here, and its logits go into both losses: AWP moves the student only. With several
        processes a guide that learns is run again inside the block, where its gradients are those that are reduced.
        """
        if not self.options.perturbs_weights(epoch):
            yield _Perturbing()
            return
        # With weight 0, M_r(x) moves batch-norm statistics and nothing else; here even these are put back.
        needed = inputs if self.natural == "graph" else inputs._replace(natural=None)
        parameters = perturbed_parameters(self.student.module, self.optimizers)
        again = self.processes.world > 1 and self.joint.train_guides
        with buffers_kept(self.joint if again else self.student.module):
            logits = self._forward(self.joint, needed, None)
            guide_logits = logits.get("guide")
            if guide_logits is not None:
                logits["guide"] = guide_logits.detach()
            if self.natural == "value":
                logits["natural"] = logits["adversarial"].detach()
            loss = total(self.terms(logits, inputs.y_student, inputs.y_guide))
            perturbation = weight_perturbation(
                loss,
                parameters,
                self.options.awp_gamma or 0.0,
                lambda gradients: self.processes.mean_of_batch(gradients, share),
            )
        with weights_perturbed(parameters, perturbation):
            yield _Perturbing(None if again else guide_logits, [loss.detach()])

    def _has_unused(self, inputs: Inputs) -> bool:
        """Whether a parameter takes no part in a step, which DDP has to know; one more forward and backward."""
        if self.processes.world == 1:
            return False
        parameters = [p for p in self.joint.parameters() if p.requires_grad]
        with buffers_kept(self.joint), preserved_randomness():
            logits = self._forward(self.joint, inputs, None)
            loss = total(self.terms(logits, inputs.y_student, inputs.y_guide))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return bool(self.processes.largest([any(gradient is None for gradient in gradients)])[0])

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """What a forward pass changes beside its output, and copies of it."""
        return [(buffer, buffer.clone()) for module in self.joint.trained() for buffer in module.buffers()]

    def _report(
        self,
        key: Key,
        x: Tensor,
        x_adv: Tensor | None,
        logits: Mapping[str, Tensor],
        terms: Terms,
        norm: Tensor,
        rows: Tensor | None,
    ) -> None:
        """Say where NaN or Inf arose; an error unless the step is to be left out."""
        places = {"x": x, **({} if x_adv is None else {"x_adv": x_adv})}
        places |= {f"{name} logits": value.detach() for name, value in logits.items()}
        places |= {f"term {name}": term.value.detach() for name, term in terms.items()}
        for name, parameter in self.joint.named_parameters():
            if parameter.grad is not None:
                places[f"gradient of {name}"] = parameter.grad
        places["norm of all gradients"] = norm.detach()
        places |= {f"weight {name}": parameter.detach() for name, parameter in self.joint.named_parameters()}
        values = {name: float(term.value.detach()) for name, term in terms.items()}
        rates = [learning_rate(optimizer) for optimizer in self.optimizers]
        message = describe(places, rows, values, rates, key.epoch, key.step + 1)
        self._skipped_in_a_row += 1
        if self.options.on_nonfinite != "skip":
            raise NonFiniteError(message)
        weights = [parameter for module in self.joint.trained() for parameter in module.parameters()]
        if self.processes.largest([not all_finite(weights)])[0]:
            raise NonFiniteError(f"{message} Weights are not finite, so leaving steps out (on_nonfinite) cannot help.")
        if self._skipped_in_a_row >= MAX_SKIPPED:
            raise NonFiniteError(f"{message} {MAX_SKIPPED} steps in a row were left out (on_nonfinite='skip').")
        logger.warning("%s The step is left out (on_nonfinite='skip').", message)


def _whole(value: Tensor) -> Tensor:
    """A share of a batch that each process reads for itself."""
    return value
