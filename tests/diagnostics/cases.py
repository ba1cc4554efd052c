"""Classifiers whose answers are known on paper."""

import random

import numpy as np
import torch
from torch import nn

from tests.conftest import make_classifier


def linear(weights, bias=None, clip_values=(0.0, 1.0), **kwargs):
    """``M(x) = W x + b`` on vectors, in float32 without rounding for small whole numbers."""
    classes, features = np.shape(weights)
    layer = nn.Linear(features, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor([0.0] * classes if bias is None else bias))
    return make_classifier(layer, shape=(features,), classes=classes, clip_values=clip_values, **kwargs)


class Fixed(nn.Module):
    """The logits of sample i are row ``x_i`` of a table: any logits one likes."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float32))

    def forward(self, x):
        return self.rows[x[:, 0].long()]


def fixed(rows, **kwargs):
    return make_classifier(Fixed(rows), shape=(1,), classes=len(rows[0]), clip_values=(0.0, 100.0), **kwargs)


def indices(n):
    return np.arange(n, dtype=np.float32)[:, None]


def state(classifier):
    """Everything that a look at a classifier must leave as it is."""
    module = classifier.model
    return (
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [len(m._forward_pre_hooks) for m in module.modules()],
        {name: value.tolist() for name, value in module.state_dict().items()},
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
