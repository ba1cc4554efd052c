"""Boundary guided adversarial training, arXiv 2011.11164: with a frozen guide (BGAT), with one that learns (LBGAT).

And what else a natural guide is good for: HAT.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, softmax

from art_lbgat.checks import check_choice, check_number
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.step import Passes
from art_lbgat.losses import (
    GUIDANCE,
    IKL,
    REGULARIZERS,
    Guidance,
    Terms,
    check_guidance,
    guide_cross_entropy,
    helper_cross_entropy,
    mse_ce,
    natural_cross_entropy,
    on_probabilities,
    rslad,
    teacher_kl,
    trades,
    with_rms,
)
from art_lbgat.trainers.base import AttackKind, BaseTrainer


class GuidedTrainer(BaseTrainer):
    """``guidance(M_r(x_adv), M_n(x)) + a * regularizer(M_r(x_adv), M_r(x))``; see its two subclasses."""

    takes_guide = True
    #: What is meant where these are left out: what trains small networks steadily (docs/when-a-guide-helps.md), or
    #: what the paper has.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"guidance": "mse+ce", "guide_rms": 1.0, "max_grad_norm": 5.0, "eps_warmup": 0.3},
        "paper": {"guidance": "mse", "guide_rms": math.inf},
    }
    regularizer_weights: ClassVar[Mapping[str, float]] = {"alp": 1.0, "trades": 6.0, "ikl": 1.0, "gkl": 1.0}

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guides: Sequence[PyTorchClassifier],
        attack: EvasionAttack | None,
        preset: str,
        guidance: str | Guidance | None,
        guide_rms: float | None,
        regularizer: str | None,
        regularizer_weight: float | None,
        options: RunOptions | None,
        run: Mapping[str, Any],
        **more: Any,
    ) -> None:
        """``more`` are the fields of :class:`~art_lbgat.engine.step.Passes` that other terms need."""
        self.preset = check_choice(preset, "preset", self.presets)
        own = dict(self.presets[preset])
        found = {name: own.pop(name) for name in ("guidance", "guide_rms")}
        if guide_rms is None:  # that of the preset belongs to its guidance
            guide_rms = found["guide_rms"] if guidance is None and not self.train_guides else math.inf
        self.guide_rms = guide_rms if guide_rms == math.inf else check_number(guide_rms, "guide_rms", exclusive=True)
        guidance, self.run_defaults = found["guidance"] if guidance is None else guidance, own
        check_choice(regularizer, "regularizer", [None, *REGULARIZERS])
        # Copies, of which only those that learn differ from the tables'.
        named = None if callable(guidance) else GUIDANCE[check_choice(guidance, "guidance", GUIDANCE)]
        self.guidance: Guidance = copy.deepcopy(named) if named else guidance  # type: ignore[assignment]
        self.regularizer, self._regularizer = regularizer, copy.deepcopy(REGULARIZERS.get(regularizer or ""))
        losses: list[Any] = [each for each in (self.guidance, self._regularizer) if each is not None]
        self.takes_loss = self.guidance is mse_ce
        self.on_probabilities = all(map(on_probabilities, losses))
        if self.guidance is rslad:
            if self.train_guides:
                raise ValueError("guidance: 'rslad' expects a frozen, robust guide (BGATTrainer), got one that learns.")
            self.labels = _said_by_guide
        if regularizer is None and regularizer_weight is not None:
            raise ValueError(f"regularizer_weight: expected None without a regularizer, got {regularizer_weight!r}.")
        weight = (
            self.regularizer_weights.get(regularizer or "", 0.0) if regularizer_weight is None else regularizer_weight
        )
        self.regularizer_weight = check_number(weight, "regularizer_weight")
        kind, passes = self.needs(regularizer, self.regularizer_weight, self.guidance)
        super().__init__(
            classifier,
            attack,
            guides=guides,
            needs=(kind, replace(passes, **more)),
            epoch_losses=[each for each in losses if isinstance(each, IKL)],
            options=options,
            run=run,
        )
        check_guidance(self.guidance, classifier.nb_classes, classifier.device)

    @classmethod
    def needs(
        cls, regularizer: str | None = None, weight: float | None = None, guidance: Any = None
    ) -> tuple[AttackKind, Passes]:
        """See :meth:`BaseTrainer.needs`; with weight 0 ``M_r(x)`` moves batch-norm statistics only ("LBGAT0").

        :param regularizer: A name, or None; all but ``"alp"`` are divergences, and bring the TRADES attack.
        :param weight: Its weight; None is the published one.
        :param guidance: The guidance loss or its name.
        """
        distils = guidance in ("rslad", rslad)  # and needs the graph of M_r(x)
        if regularizer is None:
            return "pgd", Passes("graph" if distils else "none")
        weight = cls.regularizer_weights[regularizer] if weight is None else weight
        attack: AttackKind = "pgd" if regularizer == "alp" else "trades"
        return attack, Passes("graph" if weight or distils else "value")

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """``guidance(M_r(x_adv), M_n(x), y)``, other terms of the method, and the regularizer.

        :param logits: ``"adversarial"``, ``"guide"`` and, with a regularizer, ``"natural"``.
        :param y: Labels of the student.
        :param y_guide: Labels of the guide.
        """
        adversarial, guide = logits["adversarial"], logits["guide"]
        more: dict[str, Any] = {"natural": logits["natural"]} if self.guidance is rslad else {}
        more |= {"loss": self.cross_entropy} if self.takes_loss else {}
        if self.guide_rms != math.inf:
            guide = with_rms(guide, self.guide_rms)
        terms, others = self.guidance(adversarial, guide, y, **more), self.other_terms(logits, y_guide)
        if self._regularizer is not None:
            others |= self._regularizer(adversarial, logits["natural"], y=y, weight=self.regularizer_weight)
        if terms.keys() & others.keys():
            raise ValueError(f"guidance: its terms {sorted(terms)} must not be named like {sorted(others)}.")
        return {**terms, **others}

    def other_terms(self, logits: Mapping[str, Tensor], y_guide: Tensor) -> Terms:
        """What a method adds to the guidance, none here; arguments: see :meth:`GuidedTrainer.terms`."""
        return {}


class BGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x))`` with a guide ``M_n`` that was trained on natural images and is never changed.

    The robust model sees no label: all supervision reaches it through the guide's logits. Source: arXiv 2011.11164,
    BGAT.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: One trained classifier, or several (an ensemble: the mean of their logits), of any architecture, each
        with its own preprocessing. Weights, buffers and modes are left untouched.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with a regularizer other than ALP (eps 0.031, 10 steps of 0.007).
    :param preset: What ``guidance``, ``guide_rms``, ``max_grad_norm`` and ``eps_warmup`` are where they are left out:
        ``"default"`` (``"mse+ce"``, 1, 5, 0.3), which trains steadily at usual rates, or ``"paper"`` (``"mse"``, and
        none of the others).
    :param guidance: None (see ``preset``), ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, ``"ikl"``,
        ``"gkl"``, ``"nuclear"``, or a callable ``(adversarial, guide, y) -> Terms``; or ``"rslad"`` with a robust
        guide, whose probabilities of ``x`` are the labels of the attack, so that it ascends ``KL(M_n(x) || M_r(x'))``.
    :param regularizer: ``None``, ``"alp"``, ``"trades"``, ``"ikl"`` or ``"gkl"``.
    :param regularizer_weight: Its weight; None is the published one (6 for TRADES, else 1).
    :param guide_rms: Centre the guide's logits of each sample and scale them to this root mean square before the
        guidance; ``math.inf`` leaves them as they are, as in the paper. None is that of ``preset`` where ``guidance``
        is left out too, else ``math.inf``.
    :param helper_weight: ``gamma`` of the helper term ``gamma * CE(M_r(x_h), argmax M_n(x_adv))`` of
        :class:`HATTrainer` (0.5 there); 0 is without it, as the paper's.
    :param helper_step: ``h`` of its ``x_h = x + h (x_adv - x)``, > 0.
    :param robust_guide: A robust teacher ``M_t``, which adds ``robust_weight * KL(M_t(x_adv) || M_r(x_adv))``; frozen.
    :param robust_weight: Its weight, > 0.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, an unknown name, a bad weight.
    """

    title = "BGAT"

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier | Sequence[PyTorchClassifier],
        attack: EvasionAttack | None = None,
        *,
        preset: str = "default",
        guidance: str | Guidance | None = None,
        regularizer: str | None = None,
        regularizer_weight: float | None = None,
        guide_rms: float | None = None,
        helper_weight: float = 0.0,
        helper_step: float = 2.0,
        robust_guide: PyTorchClassifier | None = None,
        robust_weight: float = 1.0,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.helper_weight = check_number(helper_weight, "helper_weight")
        self.helper_step = check_number(helper_step, "helper_step", exclusive=True)
        self.robust_weight = check_number(robust_weight, "robust_weight", exclusive=True)
        more: dict[str, Any] = {"guide": ("x", "x_adv"), "helper_step": helper_step} if helper_weight else {}
        guides = [*_several(guide), *([] if robust_guide is None else [robust_guide])]
        more["robust_guides"] = int(robust_guide is not None)
        super().__init__(
            classifier,
            guides,
            attack,
            preset,
            guidance,
            guide_rms,
            regularizer,
            regularizer_weight,
            options,
            run,
            **more,
        )
        self.guide, self.robust_guide = guide, robust_guide

    def other_terms(self, logits: Mapping[str, Tensor], y_guide: Tensor) -> Terms:
        """The terms of helper and robust guide, where they are on; arguments: see :meth:`GuidedTrainer.terms`."""
        terms: Terms = {}
        if self.helper_weight:
            terms |= helper_cross_entropy(logits["helper"], logits["guide_adversarial"], self.helper_weight)
        if self.robust_guide is not None:
            terms |= teacher_kl(logits["adversarial"], logits["robust_guide"], self.robust_weight)
        return terms


class LBGATTrainer(GuidedTrainer):
    """``MSE(M_r(x_adv), M_n(x)) + b * CE(M_n(x), y)``, both models trained together.

    The gradient of the MSE flows into both, so that they settle on the most robustness-friendly boundary. Each
    classifier steps its own optimizer (one SGD over both is the same thing). Source: arXiv 2011.11164, LBGAT.
    "LBGAT6" of papers and leaderboards is ``regularizer="trades", regularizer_weight=6``; "LBGAT0" is weight 0, which
    keeps the TRADES attack.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: The clean classifier (``M_n``), with an optimizer; fresh or already trained, any architecture.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: PGD on cross-entropy, or the
        TRADES attack with a regularizer other than ALP (eps 0.031, 10 steps of 0.007).
    :param preset: What ``guidance``, ``max_grad_norm`` and ``eps_warmup`` are where they are left out: ``"default"``
        (``"mse+ce"``, 5, 0.3), which trains steadily at usual rates, or ``"paper"`` (``"mse"``, none, none).
    :param guidance: None (see ``preset``), ``"mse"`` (the paper's), ``"mse+ce"``, ``"kd"``, ``"kl"``, ``"ikl"``,
        ``"gkl"``, ``"nuclear"``, or a callable ``(adversarial, guide, y) -> Terms``.
    :param guide_ce_weight: ``b >= 0``: the paper's beta (1 there; not the ``--beta`` of the authors' code).
    :param regularizer: ``None``, ``"alp"``, ``"trades"``, ``"ikl"`` or ``"gkl"``.
    :param regularizer_weight: Its weight (the paper's alpha); None is the published one (6 for TRADES, else 1).
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, an unknown name, a bad weight.
    """

    title = "LBGAT"
    train_guides = True

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier,
        attack: EvasionAttack | None = None,
        *,
        preset: str = "default",
        guidance: str | Guidance | None = None,
        guide_ce_weight: float = 1.0,
        regularizer: str | None = None,
        regularizer_weight: float | None = None,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.guide_ce_weight = check_number(guide_ce_weight, "guide_ce_weight")
        super().__init__(
            classifier, [guide], attack, preset, guidance, None, regularizer, regularizer_weight, options, run
        )
        self.guide = guide

    def get_guide(self) -> PyTorchClassifier:
        """The guide, trained by ``fit`` in place."""
        return self.guide

    def other_terms(self, logits: Mapping[str, Tensor], y_guide: Tensor) -> Terms:
        """``b * CE(M_n(x), y)``; arguments: see :meth:`GuidedTrainer.terms`."""
        return guide_cross_entropy(logits["guide"], y_guide, self.guide_ce_weight, self._guides[0].cross_entropy)


class HATTrainer(BaseTrainer):
    """``CE(M_r(x), y) + beta * KL(M_r(x) || M_r(x_adv)) + gamma * CE(M_r(x_h), argmax M_n(x_adv))``, TRADES attack.

    Helper-based adversarial training: at the helper point ``x_h = x + h (x_adv - x)``, beyond the adversarial example
    and not clipped, the robust model learns what the guide, a model trained on natural images, says of ``x_adv``. So
    it learns no margin that is larger than needed. Source: Rade and Moosavi-Dezfooli, ICLR 2022 (OpenReview
    BuD2LmNaU3a), with h of their ``train.py``; there ``x`` passes the student first, which changes no gradient.

    :param classifier: The classifier to make robust (``M_r``), with an optimizer.
    :param guide: ``M_n``: one trained classifier, or several, as for :class:`BGATTrainer`.
    :param attack: An untargeted ART evasion attack on ``classifier``; None is the paper's: that of TRADES (eps 0.031,
        10 steps of 0.007).
    :param beta: Weight of the KL, > 0.
    :param helper_weight: ``gamma``, > 0.
    :param helper_step: ``h``, > 0.
    :param options: A :class:`~art_lbgat.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: A guide that does not fit the classifier, a bad weight.
    """

    title, attack_kind, natural, takes_loss, takes_guide = "HAT", "trades", "graph", True, True
    on_probabilities, weight_name, published_weight = True, "beta", 2.5

    def __init__(
        self,
        classifier: PyTorchClassifier,
        guide: PyTorchClassifier | Sequence[PyTorchClassifier],
        attack: EvasionAttack | None = None,
        *,
        beta: float = published_weight,
        helper_weight: float = 0.5,
        helper_step: float = 2.0,
        options: RunOptions | None = None,
        **run: Any,
    ) -> None:
        self.beta = check_number(beta, "beta", exclusive=True)
        self.helper_weight = check_number(helper_weight, "helper_weight", exclusive=True)
        self.helper_step = check_number(helper_step, "helper_step", exclusive=True)
        kind, passes = self.needs()
        needs = kind, replace(passes, helper_step=self.helper_step)
        super().__init__(classifier, attack, guides=_several(guide), needs=needs, options=options, run=run)
        self.guide = guide

    @classmethod
    def needs(cls, *_: Any) -> tuple[AttackKind, Passes]:
        """See :meth:`BaseTrainer.needs`."""
        return cls.attack_kind, Passes("graph", helper_step=2.0, guide=("x_adv",))

    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """See the class."""
        natural, guide = logits["natural"], logits["guide_adversarial"]
        supervised = natural_cross_entropy(natural, y, loss=self.cross_entropy)
        robust = trades(logits["adversarial"], natural, self.beta)
        return {**supervised, **robust, **helper_cross_entropy(logits["helper"], guide, self.helper_weight)}


def _said_by_guide(logits: Mapping[str, Tensor], y: Tensor, progress: float) -> Tensor:  # noqa: ARG001
    """``softmax M_n(x)``: the cross-entropy with it has the gradient of ``KL(M_n(x) || M_r(x'))``."""
    return softmax(logits["guide"], dim=1)


def _several(guide: Any) -> list[PyTorchClassifier]:
    guides = list(guide) if isinstance(guide, (list, tuple)) else [guide]
    if not guides:
        raise ValueError("guide: expected one classifier or several, got an empty list.")
    return guides
