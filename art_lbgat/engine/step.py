"""The one training step that every method takes, and what it needs: the models, their inputs, the optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from art_lbgat.classifier import TensorView, naming
from art_lbgat.data import Batch
from art_lbgat.engine.adversary import Adversary
from art_lbgat.engine.averaging import Average
from art_lbgat.engine.history import Meter, StepRecord
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.perturbation import buffers_kept, perturbed_parameters, weight_perturbation, weights_perturbed
from art_lbgat.losses import IKL, Terms, total
from art_lbgat.memory import read_later, runs_ahead, to_device
from art_lbgat.preserve import Key, Modes, preserved_randomness, seed_everything
from art_lbgat.processes import Processes, Share

Logits = dict[str, Tensor]
Natural = Literal["none", "value", "graph"]
On = Literal["x", "x_adv"]
_BY_SAMPLE = ("x", "x_adv", "logits")  # the ends of the names of what has a row per sample


class NonFiniteError(FloatingPointError, ValueError):
    """NaN or Inf arose in training: the message says where, in which samples, and with which terms and rates."""


@dataclass(frozen=True)
class Passes:
    """The forward passes that a loss needs beside ``M_r(x_adv)``, and the names of their logits.

    ``"natural"`` is ``M_r(x)``, of which ``natural`` asks for nothing, the value, or the graph for gradients.
    ``"helper"`` is ``M_r(x + h (x_adv - x))``, h being ``helper_step``. ``"guide"`` is ``M_n(x)``,
    ``"guide_adversarial"`` is ``M_n(x_adv)`` of frozen guides, where ``guide`` has these inputs; so are ``"average"``
    and ``"average_adversarial"`` of the student's own average (``ema_decay``), in eval mode, and ``average``. The last
    ``robust_guides`` of the guides see x_adv instead, frozen: ``"robust_guide"``.
    """

    natural: Natural = "none"
    helper_step: float | None = None
    guide: tuple[On, ...] = ("x",)
    average: tuple[On, ...] = ()
    robust_guides: int = 0


@dataclass(frozen=True)
class Method:
    """What makes one method different from another: its loss, and which forward passes that needs.

    ``terms`` is ``(logits, y, y_guide) -> Terms``, with ``"adversarial"`` logits, and those that ``passes`` asks for.
    ``epoch_losses`` are those of its losses that learn from epochs. ``labels`` makes the labels that attack and loss
    take, from what frozen models say of x, the true ones, and the share of the run that is done.
    """

    title: str
    terms: Callable[[Mapping[str, Tensor], Tensor, Tensor], Terms]
    passes: Passes
    train_guides: bool = False
    epoch_losses: Sequence[IKL] = ()
    labels: Callable[[Mapping[str, Tensor], Tensor, float], Tensor] | None = None


class Inputs(NamedTuple):
    """What one step gives the models that it trains, preprocessed for each, and the labels of student and guides."""

    adversarial: Tensor | None
    natural: Tensor | None
    helper: Tensor | None
    guides: Sequence[Tensor]
    y: Tensor
    y_guide: Tensor


class Models(nn.Module):
    """Student and guides as one module, the only one that is ever wrapped for several processes.

    The student's forwards come first, adversarial, natural, helper, then the guides': batch-norm statistics of the
    student move in that order. ``forwards`` run the student and each guide on preprocessed inputs. Several guides are
    an ensemble, whose output is the mean of the logits.
    """

    def __init__(
        self,
        student: TensorView,
        guides: Sequence[TensorView],
        method: Method,
        modes: Sequence[Modes],
        forwards: Sequence[Callable[[Tensor], Any]],
    ) -> None:
        super().__init__()
        self.student = student.module
        self.guides = nn.ModuleList([guide.module for guide in guides])
        self._views, self._method = [student, *guides], method
        self._modes, self._forwards = list(modes), list(forwards)

    def trained(self) -> list[nn.Module]:
        """The modules whose parameters are trained."""
        return [self.student, *(self.guides if self._method.train_guides else [])]

    def attack_modes(self) -> None:
        """The student as it is attacked, and frozen guides: in eval mode, with frozen parameters."""
        for modes in self._modes[:1] if self._method.train_guides else self._modes:
            modes.evaluate()

    def train_modes(self) -> None:
        """All as they are trained; frozen guides in eval mode."""
        student, *guides = self._modes
        student.train()
        for guide in guides:
            guide.train() if self._method.train_guides else guide.evaluate()

    def inputs(self, x: Tensor, x_adv: Tensor | None, y: Tensor, make_seed: Callable[[], int]) -> Inputs:
        """Preprocess for each model, all with the same random draws where defences draw in training."""
        student, *guides = self._views
        passes, learning = self._method.passes, guides if self._method.train_guides else []
        seed = make_seed() if any(view.draws_in_training for view in (student, *learning)) else 0
        adversarial = natural = helper = None
        y_student = y_guide = y
        if x_adv is not None:
            adversarial, y_student = student.fit_inputs(x_adv, y, seed)
        if passes.natural != "none":
            # the same labels again: the defences draw from one seed
            natural, y_student = student.fit_inputs(x, y, seed)
        if passes.helper_step is not None and x_adv is not None:
            helper, _ = student.fit_inputs(x + passes.helper_step * (x_adv - x), y, seed)
        guide_inputs = []
        for guide in learning:
            inputs, y_guide = guide.fit_inputs(x, y, seed)
            guide_inputs.append(inputs)
        return Inputs(adversarial, natural, helper, guide_inputs, y_student, y_guide)

    @torch.no_grad()
    def frozen(self, x: Tensor, models: range) -> Tensor:
        """Mean logits of models in eval mode on raw inputs, without a graph; 0 is the student."""
        return _mean([self._logits(i, self._views[i].predict_inputs(x)) for i in models])

    def forward(
        self,
        adversarial: Tensor | None,
        natural: Tensor | None,
        guide_inputs: Sequence[Tensor],
        helper: Tensor | None = None,
    ) -> Logits:
        """The logits of what is trained, by their names in :class:`Passes`, of the inputs that are there."""
        outputs: Logits = {}
        grad = torch.is_grad_enabled()
        if adversarial is not None:
            outputs["adversarial"] = self._logits(0, adversarial)
        if natural is not None:
            # Without a graph where only its value counts; batch-norm statistics move all the same.
            with torch.set_grad_enabled(grad and self._method.passes.natural == "graph"):
                outputs["natural"] = self._logits(0, natural)
        if helper is not None:
            outputs["helper"] = self._logits(0, helper)
        if guide_inputs:
            with torch.set_grad_enabled(grad and self._method.train_guides):
                outputs["guide"] = _mean([self._logits(i, x) for i, x in enumerate(guide_inputs, 1)])
        return outputs

    def _logits(self, model: int, inputs: Tensor) -> Tensor:
        return self._views[model].read(self._forwards[model](inputs))


def _mean(logits: Sequence[Tensor]) -> Tensor:
    return logits[0] if len(logits) == 1 else torch.stack(list(logits)).mean(dim=0)


@dataclass(eq=False)
class Step:
    """One training step: attack, forwards, loss, backward, optimizer steps.

    ``agree`` is told, before the optimizers step, whether this process found NaN or Inf; it answers whether any
    process did.
    """

    method: Method
    models: Models
    student: TensorView
    adversary: Adversary | None
    optimizers: Sequence[torch.optim.Optimizer]
    options: RunOptions
    processes: Processes
    agree: Callable[[bool], bool]
    scaler: torch.amp.GradScaler | None = None
    average: Average | None = None

    def __post_init__(self) -> None:
        self._wrapped: Any = None
        self._unread: _Check | None = None

    def __call__(self, batch: Batch, key: Key, meter: Meter, progress: float) -> None:
        """Train on this process's share of a batch of raw natural inputs; every random number is a function of ``key``.

        ``progress`` is the share of the run at this step.

        :raises NonFiniteError: NaN or Inf arose; the weights are those of before the step. On CUDA the step before is
            meant, and the weights are spoiled: only then does it wait for nothing.
        """
        models, processes, options = self.models, self.processes, self.options
        share = batch.share or processes.share(len(batch.x))
        # A batch with a share holds this process's rows already.
        x, y = (to_device(v if batch.share else share.of(v), self.student.device) for v in (batch.x, batch.y))
        seed_everything(key.derive(self._own("step")))
        buffers = [(b, b.clone()) for m in models.trained() for b in m.buffers()] if processes.world > 1 else []

        models.attack_modes()
        known = self._frozen("x", x)
        labels = y if self.method.labels is None else self.method.labels(known, y, progress)
        if labels is not y:  # NaN is found below, among the logits; labels as good as any until then
            labels = torch.where(labels.isfinite().all(dim=1, keepdim=True), labels, 1.0 / labels.shape[1])
        x_adv = self._attack(x, labels, key, share, progress)
        if x_adv is not None:
            known |= self._frozen("x_adv", x_adv)
        models.train_modes()
        inputs = models.inputs(x, x_adv, labels, lambda: key.derive(self._own("defences")))
        if self._wrapped is None:
            self._wrapped = processes.prepared(models, self._has_unused(inputs, known))
        with self._weights_perturbed(inputs, known, key.epoch, share) as (known, losses):
            logits = self._forward(self._wrapped, inputs, known)
            if key.epoch == 1 and key.step == 0:
                check_outputs(logits, len(x))
            terms = self.method.terms(logits, inputs.y, inputs.y_guide)
            loss = total(terms)
            clear_gradients(models.trained())  # those that an attack left behind too
            weighted = processes.weighted(loss, share)
            processes.backward(weighted if self.scaler is None else self.scaler.scale(weighted))
            norm = clip_gradients(self.optimizers, options.max_grad_norm, self.scaler)
            found = [x, *([] if x_adv is None else [x_adv]), *losses, *logits.values(), loss]
            # With fp16 gradients overflow now and then; `step_optimizers` leaves such a step out.
            found = found if self.scaler is not None else [*found, norm]
            check: _Check | None = _Check(found, partial(self._where, key, x, x_adv, logits, terms, norm))
            if runs_ahead(self.student.device):
                check, self._unread = self._unread, check
            self._refuse(check, self.agree)
            step_optimizers(self.optimizers, norm, self.scaler)
        processes.average_buffers(buffers)
        if self.average is not None:
            self.average.update(progress)
        truth = inputs.y if labels is y else y
        meter.add(terms, loss, logits, truth, inputs.y_guide, share.counted)
        for each in self.method.epoch_losses:
            each.update(logits, truth, share.counted)
        if options.on_step is not None:
            options.on_step(StepRecord(key.epoch, key.step, x, y, x_adv, logits, terms, loss))

    def settle(self) -> None:
        """Look at the last step too, where that was put off.

        :raises NonFiniteError: NaN or Inf arose in it.
        """
        check, self._unread = self._unread, None
        self._refuse(check, lambda found: bool(self.processes.largest([found])[0]))

    def _refuse(self, check: _Check | None, agree: Callable[[bool], bool]) -> None:
        if agree(check is not None and check.failed()):
            raise NonFiniteError("" if check is None else check.where())

    def _own(self, purpose: str) -> str:
        """A purpose of random numbers that are this process's own, since its samples are."""
        return purpose if self.processes.is_main else f"{purpose} of process {self.processes.rank}"

    def _attack(self, x: Tensor, y: Tensor, key: Key, share: Share, progress: float) -> Tensor | None:
        if self.adversary is None:
            return None
        starts = self.adversary.starts(x, key, share)
        scaled = self.options.eps_factor(key.epoch, progress), self.options.attack_steps(progress)
        return self.adversary.examples(x, y, key, starts, *scaled, self._own("attack"))

    def _frozen(self, on: On, inputs: Tensor) -> Logits:
        """What the models that are not trained say of these raw inputs."""
        found: Logits = {}
        everyone = range(1, 1 + len(self.models.guides))
        guides = everyone[: len(everyone) - self.method.passes.robust_guides]
        if guides and not self.method.train_guides and on in self.method.passes.guide:
            found["guide" if on == "x" else "guide_adversarial"] = self.models.frozen(inputs, guides)
        if on == "x_adv" and len(guides) < len(everyone):
            found["robust_guide"] = self.models.frozen(inputs, everyone[len(guides) :])
        if self.average is not None and on in self.method.passes.average:
            with self.average.applied():
                found["average" if on == "x" else "average_adversarial"] = self.models.frozen(inputs, range(1))
        return found

    def _forward(self, models: Any, inputs: Inputs, known: Logits) -> Logits:
        """All logits; guides that learn are not run again where theirs are known."""
        guides = () if "guide" in known else inputs.guides
        return {**models(inputs.adversarial, inputs.natural, guides, inputs.helper), **known}

    @contextmanager
    def _weights_perturbed(
        self, inputs: Inputs, known: Logits, epoch: int, share: Share
    ) -> Iterator[tuple[Logits, list[Tensor]]]:
        """The student's weights moved by AWP inside the block, where it is on.

        Yields the logits that are known, with those of guides that learn, and the loss that gave the direction.

        The guide is run once, here, and its logits go into both losses: AWP moves the student only. With several
        processes a guide that learns is run again inside the block, where its gradients are those that are reduced.
        """
        if not self.options.perturbs_weights(epoch):
            yield known, []
            return
        # With weight 0, M_r(x) moves batch-norm statistics and nothing else; here even these are put back.
        needed = inputs if self.method.passes.natural == "graph" else inputs._replace(natural=None)
        parameters = perturbed_parameters(self.models.student, self.optimizers)
        again = self.processes.world > 1 and self.method.train_guides
        with buffers_kept(self.models if again else self.models.student):
            logits = self._forward(self.models, needed, known)
            if self.method.train_guides:
                known = known if again else {**known, "guide": logits["guide"]}
                logits["guide"] = logits["guide"].detach()
            if self.method.passes.natural == "value":
                logits["natural"] = logits["adversarial"].detach()
            loss = total(self.method.terms(logits, inputs.y, inputs.y_guide))
            gamma = self.options.awp_gamma or 0.0
            moves = weight_perturbation(loss, parameters, gamma, lambda g: self.processes.mean_of_batch(g, share))
        with weights_perturbed(parameters, moves):
            yield known, [loss.detach()]

    def _has_unused(self, inputs: Inputs, known: Logits) -> bool:
        """Whether a parameter takes no part in a step, which DDP has to know; one more forward and backward."""
        if self.processes.world == 1:
            return False
        parameters = [p for p in self.models.parameters() if p.requires_grad]
        with buffers_kept(self.models), preserved_randomness():
            logits = self._forward(self.models, inputs, known)
            loss = total(self.method.terms(logits, inputs.y, inputs.y_guide))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return bool(self.processes.largest([any(gradient is None for gradient in gradients)])[0])

    def _where(self, key: Key, x: Tensor, x_adv: Tensor | None, logits: Logits, terms: Terms, norm: Tensor) -> str:
        """Where NaN or Inf arose, in the order in which the step made its tensors."""
        places = {"x": x, **({} if x_adv is None else {"x_adv": x_adv})}
        places |= {f"{name} logits": value.detach() for name, value in logits.items()}
        places |= {f"term {name}": term.value.detach() for name, term in terms.items()}
        # Of an earlier step the gradients are gone, and its weights too.
        named = {} if runs_ahead(self.student.device) else dict(self.models.named_parameters())
        places |= {f"gradient of {name}": p.grad for name, p in named.items() if p.grad is not None}
        places |= {"norm of all gradients": norm.detach()}
        places |= {f"weight {name}": p.detach() for name, p in named.items()}
        values = {name: float(term.value.detach()) for name, term in terms.items()}
        return describe(places, values, self.optimizers, key.epoch, key.step + 1)


def clip_gradients(
    optimizers: Sequence[torch.optim.Optimizer], max_grad_norm: float | None, scaler: torch.amp.GradScaler | None
) -> Tensor:
    """The joint L2 norm of all gradients before clipping, not finite if and only if one of them is not."""
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.clip_grad_norm_(parameters, math.inf if max_grad_norm is None else max_grad_norm)


def step_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], norm: Tensor, scaler: torch.amp.GradScaler | None
) -> None:
    """One step of each optimizer; with fp16 of none if a gradient overflowed, so that they stay together."""
    if scaler is None:
        for optimizer in optimizers:
            kind = type(optimizer).__name__
            with naming(lambda kind=kind: f"optimizer: {kind} fails in a plain step (one a batch, no closure)."):  # type: ignore[misc]
                optimizer.step()
        return
    if bool(torch.isfinite(norm)):
        for optimizer in optimizers:
            scaler.step(optimizer)
    scaler.update()  # once, whatever the number of optimizers


def clear_gradients(modules: Sequence[nn.Module]) -> None:
    """Set the gradient of every parameter to None."""
    for module in modules:
        module.zero_grad(set_to_none=True)


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])


def check_outputs(logits: Mapping[str, Tensor], inputs: int) -> None:
    """What the first step's forwards gave: a row per sample, and one dtype."""
    dtypes = {name: str(values.dtype) for name, values in logits.items()}
    if len(set(dtypes.values())) > 1:
        raise ValueError(f"guide: its logits and those of the classifier must be of one dtype, got {dtypes}.")
    for name, values in logits.items():
        if len(values) != inputs:
            model = "guide" if "guide" in name else "classifier"
            raise ValueError(
                f"{model}: {inputs} samples gave {len(values)} {name} outputs; "
                "a preprocessing defence that changes the number of samples cannot be used here."
            )


class _Check:
    """Whether a value is NaN or Inf: one pass over each tensor at once, one read from the device when it is asked.

    A sum of finite values that overflows is asked again, value by value.
    """

    def __init__(self, values: Sequence[Tensor], where: Callable[[], str]) -> None:
        self._values, self.where = [value.detach() for value in values], where
        sums = torch.stack([value.sum(dtype=torch.float32) for value in self._values])
        self._finite = read_later(torch.isfinite(sums).all())

    def failed(self) -> bool:
        """Whether there is one."""
        return not self._finite() and not all(bool(torch.isfinite(value).all()) for value in self._values)


def all_finite(values: Sequence[Tensor]) -> bool:
    """Whether no value is NaN or Inf."""
    return not _Check(values, str).failed()


def describe(
    places: Mapping[str, Tensor],
    terms: Mapping[str, float],
    optimizers: Sequence[torch.optim.Optimizer],
    epoch: int,
    step: int,
) -> str:
    """What a user needs to find the cause of NaN or Inf: the first of ``places`` (tensors by name) is it."""
    bad = {name: value for name, value in places.items() if not bool(torch.isfinite(value).all())}
    parts = []
    for name, value in list(bad.items())[:5]:
        found = ~torch.isfinite(value)
        if value.ndim > 1 and name.endswith(_BY_SAMPLE):
            rows = found.flatten(1).any(dim=1).nonzero().flatten().tolist()
            shown = ", ".join(map(str, rows[:10])) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
            parts.append(f"{name} (rows {shown} of the batch)")
        else:
            parts.append(f"{name} ({int(found.sum())} of {value.numel()} values)" if value.ndim else name)
    parts += [f"and {len(bad) - 5} more"] if len(bad) > 5 else []
    values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
    rates = ", ".join(f"{learning_rate(optimizer):g}" for optimizer in optimizers)
    return (
        f"NaN or Inf in epoch {epoch}, step {step}: {'; '.join(parts) or 'in another process'}. Terms: "
        f"{values or 'none'}; learning rate {rates}."
    )
