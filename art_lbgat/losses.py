"""Losses: pure functions from logits to named terms.

``M_r(x_adv)`` is ``adversarial``, ``M_r(x)`` is ``natural``, ``M_n(x)`` is ``guide``: logits of one shape ``(N, C)``.
Every function returns a dictionary from names to :class:`Term`. Gradients flow into all of these logits, on both sides
of a distance; whoever wants one side fixed detaches it. A new guidance loss is one function and one entry in
:data:`GUIDANCE`; a trainer takes any callable of that form too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from art_lbgat.checks import check_choice, check_count, check_labels, check_number

# Columns of the history that are no terms.
_RESERVED = {
    "loss", "guide_accuracy", "train_natural_accuracy", "train_robust_accuracy", "only_class", "fit", "epoch", "eps",
    "learning_rate", "guide_learning_rate", "seconds", "images_per_second", "validation_natural_accuracy",
    "validation_robust_accuracy", "selection", "collapsed", "kept", "kept_because",
}  # fmt: skip


class Term(NamedTuple):
    """One summand of a loss: ``weight * value``.

    :param value: The unweighted value, a scalar tensor.
    :param weight: Its factor in the loss; a term of weight 0 is reported, but adds nothing to the graph.
    """

    value: Tensor
    weight: float = 1.0


Terms = dict[str, Term]

#: Cross-entropy: ``(logits, y) ->`` a scalar.
CrossEntropy = Callable[[Tensor, Tensor], Tensor]
_CE: CrossEntropy = functional.cross_entropy

#: What a guidance loss must look like: ``(adversarial, guide, y) -> Terms``.
Guidance = Callable[[Tensor, Tensor, Tensor], Terms]

#: What a regularizer must look like: ``(adversarial, natural, weight=, y=) -> Terms``.
Regularizer = Callable[..., Terms]


def total(terms: Terms) -> Tensor:
    """The loss ``sum_i weight_i * value_i``, a scalar, added in the order of the dictionary.

    :param terms: The named terms; at least one has a weight other than 0.
    :raises ValueError: If every weight is 0, so that nothing would be trained.
    """
    if not isinstance(terms, dict) or not all(isinstance(term, Term) for term in terms.values()):
        kinds = {k: type(v).__name__ for k, v in terms.items()} if isinstance(terms, dict) else type(terms).__name__
        raise TypeError(f"terms: expected a dictionary from names to Term(value, weight), got {kinds}.")
    loss: Tensor | None = None
    for name, (value, weight) in terms.items():
        if not isinstance(value, Tensor) or isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"terms: expected a tensor and a number under {name!r}, got {value!r} and {weight!r}.")
        if value.ndim or not math.isfinite(weight):
            got = f"shape {tuple(value.shape)} and {weight!r}"
            raise ValueError(f"terms: expected finite scalar values and weights, got {got} under {name!r}.")
        if weight:
            part = value if weight == 1 else weight * value
            loss = part if loss is None else loss + part
    if loss is None:
        raise ValueError(f"terms: every weight is 0 in {list(terms)}; at least one must be positive.")
    return loss


def natural_cross_entropy(natural: Tensor, y: Tensor, weight: float = 1.0, loss: CrossEntropy = _CE) -> Terms:
    """``w * CE(M_r(x), y)``, batch mean: the term ``natural_ce``.

    :param natural: ``M_r(x)``, raw logits ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``.
    :param weight: ``w >= 0``.
    :param loss: ``CE``; trainers give that of the classifier, with its class weights and the like.
    """
    _check(y, weight=weight, natural=natural)
    return {"natural_ce": Term(loss(natural, y), weight)}


def adversarial_cross_entropy(adversarial: Tensor, y: Tensor, weight: float = 1.0, loss: CrossEntropy = _CE) -> Terms:
    """``w * CE(M_r(x_adv), y)``, batch mean: the term ``adversarial_ce`` (PGD-AT, arXiv 1706.06083, eq. 2.1).

    Arguments: see :func:`natural_cross_entropy`.
    """
    _check(y, weight=weight, adversarial=adversarial)
    return {"adversarial_ce": Term(loss(adversarial, y), weight)}


def boosted_cross_entropy(adversarial: Tensor, y: Tensor) -> Terms:
    """``CE(M_r(x_adv), y) - log(1 - max_{k != y} p_k(x_adv))``, batch mean (BCE of MART, OpenReview rklOg6EFwS, eq. 9).

    As in the authors' code, the margin term is ``-log(1.0001 - max_{k != y} p_k + 1e-12)``. The terms are
    ``adversarial_ce`` and ``adversarial_margin``; of probabilities as labels the largest counts.
    Arguments: see :func:`natural_cross_entropy`.
    """
    _check(y, adversarial=adversarial)
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    probabilities = functional.softmax(adversarial, dim=1)
    own = functional.one_hot(hard, adversarial.shape[1]).bool()
    others = probabilities.masked_fill(own, 0.0).amax(dim=1)
    margin = -torch.log(1.0001 - others + 1e-12).mean()
    cross_entropy = functional.cross_entropy(adversarial, hard)
    return {"adversarial_ce": Term(cross_entropy), "adversarial_margin": Term(margin)}


def rectified_labels(average: Tensor, y: Tensor, interpolation: float, temperature: float) -> Tensor:
    """``l_i p_i + (1 - l_i) y_i``, ``(N, C)``: the labels of ADR (arXiv 2305.12118, eqs. 3-5).

    ``p = softmax(M_ema(x) / T)``, and ``l_i = clip(l - (max_k p_ik - p_iy), 0, 1)``.

    :param average: ``M_ema(x)``, raw logits ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest is the class.
    :param interpolation: ``l`` in [0, 1].
    :param temperature: ``T > 0``.
    """
    _check(y, average=average)
    check_number(interpolation, "interpolation")
    check_number(temperature, "temperature", exclusive=True)
    p = functional.softmax(average / temperature, dim=1)
    hard, rows = (y, functional.one_hot(y, p.shape[1])) if y.ndim == 1 else (y.argmax(dim=1), y)
    share = (interpolation - (p.amax(dim=1) - p.gather(1, hard[:, None]).squeeze(1))).clamp(0, 1)[:, None]
    return share * p + (1 - share) * rows


def guide_cross_entropy(guide: Tensor, y: Tensor, weight: float = 1.0, loss: CrossEntropy = _CE) -> Terms:
    """``b * CE(M_n(x), y)``, batch mean: the term ``guide_ce``, which keeps the learnable guide of LBGAT a classifier.

    Arguments: see :func:`natural_cross_entropy`; ``b`` is 1 in the paper.
    """
    _check(y, weight=weight, guide=guide)
    return {"guide_ce": Term(loss(guide, y), weight)}


def helper_cross_entropy(helper: Tensor, guide: Tensor, weight: float = 0.5) -> Terms:
    """``w * CE(M_r(x_h), argmax M_n(x_adv))``, batch mean: the term ``helper_ce`` of HAT (OpenReview BuD2LmNaU3a).

    :param helper: ``M_r(x_h)`` with ``x_h = x + h (x_adv - x)``, raw logits ``(N, C)``.
    :param guide: ``M_n(x_adv)``, likewise; only its largest counts.
    :param weight: ``w >= 0``.
    """
    _check(weight=weight, helper=helper, guide=guide)
    return {"helper_ce": Term(functional.cross_entropy(helper, guide.argmax(dim=1)), weight)}


# --- guidance: how the robust model is pulled to the guide's logits (arXiv 2011.11164 and its ablation) --------------


def mse(adversarial: Tensor, guide: Tensor, y: Tensor | None = None) -> Terms:  # noqa: ARG001 (one signature)
    """``MSE(M_r(x_adv), M_n(x))``: mean over batch and classes; the term ``guidance_mse``.

    :param adversarial: ``M_r(x_adv)``, raw logits ``(N, C)``.
    :param guide: ``M_n(x)``, raw logits ``(N, C)``.
    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``; not used here: the robust model never sees one.
    """
    _check(adversarial=adversarial, guide=guide)
    return {"guidance_mse": Term(functional.mse_loss(adversarial, guide))}


def mse_ce(adversarial: Tensor, guide: Tensor, y: Tensor, loss: CrossEntropy = _CE) -> Terms:
    """``MSE(M_r(x_adv), M_n(x)) + CE(M_r(x_adv), y)``: the terms ``guidance_mse`` and ``adversarial_ce``.

    Other arguments: see :func:`mse`.

    :param loss: ``CE``; trainers give that of the classifier, with its class weights and the like.
    """
    return {**mse(adversarial, guide), **adversarial_cross_entropy(adversarial, y, loss=loss)}


def kd(adversarial: Tensor, guide: Tensor, y: Tensor, temperature: float = 4.0, weight: float = 0.1) -> Terms:
    """``(1 - b) CE(M_r(x_adv), y) + 2 b T^2 CE(softmax(M_r(x_adv) / T), softmax(M_n(x) / T))``.

    The terms are ``adversarial_ce`` and ``guidance_kd``. Other arguments: see :func:`mse`.

    :param temperature: ``T > 0``.
    :param weight: ``b`` in [0, 1].
    """
    _check(weight=weight, adversarial=adversarial, guide=guide)
    check_number(temperature, "temperature", exclusive=True)
    if weight > 1:
        raise ValueError(f"weight: expected a number in [0, 1], got {weight}.")
    terms = adversarial_cross_entropy(adversarial, y, weight=1.0 - weight)
    soft = functional.cross_entropy(adversarial / temperature, functional.softmax(guide / temperature, dim=1))
    return {**terms, "guidance_kd": Term(soft, 2.0 * weight * temperature**2)}


def kl(adversarial: Tensor, guide: Tensor, y: Tensor) -> Terms:
    """``KL(softmax M_n(x) || softmax M_r(x_adv)) + CE(M_r(x_adv), y)``: the terms ``guidance_kl``, ``adversarial_ce``.

    Arguments: see :func:`mse`.
    """
    _check(adversarial=adversarial, guide=guide)
    return {"guidance_kl": Term(_kl(guide, adversarial)), **adversarial_cross_entropy(adversarial, y)}


def nuclear(adversarial: Tensor, guide: Tensor, y: Tensor | None = None) -> Terms:  # noqa: ARG001 (one signature)
    """``||M_r(x_adv) - M_n(x)||_* / N``: the nuclear norm of the batch of differences, the term ``guidance_nuclear``.

    NuAT (Sriramanan et al., NeurIPS 2021) has it between the model's own logits. It compares samples with each other,
    so that several processes, each with the norm of its rows, do not train as one. Arguments: see :func:`mse`.
    """
    _check(adversarial=adversarial, guide=guide)
    norm = torch.linalg.matrix_norm(adversarial - guide, ord="nuc")
    return {"guidance_nuclear": Term(norm / len(guide))}


def rslad(adversarial: Tensor, guide: Tensor, y: Tensor | None = None, natural: Tensor | None = None) -> Terms:  # noqa: ARG001
    """``5/6 KL(M_t(x) || M_r(x_adv)) + 1/6 KL(M_t(x) || M_r(x))``, ``M_t`` a robust teacher (arXiv 2108.07969).

    Each KL of softmaxes is the mean over batch *and classes*, as in the authors' code (who take ten times that for 100
    classes). The terms are ``guidance_kl`` and ``guidance_natural_kl``. Other arguments: see :func:`mse`.

    :param natural: ``M_r(x)``, raw logits ``(N, C)``; without it the first term alone.
    """
    _check(adversarial=adversarial, guide=guide)
    terms = {"guidance_kl": Term(_kl(guide, adversarial) / guide.shape[1], 5 / 6)}
    if natural is not None:
        _check(natural=natural, guide=guide)
        terms["guidance_natural_kl"] = Term(_kl(guide, natural) / guide.shape[1], 1 / 6)
    return terms


def teacher_kl(adversarial: Tensor, teacher: Tensor, weight: float = 1.0) -> Terms:
    """``w * KL(softmax M_t(x_adv) || softmax M_r(x_adv))``, batch mean: the term ``teacher_kl`` of a robust teacher.

    With the model's own average as teacher it is that of ReBAT (arXiv 2310.19360).

    :param adversarial: ``M_r(x_adv)``, raw logits ``(N, C)``.
    :param teacher: ``M_t(x_adv)``, likewise.
    :param weight: ``w >= 0``.
    """
    _check(weight=weight, adversarial=adversarial, teacher=teacher)
    return {"teacher_kl": Term(_kl(teacher, adversarial), weight)}


def weighted_mse(adversarial: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """``sum_i sum_jk w_ij w_ik ((n_ij - n_ik) - (a_ij - a_ik))^2 / (4 sum_i sum_jk w_ij w_ik)``, a scalar, in O(NC).

    The distance of logits that no shift of all classes changes, classes weighted: for each sample
    ``(sum_j w_j)^2 / 2`` times the variance of ``n - a`` under the weights. With rows that sum to 1 it is a mean.

    :param adversarial: ``a``, logits ``(N, C)``.
    :param other: ``n``, likewise.
    :param weights: ``w >= 0``, ``(N, C)``, in each row at least one positive.
    """
    mass, difference = weights.sum(dim=1, keepdim=True), other - adversarial
    centred = difference - (weights * difference).sum(dim=1, keepdim=True) / mass
    return 0.5 * (mass * weights * centred.square()).sum() / mass.square().sum()


class IKL:
    """``beta * wMSE + alpha * SCE``: the improved KL divergence of arXiv 2305.13948, as guidance or regularizer.

    ``wMSE`` is :func:`weighted_mse` of ``a = M_r(x_adv)`` and ``n`` (``M_n(x)`` as guidance, ``M_r(x)`` as
    regularizer), with gradients into both; ``SCE = CE(softmax(a), softmax(n))``, batch mean, ``n`` fixed. The weights
    of a sample of class ``y`` are row ``y`` of a C x C matrix, to the power ``gamma``: uniform in the first epoch, then
    the mean of ``softmax(n / T)`` over that class in the epoch before (a class without samples keeps its row), from fit
    to fit; of probabilities as labels the mean of the rows. ``"gkl"`` is ``T = 1``, ``gamma = 0.2`` (arXiv 2503.08038).
    The terms are ``guidance_wmse`` and ``guidance_sce``, as regularizer ``ikl_wmse`` and ``ikl_sce``.

    The training loop calls ``update`` with the logits of each step by name, its labels, and whether its rows count;
    ``end_epoch``; and for checkpoints ``state`` and ``load``, where sums count in one process. ``total`` sums a tensor
    over all processes, which all call it. A subclass may learn other things from an epoch.

    :param alpha: Weight of ``SCE``.
    :param beta: Weight of ``wMSE``.
    :param temperature: ``T > 0``.
    :param gamma: Power of the weights, > 0.
    :param of: What ``n`` is.
    """

    def __init__(
        self,
        alpha: float = 4.0,
        beta: float = 20.0,
        temperature: float = 4.0,
        gamma: float = 1.0,
        of: Literal["guide", "natural"] = "guide",
    ) -> None:
        self.alpha, self.beta = check_number(alpha, "alpha"), check_number(beta, "beta")
        self.temperature = check_number(temperature, "temperature", exclusive=True)
        self.gamma = check_number(gamma, "gamma", exclusive=True)
        self.of = check_choice(of, "of", ("guide", "natural"))
        self._tensors: dict[str, Tensor] = {}  # "weights" in force, and "sums" over this epoch

    def __call__(self, adversarial: Tensor, other: Tensor, y: Tensor, weight: float = 1.0) -> Terms:
        """Both terms, times ``weight``; see :func:`mse`, where ``other`` is ``guide``."""
        _check(y, weight=weight, adversarial=adversarial, **{self.of: other})
        matrix = self._tensors.get("weights", self._uniform(other))
        weights = matrix[y] if y.ndim == 1 else y.to(matrix) @ matrix
        wmse = weighted_mse(adversarial, other, weights**self.gamma)
        sce = functional.cross_entropy(adversarial, functional.softmax(other, dim=1).detach())
        name = "guidance" if self.of == "guide" else "ikl"
        return {f"{name}_wmse": Term(wmse, weight * self.beta), f"{name}_sce": Term(sce, weight * self.alpha)}

    def update(self, logits: Mapping[str, Tensor], y: Tensor, counted: bool = True) -> None:
        """Take in a step; see :class:`IKL`."""
        p = functional.softmax(logits[self.of].detach() / self.temperature, dim=1)
        classes = functional.one_hot(y, p.shape[1]) if y.ndim == 1 else y
        sums = classes.to(p).T @ p * counted
        self._tensors["sums"] = self._tensors["sums"] + sums if "sums" in self._tensors else sums

    def end_epoch(self, total: Callable[[Tensor], Tensor]) -> None:
        """Make the weights of the next epoch; see :class:`IKL`."""
        sums = total(self._tensors.pop("sums"))
        before = self._tensors.get("weights", self._uniform(sums))
        samples = sums.sum(dim=1, keepdim=True)
        self._tensors["weights"] = torch.where(samples > 0, sums / samples, before)

    def state(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """What :meth:`load` takes; see :class:`IKL`."""
        return {name: total(value) if name == "sums" else value for name, value in self._tensors.items()}

    def load(self, state: Mapping[str, Tensor], device: torch.device, counted: bool = True) -> None:
        """Go on from a state; see :class:`IKL`."""
        found = {name: value.to(device) for name, value in state.items()}
        self._tensors = {name: value * counted if name == "sums" else value for name, value in found.items()}

    @staticmethod
    def _uniform(like: Tensor) -> Tensor:
        classes = like.shape[1]
        return like.new_full((classes, classes), 1 / classes)


#: Every guidance loss by name; each trainer takes a copy, with a state of its own.
GUIDANCE: dict[str, Guidance] = {
    "mse": mse,
    "mse+ce": mse_ce,
    "kd": kd,
    "kl": kl,
    "ikl": IKL(),
    "gkl": IKL(temperature=1.0, gamma=0.2),
    "nuclear": nuclear,
    "rslad": rslad,
}


def with_rms(logits: Tensor, rms: float) -> Tensor:
    """Logits of each sample centred, and scaled so that their root mean square over the classes is ``rms``.

    Neither changes a prediction. A model trained on natural images alone has logits so large that their MSE outweighs
    every other term.

    :param logits: ``(N, C)``.
    :param rms: The root mean square, > 0.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred * (rms / centred.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-12))


# --- regularizers: how far the robust model's own answers on x_adv and x may lie apart -------------------------------


def alp(adversarial: Tensor, natural: Tensor, weight: float = 1.0, y: Tensor | None = None) -> Terms:  # noqa: ARG001
    """``a * MSE(M_r(x_adv), M_r(x))``: adversarial logit pairing, the term ``alp`` (arXiv 1803.06373).

    Arguments: see :func:`mse`; here ``natural`` is ``M_r(x)`` and ``weight`` is ``a >= 0``.
    """
    _check(weight=weight, adversarial=adversarial, natural=natural)
    return {"alp": Term(functional.mse_loss(adversarial, natural), weight)}


def trades(adversarial: Tensor, natural: Tensor, weight: float = 6.0, y: Tensor | None = None) -> Terms:  # noqa: ARG001
    """``a * KL(softmax M_r(x) || softmax M_r(x_adv))``: the term ``trades_kl`` (arXiv 1901.08573, eq. 5, a = 1/lambda).

    Arguments: see :func:`alp`.
    """
    _check(weight=weight, adversarial=adversarial, natural=natural)
    return {"trades_kl": Term(_kl(natural, adversarial), weight)}


def mart(adversarial: Tensor, natural: Tensor, y: Tensor, weight: float = 5.0) -> Terms:
    """``a * mean(KL(p(x) || p(x_adv)) * (1 - p_y(x)))``: the term ``mart_kl``, weighted by how unsure the model is.

    With the small constants of the authors' code; the gradient flows through the weights too (OpenReview rklOg6EFwS,
    eq. 11). Other arguments: see :func:`alp`.

    :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``, of which the largest counts.
    :param weight: ``a >= 0``: lambda of the paper, ``--beta`` of its code.
    """
    _check(y, weight=weight, adversarial=adversarial, natural=natural)
    hard = y if y.ndim == 1 else y.argmax(dim=1)
    p_adversarial, p_natural = functional.softmax(adversarial, dim=1), functional.softmax(natural, dim=1)
    # By log_softmax, not the logarithm of p_natural: where a probability is 0 in fp32, its gradient would be NaN.
    difference = functional.log_softmax(natural, dim=1) - torch.log(p_adversarial + 1e-12)
    divergence = (p_natural * difference).sum(dim=1)
    unsure = 1.0000001 - p_natural.gather(1, hard[:, None]).squeeze(1)
    return {"mart_kl": Term((divergence * unsure).mean(), weight)}


#: Every regularizer by name, as :data:`GUIDANCE`.
REGULARIZERS: dict[str, Regularizer] = {
    "alp": alp,
    "trades": trades,
    "ikl": IKL(of="natural"),
    "gkl": IKL(temperature=1.0, gamma=0.2, of="natural"),
}


def on_probabilities(loss: Any) -> bool:
    """Whether a guidance loss or a regularizer depends on ``softmax(logits)`` alone.

    :param loss: The loss.
    """
    return isinstance(loss, IKL) or loss in (kd, kl, rslad, trades)


def _kl(of: Tensor, to: Tensor) -> Tensor:
    """``KL(softmax of || softmax to)``, batch mean."""
    return functional.kl_div(functional.log_softmax(to, dim=1), functional.softmax(of, dim=1), reduction="batchmean")


def check_guidance(guidance: Any, nb_classes: int, device: torch.device) -> None:
    """Call a guidance loss once on small logits, so that a wrong one is refused before training.

    :param guidance: A callable ``(adversarial, guide, y) -> Terms``.
    :param nb_classes: ``C``.
    :param device: Where the logits will be.
    """
    check_count(nb_classes, "nb_classes", minimum=2)
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"device: expected a device such as 'cpu', got {device!r}.") from error
    adversarial, guide = torch.linspace(-1, 1, 4 * nb_classes, device=device).reshape(2, 2, nb_classes)
    adversarial.requires_grad_()
    y = torch.arange(2, device=device) % nb_classes
    try:
        with torch.enable_grad():
            terms = guidance(adversarial, guide, y)
    except Exception as error:
        raise TypeError(
            f"guidance: expected a callable (adversarial, guide, y) -> Terms; with logits of shape (2, {nb_classes}) "
            f"and labels (2,) it raised {type(error).__name__}: {error}"
        ) from error
    try:
        loss = total(terms)
    except (TypeError, ValueError) as error:
        raise type(error)(f"guidance: {str(error).removeprefix('terms: ')}") from error
    if taken := sorted(_RESERVED.intersection(terms)):
        raise ValueError(f"guidance: a term must not be named {taken}, which the history uses for something else.")
    if not all(bool(value.isfinite()) for value, _ in terms.values()):
        raise ValueError(f"guidance: expected finite scalar values and weights, got {terms}.")
    if not loss.requires_grad:
        raise ValueError(f"guidance: none of its terms {list(terms)} depends on adversarial; nothing would be learnt.")


def _check(*labels: Any, weight: Any = 1.0, **logits: Any) -> None:
    """Types and shapes always; the values of labels only where looking at them waits for no device."""
    (of, first), *_ = logits.items()
    for name, value in logits.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name}: expected a tensor of logits (N, C), floats, got {_kind(value)}.")
        if value.ndim != 2 or value.numel() == 0:
            raise ValueError(f"{name}: expected logits (N, C), at least one row, got shape {tuple(value.shape)}.")
        if value.shape != first.shape:
            raise ValueError(f"{name}: expected shape {tuple(first.shape)} as {of} has, got {tuple(value.shape)}.")
    for y in labels:
        _check_labels(y, first, of)
    check_number(weight, "weight")


def _check_labels(y: Any, logits: Tensor, of: str) -> None:
    rows, classes = logits.shape
    expected = f"indices ({rows},) as int64 or rows {(rows, classes)} as floats, as {of} has"
    if not isinstance(y, Tensor) or (y.dtype != torch.int64 if y.ndim == 1 else not y.is_floating_point()):
        raise TypeError(f"y: expected {expected}, got {_kind(y)}.")
    if y.shape != ((rows,) if y.ndim == 1 else (rows, classes)):
        raise ValueError(f"y: expected {expected}, got shape {tuple(y.shape)}.")
    if y.device.type == "cpu":
        check_labels(y, classes)


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
