"""The networks and the data of the benchmarks: random images and labels, since a step costs the same on any."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from art_lbgat.models import create_model, small_cnn

CLASSES = 10


class Model(NamedTuple):
    """A network that is measured.

    :param build: Makes one with fresh weights.
    :param shape: Shape of one image.
    :param guide: Makes its guide.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    guide: Callable[[], nn.Module]


class Net(nn.Module):
    """Any module as no ``nn.Sequential``, of whose first child ART's TRADES trainer would take the accuracy."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.skip(x))


def narrow_resnet_18(width: int = 16) -> nn.Module:
    """ResNet-18 for 32x32 images, of a fraction of its width so that two cores can train it.

    :param width: Channels of the first stage; 64 is the published one.
    :return: The network.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            layers.append(_Block(inputs, width * 2**stage, stride))
            inputs = width * 2**stage
    return Net(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)))


def _digits_cnn() -> nn.Module:
    return Net(small_cnn())


def find_model(name: str) -> Model:
    """The model of a name.

    :param name: ``"digits-cnn"``, ``"resnet-18-w16"``, or one of ``art_lbgat.models.list_models()`` for CIFAR-10, with
        a guide of the same architecture (``wrn-34-10``: ``resnet-18-guide``, as in the published recipes).
    :return: How to make it.
    """
    if name == "digits-cnn":
        return Model(_digits_cnn, (1, 8, 8), _digits_cnn)
    if name == "resnet-18-w16":
        return Model(narrow_resnet_18, (3, 32, 32), narrow_resnet_18)

    guide = "resnet-18-guide" if name == "wrn-34-10" else name
    return Model(lambda: create_model(name, CLASSES), (3, 32, 32), lambda: create_model(guide, CLASSES))


def make_data(shape: tuple[int, ...], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images uniform in [0, 1] and random labels, always the same.

    :param shape: Shape of one image.
    :param count: How many.
    :return: ``(count, *shape)`` float32 and ``(count,)`` int64.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((count, *shape), generator=generator)
    return x.numpy(), torch.randint(CLASSES, (count,), generator=generator).numpy()
