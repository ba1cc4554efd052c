"""The frozen representation of a classifier: what its last linear layer is given, or what a function returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_lbgat.checks import check_count
from art_lbgat.classifier import TensorView
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

FeaturesLike = Callable[[nn.Module, Tensor], Tensor]


def make_features(view: TensorView, x: Tensor, features: FeaturesLike | None, batch_size: int) -> NDArray[np.float64]:
    """``f(preprocessing(x))`` as float64 ``(N, d)``, of the model in eval mode; everything is left as found.

    :param view: The classifier.
    :param x: Raw inputs, float32 ``(N, ...)``.
    :param features: From the module and preprocessed inputs to features ``(n, ...)``; None takes
        :func:`penultimate_features`.
    :param batch_size: Images per pass.
    :raises ValueError: No ``nn.Linear`` runs and there is no ``features``; features that are not finite or not one
        row per input.
    """
    check_count(batch_size, "batch_size")
    extract = features or penultimate_features

    def _chunk(rows: Tensor) -> Tensor:
        found: Any = extract(view.module, view.predict_inputs(x[rows].to(view.device)))
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(rows):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"features: expected a tensor of shape ({len(rows)}, ...) from {view.name}, got {got}.")
        return found.flatten(1).cpu().double()

    with plain_autograd(view.device), evaluating(view.module), torch.no_grad(), preserved_randomness():
        seed_everything(0)
        array = in_chunks(_chunk, torch.arange(len(x)), batch_size).numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"features: expected finite values, got NaN or Inf from {view.name}.")
    return np.asarray(array)


def penultimate_features(module: nn.Module, inputs: Tensor) -> Tensor:
    """The input of the last ``nn.Linear`` that runs in ``module(inputs)``.

    :param module: A network; not changed.
    :param inputs: Preprocessed inputs, ``(n, ...)``.
    :return: ``(n, ...)``.
    :raises ValueError: If no ``nn.Linear`` runs.
    """
    with _linear_inputs(module) as seen:
        module(inputs)
    if not seen:
        raise ValueError(
            f"features: {type(module).__name__} runs no nn.Linear, so its penultimate features are not known; expected "
            "features=a function (module, inputs) -> features."
        )
    return seen[-1]


@contextmanager
def _linear_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def _hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0]]

    handles = [m.register_forward_pre_hook(_hook) for m in module.modules() if isinstance(m, nn.Linear)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
