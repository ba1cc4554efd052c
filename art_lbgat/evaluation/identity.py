"""Hashes that say what was judged: the same model, the same images."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from art_lbgat.classifier import TensorView


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers of the state dict: names, types, shapes and bytes, in order of the names.

    :param module: Any module, on any device; the device does not count.
    :return: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0".encode())
        if isinstance(value, Tensor):
            _add(digest, value)
        else:  # what get_extra_state gave
            digest.update(repr(value).encode())
    return digest.hexdigest()


def data_sha256(x: Tensor, y: Tensor) -> str:
    """SHA-256 of images and labels: types, shapes and bytes.

    :param x: Images, ``(N, ...)``.
    :param y: Labels, ``(N,)``.
    :return: 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    _add(digest, x)
    _add(digest, y)
    return digest.hexdigest()


def forward_sha256(view: TensorView) -> str:
    """SHA-256 of what else the logits depend on: the layers, the preprocessing and the range of inputs.

    :param view: The classifier. Layers are told apart by ``repr``: a forward pass that changes without it is not seen.
    :return: 64 hexadecimal digits.
    """
    defences = [*view.operations, *(view.classifier.postprocessing_defences or [])]
    operations = [
        [type(operation).__qualname__, [(name, _plain(getattr(operation, name, None))) for name in operation.params]]
        for operation in defences
    ]
    clip_values = None if view.classifier.clip_values is None else [_plain(v) for v in view.classifier.clip_values]
    return hashlib.sha256(repr((repr(view.module), operations, clip_values)).encode()).hexdigest()


def model_identity(view: TensorView) -> dict[str, str]:
    """Everything that decides the bits of the logits, by name, for the record of a run.

    :param view: The classifier.
    :return: The hashes of its weights and of its layers and preprocessing, torch's version and the kind of device. The
        number of threads is not among them, though sums on a CPU are rounded in another order with another number.
    """
    return {
        "weights": weights_sha256(view.module),
        "layers and preprocessing": forward_sha256(view),
        "torch": torch.__version__,
        "device": view.device.type,
    }


def _add(digest: Any, value: Tensor) -> None:
    value = value.detach().cpu().contiguous()
    digest.update(f"{value.dtype}{tuple(value.shape)}\0".encode())
    # in pieces, since some types (bfloat16) have no numpy counterpart and large tensors would be copied whole
    flat = value.reshape(-1).view(torch.uint8) if value.numel() else value
    for first in range(0, flat.numel(), 1 << 26):
        digest.update(flat[first : first + (1 << 26)].numpy().tobytes())


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else repr(value)
