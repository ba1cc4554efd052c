"""What the torch-native attacks share: ART's numpy interface around the tensor loop."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from art_lbgat.attacks.ascent import Ascent, draw_start
from art_lbgat.attacks.loop import ascend
from art_lbgat.attacks.radius import Radius, as_radius, check_radius, check_scale
from art_lbgat.checks import check_count, check_inputs, check_kind, check_labels, check_norm
from art_lbgat.classifier import TensorView
from art_lbgat.preserve import evaluating, plain_autograd


class TensorAttack(EvasionAttack):
    """Base of the attacks whose whole loop stays on tensors.

    A subclass says with :meth:`ascent` what is run. ``generate`` is ART's numpy interface, ``perturb`` stays on
    tensors. Model modes and ``requires_grad`` are as before afterwards, parameters never get a gradient, BatchNorm
    buffers do not move. Random starts come from torch's global generator unless one is passed.

    :param estimator: The classifier to attack.
    :param norm: ``np.inf`` (or ``"inf"``) or 2.
    :param eps: Radius of the ball, in raw input units; a number, or one per sample.
    :param eps_step: Length of a step, likewise.
    :param max_iter: Number of steps.
    :param batch_size: Chunk of ``generate``.
    :param verbose: Show a progress bar in ``generate``.
    :param early_stop_steps: See :mod:`art_lbgat.attacks.early_stop`; None takes all steps.
    """

    attack_params: ClassVar[list[str]] = [
        *EvasionAttack.attack_params,
        "norm",
        "eps",
        "eps_step",
        "max_iter",
        "batch_size",
        "verbose",
        "early_stop_steps",
    ]
    _estimator_requirements = (PyTorchClassifier,)

    def __init__(
        self,
        estimator: PyTorchClassifier,
        norm: float | str,
        eps: float | NDArray[Any],
        eps_step: float | NDArray[Any],
        max_iter: int,
        batch_size: int,
        verbose: bool,
        early_stop_steps: int | None = None,
    ) -> None:
        super().__init__(estimator=estimator)
        self.norm, self.eps, self.eps_step, self.max_iter = norm, eps, eps_step, max_iter
        self.batch_size, self.verbose, self.early_stop_steps = batch_size, verbose, early_stop_steps
        self._view = TensorView(estimator, "estimator")

    def _radius(self, value: Any) -> Radius:
        return as_radius(value, 1 + len(self.estimator.input_shape))

    @abc.abstractmethod
    def ascent(self) -> Ascent:
        """What this attack runs, from its present parameters."""

    def generate(self, x: NDArray[Any], y: NDArray[Any] | None = None, **kwargs: Any) -> NDArray[np.float32]:
        """Adversarial examples of ``x``, in chunks of ``batch_size``, from starts that do not depend on that size.

        :param x: Natural inputs, ``(N, *input_shape)``, inside ``clip_values``.
        :param y: Labels, indices ``(N,)`` or rows ``(N, C)``; None takes the model's predictions, as ART does.
        :return: ``x_adv``, float32, the shape of ``x``.
        :raises ValueError: Bad ``x`` or ``y`` (see :mod:`art_lbgat.checks`), or not one ``eps`` per sample.
        :raises TypeError: Any keyword; this attack takes none.
        """
        if kwargs:
            raise TypeError(f"{type(self).__name__}.generate takes no keyword {sorted(kwargs)}.")
        self._view.refresh()
        with plain_autograd(self._view.device), evaluating(self._view.module):
            return self._generate(x, y)

    def _generate(self, x: NDArray[Any], y: NDArray[Any] | None) -> NDArray[np.float32]:
        inputs = torch.from_numpy(check_inputs(x, self.estimator).astype(np.float32))
        labels = None if y is None else torch.from_numpy(check_labels(y, self.estimator.nb_classes, length=len(inputs)))
        ascent = self.ascent()
        starts = [draw_start(ascent, inputs) for _ in range(ascent.restarts)]
        result = torch.empty_like(inputs)
        chunks = range(0, len(inputs), self.batch_size)
        for first in tqdm(chunks, desc=type(self).__name__, leave=False, disable=not self.verbose):
            rows = slice(first, first + self.batch_size)
            chunk = inputs[rows].to(self._view.device)
            target = None if labels is None else labels[rows].to(self._view.device)
            units = [None if s is None else s[rows].to(self._view.device) for s in starts]
            result[rows] = self._ascend(ascent.rows(rows, len(inputs)), chunk, target, units).cpu()
        return result.numpy()

    def perturb(self, x: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Adversarial examples of one batch, on tensors.

        :param x: Natural inputs, ``(N, *input_shape)``, float32, on the classifier's device, inside ``clip_values``.
        :param y: Labels, indices ``(N,)`` or probabilities ``(N, C)``; None takes the model's predictions.
        :param generator: A CPU generator for the random start; None draws from torch's global one.
        :return: ``x_adv``, like ``x``, without a graph.
        :raises TypeError: If ``x`` or ``y`` is no tensor, or ``generator`` none of torch's.
        :raises ValueError: Bad ``x`` or ``y`` (see :mod:`art_lbgat.checks`).
        """
        y = self._check_tensors(x, y, generator)
        ascent = self.ascent()
        self._view.refresh()
        with plain_autograd(self._view.device), evaluating(self._view.module):
            x = x.clone() if x.is_inference() else x  # autograd refuses tensors of inference mode
            y = y.clone() if y is not None and y.is_inference() else y
            starts = [draw_start(ascent, x, generator) for _ in range(ascent.restarts)]
            return self._ascend(ascent.rows(slice(None), len(x)), x, y, starts)

    def _check_tensors(self, x: Any, y: Any, generator: Any) -> Tensor | None:
        """The labels as they were, or as indices where they are ``(N, 1)``."""
        for name, value, kind in (("x", x, Tensor), ("y", y, Tensor), ("generator", generator, torch.Generator)):
            if value is not None or name == "x":
                check_kind(value, name, kind)
        if x.dtype != torch.float32:
            raise TypeError(f"x: expected float32, got {x.dtype}.")
        if x.ndim == 0 or not self._view.takes(x):
            check_inputs(x, self.estimator)
        if y is None:
            return None
        check_labels(y, self.estimator.nb_classes, length=len(x))
        if (y.ndim == 1 or y.shape[1] == 1) and y.dtype != torch.int64:
            raise TypeError(f"y: expected indices as int64, got {y.dtype}.")
        labels: Tensor = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        return labels

    def _ascend(self, ascent: Ascent, x: Tensor, y: Tensor | None, starts: list[Tensor | None]) -> Tensor:
        if y is None and (ascent.objective != "kl" or ascent.early_stop_steps is not None):
            with torch.no_grad():
                y = self._view.logits(x).argmax(dim=1)
        return ascend(ascent, self._view.logits, x, y, self._view.bounds(), starts)

    def _check_one_start(self, starts: int) -> None:
        """Several starts keep the point of highest loss, early stopping looks for one of low loss."""
        if self.early_stop_steps is not None and starts > 1:
            raise ValueError(
                f"num_random_init: expected at most 1 with early_stop_steps={self.early_stop_steps}, got {starts}."
            )

    def _check_params(self) -> None:
        check_norm(self.norm)
        check_radius(self.eps, "eps")
        check_radius(self.eps_step, "eps_step", exclusive=True)
        check_count(self.max_iter, "max_iter", minimum=0)
        check_count(self.batch_size, "batch_size")
        if not isinstance(self.verbose, bool):
            raise TypeError(f"verbose: expected a bool, got {self.verbose!r}.")
        if self.early_stop_steps is not None:
            check_count(self.early_stop_steps, "early_stop_steps", minimum=0)
        check_scale(self.eps, check_norm(self.norm), self._view)
