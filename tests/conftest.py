"""Shared helpers: tiny networks, classifiers and data. One thread, so that results are bitwise repeatable."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the same numbers on every machine

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lbgat.engine.step import clear_gradients, clip_gradients, step_optimizers

torch.set_num_threads(1)

SHAPE, CLASSES = (1, 8, 8), 4


def conv_net(width=6, classes=CLASSES, channels=1):
    """Convolution, BatchNorm, a second convolution of stride 2: everything that has a mode or a buffer."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, classes),
    )


def mlp(features=12, classes=CLASSES):
    return nn.Sequential(nn.Linear(features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))


def make_classifier(model=None, *, seed=0, lr=0.1, shape=SHAPE, classes=CLASSES, optimizer="sgd", **kwargs):
    """An ART classifier around ``model`` (a fresh net if None) with the optimizer of the published recipe."""
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = conv_net(classes=classes)
    if optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=2e-4)
    elif optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    kwargs = {"loss": nn.CrossEntropyLoss(), "clip_values": (0.0, 1.0), "device_type": "cpu", **kwargs}
    return PyTorchClassifier(model=model, input_shape=shape, nb_classes=classes, optimizer=optimizer, **kwargs)


def make_data(n=24, shape=SHAPE, classes=CLASSES, seed=0):
    """Images in [0, 1] whose brightest quarter tells the class, so that a small net learns them in a few epochs."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = generator.random((n, *shape)).astype(np.float32) * 0.5
    flat = x.reshape(n, -1)
    part = flat.shape[1] // classes
    for i, label in enumerate(y):
        flat[i, label * part : (label + 1) * part] += 0.4
    return np.clip(x, 0, 1), y.astype(np.int64)


@pytest.fixture
def data():
    return make_data()


@pytest.fixture
def classifier():
    return make_classifier()


@pytest.fixture
def guide():
    return make_classifier(seed=1)


@pytest.fixture
def few_queries(monkeypatch):
    """Square with fewer queries, for tests that are not about its strength."""
    import pyautoattack

    class AutoAttack(pyautoattack.AutoAttack):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.square.n_queries = 50

    monkeypatch.setattr(pyautoattack, "AutoAttack", AutoAttack)


def states_equal(first, second):
    """Whether two state dicts hold the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def copied_state(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def optimizer_step(loss, modules, optimizers, max_grad_norm, scaler=None):
    """Backward of ``loss``, clip, and one step of each optimizer, as a training step does them."""
    clear_gradients(modules)
    (loss if scaler is None else scaler.scale(loss)).backward()
    step_optimizers(optimizers, clip_gradients(optimizers, max_grad_norm, scaler), scaler)
