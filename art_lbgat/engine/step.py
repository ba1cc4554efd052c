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
from art_lbgat.losses import Terms, total
from art_lbgat.memory import read_later, runs_ahead, to_device
from art_lbgat.preserve import Key, Modes, preserved_randomness, seed_everything
from art_lbgat.processes import Processes, Share

Logits = dict[str, Tensor]
Natural = Literal["none", "value", "graph"]
_BY_SAMPLE = ("x", "x_adv", "logits")  # the ends of the names of what has a row per sample


class NonFiniteError(FloatingPointError, ValueError):
    """NaN or Inf arose in training: the message says where, in which samples, and with which terms and rates."""


@dataclass(frozen=True)
class Method:
    """What makes one method different from another: its loss, and which forward passes that needs.

    ``terms`` is ``(logits, y, y_guide) -> Terms``, with ``"adversarial"``, ``"natural"`` and ``"guide"`` logits where
    they are asked for. ``natural`` is what it needs of ``M_r(x)``: nothing, its value, or its graph for gradients.
    """

    title: str
    terms: Callable[[Mapping[str, Tensor], Tensor, Tensor], Terms]
    natural: Natural
    train_guides: bool = False


class Inputs(NamedTuple):
    """What one step gives the models, preprocessed for each, and the labels of the student and of the guides."""

    adversarial: Tensor | None
    natural: Tensor | None
    guides: Sequence[Tensor]
    y: Tensor
    y_guide: Tensor


class Models(nn.Module):
    """Student and guides as one module, the only one that is ever wrapped for several processes.

    The student's forwards come first, adversarial before natural, then the guides': batch-norm statistics of the
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
        """The student as it is attacked: in eval mode, with frozen parameters."""
        self._modes[0].evaluate()

    def train_modes(self) -> None:
        """All as they are trained; frozen guides in eval mode."""
        student, *guides = self._modes
        student.train()
        for guide in guides:
            guide.train() if self._method.train_guides else guide.evaluate()

    def inputs(self, x: Tensor, x_adv: Tensor | None, y: Tensor, make_seed: Callable[[], int]) -> Inputs:
        """Preprocess for each model, all with the same random draws where defences draw in training."""
        student, *guides = self._views
        seed = make_seed() if any(view.draws_in_training for view in self._views) else 0
        adversarial = natural = None
        y_student = y_guide = y
        if x_adv is not None:
            adversarial, y_student = student.fit_inputs(x_adv, y, seed)
        if self._method.natural != "none":
            # the same labels again: the defences draw from one seed
            natural, y_student = student.fit_inputs(x, y, seed)
        guide_inputs = []
        for guide in guides:
            if self._method.train_guides:
                inputs, y_guide = guide.fit_inputs(x, y, seed)
            else:
                with torch.no_grad():
                    inputs = guide.predict_inputs(x)
            guide_inputs.append(inputs)
        return Inputs(adversarial, natural, guide_inputs, y_student, y_guide)

    def forward(self, adversarial: Tensor | None, natural: Tensor | None, guide_inputs: Sequence[Tensor]) -> Logits:
        """``M_r(x_adv)``, ``M_r(x)``, ``M_n(x)`` as ``"adversarial"``, ``"natural"``, ``"guide"``, with inputs."""
        outputs: Logits = {}
        grad = torch.is_grad_enabled()
        if adversarial is not None:
            outputs["adversarial"] = self._logits(0, adversarial)
        if natural is not None:
            # Without a graph where only its value counts; batch-norm statistics move all the same.
            with torch.set_grad_enabled(grad and self._method.natural == "graph"):
                outputs["natural"] = self._logits(0, natural)
        if guide_inputs:
            with torch.set_grad_enabled(grad and self._method.train_guides):
                logits = [self._logits(i, x) for i, x in enumerate(guide_inputs, 1)]
                outputs["guide"] = logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)
        return outputs

    def _logits(self, model: int, inputs: Tensor) -> Tensor:
        return self._views[model].read(self._forwards[model](inputs))


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

        x_adv = self._attack(x, y, key, share, progress)
        models.train_modes()
        inputs = models.inputs(x, x_adv, y, lambda: key.derive(self._own("defences")))
        if self._wrapped is None:
            self._wrapped = processes.prepared(models, self._has_unused(inputs))
        with self._weights_perturbed(inputs, key.epoch, share) as (guide_logits, losses):
            logits = self._forward(self._wrapped, inputs, guide_logits)
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
        meter.add(terms, loss, logits, inputs.y, inputs.y_guide, share.counted)
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
        self.models.attack_modes()
        starts = self.adversary.starts(x, key, share)
        scaled = self.options.eps_factor(key.epoch, progress), self.options.attack_steps(progress)
        return self.adversary.examples(x, y, key, starts, *scaled, self._own("attack"))

    def _forward(self, models: Any, inputs: Inputs, guide_logits: Tensor | None) -> Logits:
        """All logits; the guides are not run again where theirs are known."""
        logits: Logits = models(inputs.adversarial, inputs.natural, inputs.guides if guide_logits is None else ())
        return logits if guide_logits is None else {**logits, "guide": guide_logits}

    @contextmanager
    def _weights_perturbed(
        self, inputs: Inputs, epoch: int, share: Share
    ) -> Iterator[tuple[Tensor | None, list[Tensor]]]:
        """The student's weights moved by AWP inside the block, where it is on.

        Yields the guide's logits, if they can be used again, and the loss that gave the direction.

        The guide is run once, here, and its logits go into both losses: AWP moves the student only. With several
        processes a guide that learns is run again inside the block, where its gradients are those that are reduced.
        """
        if not self.options.perturbs_weights(epoch):
            yield None, []
            return
        # With weight 0, M_r(x) moves batch-norm statistics and nothing else; here even these are put back.
        needed = inputs if self.method.natural == "graph" else inputs._replace(natural=None)
        parameters = perturbed_parameters(self.models.student, self.optimizers)
        again = self.processes.world > 1 and self.method.train_guides
        with buffers_kept(self.models if again else self.models.student):
            logits = self._forward(self.models, needed, None)
            guide_logits = logits.get("guide")
            if guide_logits is not None:
                logits["guide"] = guide_logits.detach()
            if self.method.natural == "value":
                logits["natural"] = logits["adversarial"].detach()
            loss = total(self.method.terms(logits, inputs.y, inputs.y_guide))
            gamma = self.options.awp_gamma or 0.0
            moves = weight_perturbation(loss, parameters, gamma, lambda g: self.processes.mean_of_batch(g, share))
        with weights_perturbed(parameters, moves):
            yield None if again else guide_logits, [loss.detach()]

    def _has_unused(self, inputs: Inputs) -> bool:
        """Whether a parameter takes no part in a step, which DDP has to know; one more forward and backward."""
        if self.processes.world == 1:
            return False
        parameters = [p for p in self.models.parameters() if p.requires_grad]
        with buffers_kept(self.models), preserved_randomness():
            logits = self._forward(self.models, inputs, None)
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
            raise ValueError(
                f"{'guide' if name == 'guide' else 'classifier'}: {inputs} samples gave {len(values)} {name} outputs; "
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
