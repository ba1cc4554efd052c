"""Projected gradient ascent on tensors: the losses, the one loop, and the two attacks that run in it.

x_0 = start(x);   x_{t+1} = project(x_t + eps_step * direction(grad_x loss(M(x_t))))

A new attack loss is one function ``(logits, target) -> (N,)`` and one entry in :data:`ATTACK_LOSSES`, which
``PGDAttack(objective=...)`` and ``Ascent(objective=...)`` then take by its name. A new attack is a subclass of
:class:`TensorAttack` that says with ``ascent()`` what is run.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators import BaseEstimator, LossGradientsMixin
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from art_lbgat import checks
from art_lbgat.attacks import projections
from art_lbgat.attacks.projections import Bounds, Radius
from art_lbgat.classifier import TensorView
from art_lbgat.preserve import evaluating, plain_autograd


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``CE(M(x_adv), y)`` per sample; labels are indices ``(N,)`` or probabilities ``(N, C)``."""
    return functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``max_{j != y} M(x_adv)_j - M(x_adv)_y`` per sample: positive where the sample is misclassified.

    The margin loss of Carlini and Wagner (arXiv 1608.04644, f_6 on logits, confidence not clipped), as PGD ascends it;
    of probabilities ``(N, C)`` the largest counts.
    """
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    own = functional.one_hot(hard, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return others - logits.gather(1, hard[:, None]).squeeze(1)


def kl_to_natural(logits: Tensor, natural: Tensor) -> Tensor:
    """``KL(softmax M(x) || softmax M(x_adv))`` per sample; ``natural = softmax M(x)`` is fixed (arXiv 1901.08573)."""
    return functional.kl_div(functional.log_softmax(logits, dim=1), natural, reduction="none").sum(dim=1)


class AttackLoss(NamedTuple):
    """What an attack ascends.

    :param loss: ``(logits, target) -> (N,)``: the loss of each sample, differentiable in the logits ``(N, C)``.
    :param target: ``"labels"``, or ``"natural"``: ``softmax M(x)``, which costs one forward pass.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    target: Literal["labels", "natural"] = "labels"


#: Every attack loss by the name that ``objective`` takes.
ATTACK_LOSSES: dict[str, AttackLoss] = {
    "ce": AttackLoss(cross_entropy),
    "cw": AttackLoss(margin),
    "kl": AttackLoss(kl_to_natural, target="natural"),
}


@dataclass(frozen=True)
class Ascent:
    """A projected gradient ascent: all that the loop needs to know but the model.

    :param norm: ``math.inf`` (or ``"inf"``), 1 or 2.
    :param eps: Radius of the ball, in raw input units; a float, or one per sample, ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, likewise.
    :param max_iter: Number of steps; 0 returns the start.
    :param objective: A name in :data:`ATTACK_LOSSES`: ``"ce"`` (cross-entropy with the labels), ``"cw"`` (the margin)
        or ``"kl"`` (KL to the fixed natural prediction); or ``"estimator"`` (the loss object of the ART classifier, for
        attacks read from ART).
    :param start: ``"none"``, ``"uniform"`` (in the ball, then clipped to the range) or ``"gaussian"``
        (``x + start_std * N(0, 1)``, neither clipped nor projected, as in the TRADES code).
    :param start_std: Standard deviation of the Gaussian start, in raw input units.
    :param restarts: How many starts; for each sample the point of highest loss is kept.
    :param rule: Order of rounding, see :mod:`art_lbgat.attacks.projections`.
    :param targeted: Whether the labels are those to reach, whose loss is descended.
    :param noise: Start uniformly in ``noise * eps`` instead, and do not project onto the ball, only to the range
        (N-FGSM); None does not.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range. Radii that are given per sample are checked by the attacks.
    """

    norm: float
    eps: Radius
    eps_step: Radius
    max_iter: int
    objective: str = "ce"
    start: Literal["none", "uniform", "gaussian"] = "uniform"
    start_std: float = 0.0
    restarts: int = 1
    rule: Literal["published", "art"] = "published"
    targeted: bool = False
    noise: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", checks.check_norm(self.norm, (1, 2)))
        for name, radius in (("eps", self.eps), ("eps_step", self.eps_step)):
            if isinstance(radius, Tensor):  # its values are not looked at, which would wait for its device
                if radius.ndim == 0 or radius.numel() != len(radius):
                    shape = tuple(radius.shape)
                    raise ValueError(f"{name}: expected one number per sample, (N, 1, ..., 1), got shape {shape}.")
            elif radius != math.inf:  # which ART allows
                checks.check_number(radius, name)
        checks.check_count(self.max_iter, "max_iter", minimum=0)
        checks.check_choice(self.objective, "objective", (*ATTACK_LOSSES, "estimator"))
        checks.check_choice(self.start, "start", ("none", "uniform", "gaussian"))
        checks.check_number(self.start_std, "start_std")
        checks.check_count(self.restarts, "restarts")
        checks.check_choice(self.rule, "rule", ("published", "art"))
        checks.check_optional(checks.check_number, self.noise, "noise", exclusive=True)
        if checks.check_flag(self.targeted, "targeted") and self.needs_natural:
            raise ValueError(f"targeted: expected False for {self.objective!r}, which takes no labels, got True.")

    @property
    def needs_natural(self) -> bool:
        """Whether the natural prediction is the target of the loss, and the labels are not used."""
        return self.objective != "estimator" and ATTACK_LOSSES[self.objective].target == "natural"

    def scaled(self, factor: float) -> Ascent:
        """The same ascent in a ball of ``factor * eps``, with steps of ``factor * eps_step`` (eps warm-up).

        :param factor: The share of the full radius.
        """
        return self if factor == 1 else replace(self, eps=self.eps * factor, eps_step=self.eps_step * factor)

    def rows(self, rows: slice | Tensor, length: int) -> Ascent:
        """The same ascent for some of ``length`` samples: radii that are given per sample are taken for these.

        :param rows: Which samples, as an index.
        :param length: How many samples there are in all.
        :raises ValueError: If there are not ``length`` radii.
        """

        def part(radius: Radius, name: str) -> Radius:
            if not isinstance(radius, Tensor):
                return radius
            if len(radius) != length:
                raise ValueError(f"{name}: expected one number, or {length}, one per sample, got {len(radius)}.")
            return radius[rows]

        return replace(self, eps=part(self.eps, "eps"), eps_step=part(self.eps_step, "eps_step"))

    def forwards(self) -> int:
        """Forward passes of :func:`ascend`: the natural prediction, one per step, one per start to compare several."""
        compared = self.restarts if self.restarts > 1 else 0
        return self.needs_natural + self.restarts * self.max_iter + compared

    def backwards(self) -> int:
        """Backward passes to the input of one call of :func:`ascend`."""
        return self.restarts * self.max_iter


def draw_start(ascent: Ascent, x: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
    """The unit random numbers of one start, on the device of ``x``; None where the start is ``x`` itself.

    They are drawn where ``generator`` is, or by torch's global one of the CPU; of ``x`` only shape, dtype and device
    count.
    """
    if ascent.start == "none":
        return None
    if ascent.start == "gaussian":
        place = projections.place_of(generator)
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=place).to(x.device)
    return projections.unit_uniform(x, ascent.norm, generator).to(x.device)


def ascend(
    ascent: Ascent,
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor | None,
    bounds: Bounds,
    starts: list[Tensor | None],
    estimator_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Adversarial examples of ``x``, the shape and dtype of ``x``, without a graph.

    The model must be in eval mode with frozen parameters (see :func:`art_lbgat.preserve.evaluating`); nothing but
    the gradient of the loss in ``x_adv`` is computed, and the natural prediction once, without a graph.

    :param ascent: What to run.
    :param logits: ``x -> M(x)``, differentiable, ``(N, ...) -> (N, C)``.
    :param x: Natural inputs, ``(N, ...)``, inside ``bounds``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``; None takes the model's predictions.
    :param bounds: Lowest and highest valid inputs, or None.
    :param starts: For each start its unit random numbers, from :func:`draw_start`.
    :param estimator_loss: The loss object for ``objective="estimator"``.
    """
    x = x.detach()
    eps, eps_step = (r.to(x.device) if isinstance(r, Tensor) else r for r in (ascent.eps, ascent.eps_step))
    ball, reach = (eps, eps) if ascent.noise is None else (math.inf, ascent.noise * eps)
    step = projections.make_step(ascent.rule, ascent.norm, ball, eps_step, x, bounds)
    loss, target = _loss(ascent, y, estimator_loss), y
    if ascent.needs_natural or target is None:
        with torch.no_grad():
            natural = logits(x)
            target = torch.softmax(natural, dim=1) if ascent.needs_natural else natural.argmax(dim=1)

    best, best_loss = x, None
    for unit in starts:
        if unit is None:
            x_adv = x.clone()
        elif ascent.start == "gaussian":
            x_adv = x + ascent.start_std * unit
        else:
            x_adv = projections.clip(x + reach * unit, bounds)

        for _ in range(ascent.max_iter):
            with torch.enable_grad():
                value = loss(logits(x_adv.requires_grad_(True)), target).sum()
                gradients = torch.autograd.grad(value, x_adv, allow_unused=True) if value.requires_grad else ()
                if not gradients or gradients[0] is None:
                    raise ValueError(
                        "estimator: its logits have no graph to its inputs (detached, quantised, or of whole numbers), "
                        "which gradient attacks follow."
                    )
                (gradient,) = gradients
            x_adv = step(x_adv.detach(), gradient)

        if len(starts) == 1:
            return x_adv
        with torch.no_grad():
            reached = loss(logits(x_adv), target)
        if best_loss is None:
            best, best_loss = x_adv, reached
        else:
            better = (reached > best_loss).reshape(-1, *[1] * (x.ndim - 1))
            best, best_loss = torch.where(better, x_adv, best), torch.maximum(best_loss, reached)
    return best


def _loss(
    ascent: Ascent, y: Tensor | None, estimator_loss: Callable[[Tensor, Tensor], Tensor] | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """What is ascended: the loss, or with ``targeted`` its negative."""
    loss = estimator_loss if ascent.objective == "estimator" else ATTACK_LOSSES[ascent.objective].loss
    if loss is None:
        raise ValueError("estimator_loss: this attack needs it, got None.")
    if ascent.targeted and y is None:
        raise ValueError("y: expected the labels to reach, for targeted=True, got None.")
    return (lambda logits, target: -loss(logits, target)) if ascent.targeted else loss


class TensorAttack(EvasionAttack):
    """Base of the attacks whose whole loop stays on tensors; for the arguments see :class:`PGDAttack`.

    A subclass says with :meth:`ascent` what is run, and ends its ``__init__`` with ``self._check_params()``. Trainers
    run that in their own loop, unless the subclass has a ``generate`` or ``perturb`` of its own. The model is unchanged
    afterwards: modes, ``requires_grad``, BatchNorm buffers; random starts come from torch's global generator.
    """

    attack_params: ClassVar[list[str]] = [
        *EvasionAttack.attack_params, "norm", "eps", "eps_step", "max_iter", "batch_size", "verbose",
    ]  # fmt: skip
    _estimator_requirements = (BaseEstimator, LossGradientsMixin, PyTorchClassifier)
    random_eps = False

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str,
        eps: float | NDArray[Any],
        eps_step: float | NDArray[Any],
        max_iter: int,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> None:
        super().__init__(estimator=estimator)
        self.norm, self.eps, self.eps_step, self.max_iter = norm, eps, eps_step, max_iter
        self.batch_size, self.verbose = batch_size, verbose
        self._view = TensorView(estimator, "estimator")

    @abc.abstractmethod
    def ascent(self) -> Ascent:
        """What is run. A subclass returns ``replace(super().ascent(), objective=..., ...)``."""
        axes = 1 + len(self.estimator.input_shape)
        eps = projections.read_radius(self.eps, "eps", axes)
        eps_step = projections.read_radius(self.eps_step, "eps_step", axes, exclusive=True)
        if isinstance(eps, Tensor) and isinstance(eps_step, Tensor) and len(eps) != len(eps_step):
            raise ValueError(f"eps_step: expected as many numbers as eps, {len(eps)}, got {len(eps_step)}.")
        return Ascent(checks.check_norm(self.norm, (1, 2)), eps, eps_step, self.max_iter, targeted=self.targeted)

    def _drawn(self, generator: torch.Generator | None = None) -> Ascent:
        """What one call runs: with ``random_eps`` in a share of the ball from N(0, 1/2), truncated to [0, 1]."""
        share = torch.nn.init.trunc_normal_(torch.ones(()), 0, 0.5, 0, 1, generator) if self.random_eps else 1.0
        return self.ascent().scaled(float(share))

    def generate(
        self, x: NDArray[Any], y: NDArray[Any] | None = None, mask: NDArray[Any] | None = None, **kwargs: Any
    ) -> NDArray[np.float32]:
        """Adversarial examples of ``x``, in chunks of ``batch_size``, from starts that do not depend on that size.

        :param x: Natural inputs, ``(N, *input_shape)``, inside ``clip_values``.
        :param y: Labels, indices ``(N,)`` or rows ``(N, C)``; None takes the model's predictions, as ART does.
        :param mask: 1 where ``x`` may change, 0 where not; it broadcasts to ``x``.
        :return: ``x_adv``, float32, the shape of ``x``.
        :raises ValueError: Bad ``x`` or ``y``, or not one ``eps`` per sample.
        :raises TypeError: No numbers; any keyword, as this attack takes none.
        """
        if kwargs:
            raise TypeError(f"{type(self).__name__}.generate takes no keyword {sorted(kwargs)}.")
        view = self._view
        view.refresh()
        with plain_autograd(view.device), evaluating(view.module):
            inputs = torch.from_numpy(checks.check_inputs(x, self.estimator).astype(np.float32, order="C"))
            labels = None if y is None else checks.check_labels(y, self.estimator.nb_classes, length=len(inputs))
            ascent, free = self._drawn(), None if mask is None else _free(mask, inputs.shape)
            starts = [draw_start(ascent, inputs) for _ in range(ascent.restarts)]
            starts = [unit if unit is None or free is None else unit * free for unit in starts]
            result = torch.empty_like(inputs)
            chunks = range(0, len(inputs), self.batch_size)
            for first in tqdm(chunks, desc=type(self).__name__, leave=False, disable=not self.verbose):
                rows = slice(first, first + self.batch_size)
                chunk = inputs[rows].to(view.device)
                target = None if labels is None else torch.from_numpy(labels[rows]).to(view.device)
                units = [None if unit is None else unit[rows].to(view.device) for unit in starts]
                part = ascent.rows(rows, len(inputs))

                def logits(x_adv: Tensor, chunk: Tensor = chunk, rows: slice = rows) -> Tensor:
                    kept = None if free is None else free[rows].to(view.device)
                    return view.logits(x_adv if kept is None else torch.where(kept, x_adv, chunk))

                result[rows] = ascend(part, logits, chunk, target, view.bounds(), units).cpu()
        return result.numpy()

    def perturb(self, x: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """:meth:`generate` of one batch, on tensors of the classifier's device, without a graph.

        Other arguments and errors: see :meth:`generate`.

        :param generator: A CPU generator for the random start; None draws from torch's global one.
        """
        x, y = self._check_tensors(x, y, generator)
        ascent = self._drawn(generator)
        view = self._view
        view.refresh()
        with plain_autograd(view.device), evaluating(view.module):
            x = x.clone() if x.is_inference() else x  # autograd refuses tensors of inference mode
            y = y.clone() if y is not None and y.is_inference() else y
            starts = [draw_start(ascent, x, generator) for _ in range(ascent.restarts)]
            return ascend(ascent.rows(slice(None), len(x)), view.logits, x, y, view.bounds(), starts)

    def _check_tensors(self, x: Any, y: Any, generator: Any) -> tuple[Tensor, Any]:
        """Inputs and labels as they were; or clipped, where rounding is outside, and as indices, where ``(N, 1)``."""
        for name, value, kind in (("x", x, Tensor), ("y", y, Tensor), ("generator", generator, torch.Generator)):
            if value is not None or name == "x":
                checks.check_kind(value, name, kind)
        if x.dtype != torch.float32:
            raise TypeError(f"x: expected float32, got {x.dtype}.")
        x = self._view.taken(x, "x")
        if y is None:
            return x, None
        checks.check_labels(y, self.estimator.nb_classes, length=len(x))
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.ndim == 1 and y.dtype != torch.int64:
            raise TypeError(f"y: expected indices as int64, got {y.dtype}.")
        return x, y

    def _check_params(self) -> None:
        checks.check_count(self.batch_size, "batch_size")
        checks.check_flag(self.verbose, "verbose")
        projections.check_scale(self.eps, self.ascent().norm, self._view)  # ``ascent`` checks all the rest


def _free(mask: Any, shape: torch.Size) -> Tensor:
    """A mask of zeros and ones as bools of a shape."""
    array, sizes = checks.as_array(mask, "mask"), tuple(shape)
    fits = array.ndim <= len(sizes) and all(n in (1, m) for n, m in zip(array.shape[::-1], sizes[::-1], strict=False))
    if not fits or not np.isin(array, (0, 1)).all():
        raise ValueError(f"mask: expected zeros and ones that broadcast to {sizes}, got shape {array.shape}.")
    return torch.from_numpy(array.astype(bool)).expand(shape)


class PGDAttack(TensorAttack):
    r"""PGD: ``x <- clip(project(x + eps_step * direction(grad_x loss(M(x), y))))``, the loss being the cross-entropy.

    ``direction`` is the sign (Linf), the gradient over its length (L2) or the sign of its largest value alone (L1); the
    start is uniform in the ball around the natural input, clipped to ``clip_values``; gradients pass through the
    classifier's preprocessing. Source: Madry et al., arXiv 1706.06083; interface of ART's ``ProjectedGradientDescent``.
    Unlike there, several restarts keep the point of highest loss per sample.

    :param estimator: The classifier to attack.
    :param norm: ``np.inf`` (or ``"inf"``), 1 or 2.
    :param eps: Radius of the ball, in raw input units, >= 0; a number, or (outside training) one per sample, of shape
        ``(N,)`` or ``(N, 1, ..., 1)``.
    :param eps_step: Length of a step, in raw input units, > 0; likewise.
    :param max_iter: Number of steps.
    :param num_random_init: 0 starts at the natural input, once; n >= 1 makes n random starts.
    :param objective: What is ascended, a name in ``ATTACK_LOSSES``: ``"ce"`` (cross-entropy), ``"cw"`` (the margin
        ``max_{j != y} M(x)_j - M(x)_y``) or ``"kl"`` (KL to the fixed natural prediction; labels are not used).
    :param batch_size: Chunk of ``generate``; changes at most the rounding of a logit.
    :param verbose: Show a progress bar in ``generate``.
    :param targeted: Whether ``y`` holds the labels to reach; not in training.
    :param random_eps: Take in each call a share of ``eps`` and ``eps_step`` from N(0, 1/2) in [0, 1], as ART does.
    :raises TypeError: An argument, or the estimator, of the wrong type.
    :raises ValueError: An argument outside its range.
    """

    attack_params: ClassVar[list[str]] = [
        *TensorAttack.attack_params, "num_random_init", "objective", "targeted", "random_eps",
    ]  # fmt: skip

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float | NDArray[Any] = 0.031,
        eps_step: float | NDArray[Any] = 0.007,
        max_iter: int = 10,
        num_random_init: int = 1,
        objective: str = "ce",
        batch_size: int = 128,
        verbose: bool = False,
        targeted: bool = False,
        random_eps: bool = False,
    ) -> None:
        super().__init__(estimator, norm, eps, eps_step, max_iter, batch_size, verbose)
        self.num_random_init, self.objective = num_random_init, objective
        self.targeted, self.random_eps = targeted, random_eps
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        start: Literal["uniform", "none"] = "uniform" if self.num_random_init else "none"
        return replace(super().ascent(), objective=self.objective, start=start, restarts=max(1, self.num_random_init))

    def _check_params(self) -> None:
        checks.check_count(self.num_random_init, "num_random_init", minimum=0)
        checks.check_choice(self.objective, "objective", ATTACK_LOSSES)
        checks.check_flag(self.random_eps, "random_eps")
        if ATTACK_LOSSES[self.objective].target == "natural" and self.num_random_init == 0:
            raise ValueError(
                f"num_random_init: expected >= 1 for objective {self.objective!r}, whose gradient is 0 at x itself, "
                "got 0."
            )
        super()._check_params()


class TRADESAttack(TensorAttack):
    """``x <- clip(project(x + eps_step * direction(grad_x KL(softmax M(x_0) || softmax M(x)))))``.

    The natural prediction ``M(x_0)`` is fixed: computed once, in eval mode, without a graph. The start is
    ``x_0 + start_std * N(0, 1)``, neither clipped nor projected before the first step. Labels are not used. Source:
    Zhang et al., arXiv 1901.08573, as in their code and in that of LBGAT.

    :param start_std: Standard deviation of the start, in raw input units; None is 0.001 of the range of
        ``clip_values`` (0.001 for inputs in [0, 1]).
    :param num_random_init: Number of starts, >= 1 (at ``x_0`` itself the gradient is 0); of several, the point of
        highest KL is kept for each sample.

    For the other arguments and the errors see :class:`PGDAttack`; eps is 0.031 in the papers, not 8/255.
    """

    attack_params: ClassVar[list[str]] = [*TensorAttack.attack_params, "start_std", "num_random_init"]

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float | NDArray[Any] = 0.031,
        eps_step: float | NDArray[Any] = 0.007,
        max_iter: int = 10,
        start_std: float | None = None,
        num_random_init: int = 1,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> None:
        super().__init__(estimator, norm, eps, eps_step, max_iter, batch_size, verbose)
        self.start_std = 0.001 * self._view.value_range() if start_std is None else start_std
        self.num_random_init = num_random_init
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        base, restarts = super().ascent(), self.num_random_init
        return replace(base, objective="kl", start="gaussian", start_std=self.start_std, restarts=restarts)

    def _check_params(self) -> None:
        checks.check_count(self.num_random_init, "num_random_init")
        super()._check_params()


class NFGSMAttack(TensorAttack):
    """``x <- clip(x + noise * eps * U(-1, 1))``, then one step ``clip(x + eps_step * sign(grad_x CE(M(x), y)))``.

    An attack to train with, and not to judge by: its examples leave the ball of ``eps`` by design, up to
    ``noise * eps + eps_step``, within ``clip_values``. Source: N-FGSM, de Jorge et al., NeurIPS 2022, arXiv 2202.01181.

    :param eps_step: Length of the step, in raw input units; None is ``eps``.
    :param noise: The start in units of ``eps``, > 0.

    For the other arguments and the errors see :class:`PGDAttack`.
    """

    attack_params: ClassVar[list[str]] = [*TensorAttack.attack_params, "noise"]

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str = math.inf,
        eps: float = 8 / 255,
        eps_step: float | None = None,
        max_iter: int = 1,
        noise: float = 2.0,
        batch_size: int = 128,
        verbose: bool = False,
    ) -> None:
        super().__init__(estimator, norm, eps, eps if eps_step is None else eps_step, max_iter, batch_size, verbose)
        self.noise = noise
        self._check_params()

    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""
        return replace(super().ascent(), noise=checks.check_number(self.noise, "noise", exclusive=True))
