"""The network whose weights go into RobustBench's model zoo: it takes images in [0, 1] and needs no ART around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from art.preprocessing.standardisation_mean_std.utils import broadcastable_mean_std
from torch import Tensor, nn

from art_lbgat.classifier import TensorView

_STANDARDISATIONS = (StandardisationMeanStd, StandardisationMeanStdPyTorch)


class Normalized(nn.Module):
    """``model((x - mu) / sigma)``, the normalisation inside the network.

    RobustBench takes the prefix ``model.`` off the names of a checkpoint, so the state dict fits a network of the zoo
    that has ``mu`` and ``sigma`` as buffers of its own.

    :param model: Gives logits for normalised inputs.
    :param mu: What is subtracted; broadcasts against a batch.
    :param sigma: What is divided by.
    """

    mu: Tensor
    sigma: Tensor

    def __init__(self, model: nn.Module, mu: Tensor, sigma: Tensor) -> None:
        super().__init__()
        self.register_buffer("mu", mu)
        self.register_buffer("sigma", sigma)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, C)`` of images ``(N, ...)`` in [0, 1]."""
        logits: Tensor = self.model((x - self.mu) / self.sigma)
        return logits


def exported_module(view: TensorView, scale: float) -> nn.Module:
    """The classifier as one module on inputs in [0, 1].

    That is its own module where ART does nothing to inputs in [0, 1]; :class:`Normalized` around it where ART
    standardises them by mean and standard deviation, or where ``clip_values`` are others than (0, 1).

    :param view: The classifier, with one range for all features.
    :param scale: Its raw units per unit of [0, 1].
    :return: A module that shares the weights of the classifier, on its device.
    :raises ValueError: If ART does anything else to the inputs, or anything to the outputs: the weights alone would not
        give the same numbers. The operations are named.
    """
    postprocessing = view.classifier.postprocessing_defences or []
    foreign = [operation for operation in view.operations if not isinstance(operation, _STANDARDISATIONS)]
    if foreign or postprocessing:
        names = ", ".join(type(operation).__name__ for operation in [*foreign, *postprocessing])
        raise ValueError(
            f"{view.name}: a checkpoint holds the network alone and would not give the same numbers without {names}; "
            "expected no preprocessing but standardisation by mean and standard deviation, and no postprocessing."
        )
    low = float(np.min(np.asarray(view.classifier.clip_values[0])))
    mu, sigma = _affine(view, low, scale)
    if bool((mu == 0).all() and (sigma == 1).all()):
        return view.module
    shape = (1, view.classifier.input_shape[0], *[1] * (len(view.classifier.input_shape) - 1))
    buffers = [np.broadcast_to(value, np.broadcast_shapes(value.shape, shape)) for value in (mu, sigma)]
    tensors = [torch.tensor(value, dtype=torch.float32, device=view.device) for value in buffers]
    return Normalized(view.module, *tensors)


def state_copy(module: nn.Module) -> dict[str, Tensor]:
    """The state dict as contiguous CPU tensors of their own.

    :param module: Any module.
    :raises ValueError: If the state dict holds anything but tensors with values, which a zoo could not read.
    """
    state: Mapping[str, Any] = module.state_dict()
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_meta]
    if wrong:
        raise ValueError(f"classifier: expected tensors with values in its state dict, got others under {wrong}.")
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def _affine(view: TensorView, low: float, scale: float) -> tuple[Any, Any]:
    """``mu`` and ``sigma`` in float64, for which ``(u - mu) / sigma`` is what the module is given for ``u``."""
    mu, sigma = np.float64(-low / scale), np.float64(1 / scale)
    example = np.zeros((1, *view.classifier.input_shape), dtype=np.float32)
    for operation in view.operations:
        mean, std = (np.asarray(value, dtype=np.float64) for value in (operation.mean, operation.std))
        mean, std = broadcastable_mean_std(example, mean, std)
        mu, sigma = mu + mean * sigma, sigma * std
    return np.asarray(mu) + 0.0, np.asarray(sigma)
