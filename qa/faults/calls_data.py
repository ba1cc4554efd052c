"""Data, networks and weights."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from art_lbgat import data, models, weights
from art_lbgat.classifier import TensorView
from qa.faults import wrong_values as wrong
from qa.faults.call import Call
from qa.faults.wrong_values import Strategy, changes, each
from tests.conftest import CLASSES, make_classifier, make_data, mlp

N = 8
SKLEARN = 2**32 - 1  # the largest seed of its splits
_SPLIT = {"seed": wrong.seed(maximum=SKLEARN), "validation": wrong.share(), "limit": wrong.count(optional=True)}


@cache
def folder() -> Path:
    """A folder with a file of each kind, gone when the process ends."""
    place = tempfile.TemporaryDirectory()
    folder.keep = place  # type: ignore[attr-defined]
    root = Path(place.name)
    x, y = pixels()
    parts = {"x_train": np.repeat(x, 4, 0), "y_train": np.repeat(y, 4), "x_test": x, "y_test": y}
    np.savez(root / "data.npz", **parts)
    np.savez(root / "extra.npz", image=x, label=y)
    weights.save_weights(mlp(), root / "mlp.safetensors")
    for k, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (root / "images" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(x[i, 0] + np.uint8(k)).save(root / "images" / name / f"{i}.png")
    return root


def pixels() -> tuple[Any, Any]:
    """Images as bytes, and labels."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8), np.arange(N) % 2


def _images() -> Any:
    return data.Images(*pixels())


_BYTES: list[Strategy] = [
    *wrong.junk(),
    changes(lambda x: x[:0], lambda x: x[0], lambda x: x.reshape(N, -1), lambda x: x[..., None]),
    changes(lambda x: x.astype(np.float32), lambda x: x.astype(np.int64), lambda x: x.astype(str), lambda x: x > 3),
    changes(lambda x: x[:-1], lambda x: x.astype(object), lambda x: x.astype(complex), lambda x: x.tolist()),
]


def _readers() -> Iterator[Call]:
    root = folder()
    files = {
        "load_npz": ({"root": root / "data.npz"}, {"root": wrong.path(), "name": wrong.text(optional=True), **_SPLIT}),
        "load_image_folder": (
            {"root": root / "images"},
            {
                "root": wrong.path(),
                "name": wrong.text(),
                "size": wrong.count(optional=True),
                "test": wrong.share(),
                **_SPLIT,
            },
        ),
        "read_images": (
            {"paths": sorted(root.glob("images/train/a/*"))},
            {
                "paths": [*wrong.junk("list", "tuple"), each(list, lambda: [3], lambda: ["no such file"])],
                "size": wrong.count(optional=True),
                "name": wrong.text(),
            },
        ),
        "read_npz_images": ({"path": root / "extra.npz"}, {"path": wrong.path()}),
        "load_digits": ({}, {"test": wrong.share(), **_SPLIT}),
        "load_data": (
            {"name": "npz", "root": root / "data.npz"},
            {
                "name": wrong.choice("digits", "cifar10", "cifar100", "svhn", "tiny-imagenet", "folder", "npz"),
                "root": wrong.path(),
                **_SPLIT,
                "validation": wrong.share(optional=True),
            },
        ),
    }
    for name, (right, wrongs) in files.items():
        if name in ("load_npz", "load_image_folder", "load_data"):
            right["validation"] = 0.25
        yield Call(name, lambda name=name, right=right: (getattr(data, name), dict(right)), wrongs)
    for name in ("load_cifar10", "load_cifar100", "load_svhn", "load_tiny_imagenet"):
        right = {"root": root / "none"}
        size = {"size": wrong.choice(32, 64)} if name == "load_tiny_imagenet" else {}
        wrongs = {"root": wrong.path(), **_SPLIT, **size}
        yield Call(name, lambda name=name, right=right: (getattr(data, name), dict(right)), wrongs, missing=True)


def _containers() -> Iterator[Call]:
    labels = [*wrong.indices(), changes(lambda y: -1 - y, lambda y: y[:-1], lambda y: y.astype(float))]

    def images() -> tuple[Any, ...]:
        x, y = pixels()
        return data.Images, {"x": x, "y": y}

    yield Call(
        "Images", images, {"x": _BYTES, "y": labels, "scale": [*wrong.number(exclusive=True), each(lambda: 3.0)]}
    )
    picks = [
        *wrong.junk("list"),
        each(lambda: [N], lambda: [-N - 1], list, lambda: [0.5], lambda: [[0, 1]], lambda: ["a"], lambda: 10**9),
    ]
    yield Call("Images.subset", lambda: (_images().subset, {"indices": [0, 2]}), {"indices": picks})
    pair = [
        *wrong.junk(),
        each(lambda: (None, None), lambda: (1, 2), lambda: (np.zeros((0, 1, 8, 8)), np.zeros(0)), lambda: ()),
        each(
            lambda: (np.zeros((3, 1, 8, 8)), np.zeros(4)), lambda: (np.zeros((3, 2, 2)), np.zeros(3)), lambda: ["a", 3]
        ),
    ]
    yield Call(
        "MixedData",
        lambda: (data.MixedData, {"data": make_data(N), "extra": make_data(N, seed=1), "extra_fraction": 0.5}),
        {"data": pair, "extra": [*pair, *wrong.path()[-2:]], "extra_fraction": wrong.share()},
    )
    fraction, seed = wrong.share(), wrong.seed(maximum=SKLEARN)
    y = [*wrong.indices(), each(lambda: np.zeros(0, dtype=int))]
    yield Call(
        "split_indices",
        lambda: (data.split_indices, {"y": pixels()[1], "fraction": 0.5, "seed": 0}),
        {"y": y, "fraction": [*fraction, each(lambda: 1e-9, lambda: 1 - 1e-9)], "seed": seed, "name": wrong.text()},
    )
    yield Call(
        "split",
        lambda: (data.split, {"x": pixels()[0], "y": pixels()[1], "fraction": 0.5, "seed": 0}),
        {
            "x": [*wrong.junk(), changes(lambda x: x[:-1], lambda x: x[:0], lambda x: np.concatenate([x, x]))],
            "y": y,
            "fraction": fraction,
            "seed": seed,
        },
    )
    yield Call(
        "balanced_order",
        lambda: (data.balanced_order, {"y": pixels()[1]}),
        {"y": wrong.indices(), "seed": wrong.seed()},
    )


def _streams() -> Iterator[Call]:
    view = [*wrong.kind(), each(make_classifier)]
    augmentation = wrong.junk("none", "function", "type")

    def arrays(name: str) -> tuple[Any, ...]:
        x, y = make_data(N)
        return getattr(data, name), {"x": x, "y": y, "batch_size": 4, "view": TensorView(make_classifier())}

    common = {
        "x": wrong.images(),
        "y": wrong.labels(CLASSES),
        "batch_size": wrong.count(),
        "view": view,
        "avoid_single": wrong.flag(),
    }
    named = [*augmentation, each(lambda: "crop+flop", lambda: "", lambda: "crop+crop", lambda: "none+crop")]
    yield Call("as_stream", lambda: arrays("as_stream"), {**common, "augmentation": named})


def _augmentations() -> Iterator[Call]:
    yield Call(
        "RandomCropFlip",
        lambda: (data.RandomCropFlip, {"padding": 2}),
        {"padding": wrong.count(0), "flip": wrong.flag()},
    )
    yield Call("Cutout", lambda: (data.Cutout, {}), {"size": wrong.count(optional=True)})
    yield Call(
        "CutMix",
        lambda: (data.CutMix, {"nb_classes": 4}),
        {"nb_classes": wrong.count(2), "alpha": wrong.number(exclusive=True)},
    )
    per_image = {"transform": wrong.junk("function", "type"), "as_bytes": wrong.flag()}
    yield Call("PerImage", lambda: (data.PerImage, {"transform": v2.RandomHorizontalFlip()}), per_image)
    made = {
        "RandomCropFlip": data.RandomCropFlip(1),
        "Cutout": data.Cutout(2),
        "PerImage": data.PerImage(v2.RandomHorizontalFlip()),
    }
    batch = [
        *wrong.junk(),
        each(lambda: np.zeros((2, 1, 8, 8)), lambda: [torch.zeros(1, 8, 8)]),
        changes(lambda x: x[0], lambda x: x[None], lambda x: x[0, 0, 0]),
    ]
    generator = [*wrong.junk("none"), each(lambda: np.random.default_rng(0))]
    for name, augmentation in made.items():
        yield Call(
            f"{name}.__call__",
            lambda augmentation=augmentation: (
                lambda x, generator: augmentation(x, generator),
                {"x": torch.rand(N, 1, 8, 8), "generator": torch.Generator()},
            ),
            {"x": batch, "generator": generator},
        )
    cutmix = data.CutMix(CLASSES)
    yield Call(
        "CutMix.__call__",
        lambda: (
            lambda x, y, generator: cutmix(x, y, generator),
            {"x": torch.rand(N, 1, 8, 8), "y": torch.arange(N) % CLASSES, "generator": torch.Generator()},
        ),
        {"x": batch, "y": wrong.label_tensor(CLASSES), "generator": generator},
    )
    names = ("crop", "flip", "cutout", "autoaugment", "autoaugment-svhn", "randaugment", "cutmix", "none")
    yield Call(
        "make_augmentation",
        lambda: (data.make_augmentation, {"name": "crop+cutmix", "nb_classes": 10}),
        {
            "name": [
                *wrong.choice(*names),
                each(lambda: "crop+crop", lambda: "none+crop", lambda: "crop+", lambda: "Crop"),
            ],
            "nb_classes": wrong.count(2),
            "padding": wrong.count(),
        },
    )


_SHAPE = [
    *wrong.junk(),
    each(lambda: (1, 8), lambda: (0, 8, 8), lambda: (1, -8, 8), lambda: (1.5, 8, 8), lambda: ("a", 8, 8), lambda: 8),
    each(lambda: (), lambda: (True, 8, 8), lambda: (1, 8, 8, 8), lambda: "188", lambda: (1, math.nan, 8)),
]
_WEIGHTS = [
    *wrong.junk("none", "text"),
    *wrong.path()[-2:],
    each(dict, lambda: {"a": torch.zeros(3)}, lambda: {"0.weight": 3}, lambda: {1: torch.zeros(3)}),
    each(lambda: str(folder()), lambda: str(folder() / "data.npz"), lambda: str(folder() / "extra.npz")),
]


def _networks() -> Iterator[Call]:
    yield Call(
        "small_cnn",
        lambda: (models.small_cnn, {}),
        {
            "nb_classes": wrong.count(),
            "channels": wrong.count(),
            "size": [*wrong.count(4), each(lambda: 5, lambda: 6, lambda: 1, lambda: 3)],
        },
    )
    names = [
        *wrong.choice("small-cnn"),
        each(lambda: "wrn-11-1", lambda: "wrn-10-0", lambda: "timm/none", lambda: "wrn"),
    ]
    yield Call(
        "create_model",
        lambda: (models.create_model, {"name": "small-cnn", "nb_classes": 4, "input_shape": (1, 8, 8)}),
        {
            "name": names,
            "nb_classes": wrong.count(2),
            "input_shape": [*_SHAPE, each(lambda: (1, 8, 12), lambda: (1, 9, 9))],
            "sub_block1": wrong.flag(),
            "weights": _WEIGHTS,
        },
    )

    def classifier() -> tuple[Any, ...]:
        return models.create_classifier, {"model": mlp(), "nb_classes": CLASSES, "input_shape": (12,)}

    bounds = [
        *wrong.junk("none"),
        each(
            lambda: (1.0, 0.0),
            lambda: (0.0,),
            lambda: (0.0, 0.0),
            lambda: (0.0, math.nan),
            lambda: ("a", "b"),
            lambda: 1,
        ),
        each(lambda: (0.0, 1.0, 2.0), lambda: (None, 1.0), lambda: (-math.inf, 1.0), lambda: (np.zeros(5), np.ones(5))),
    ]
    outputs = each(lambda: nn.Identity(), lambda: mlp(classes=3), lambda: mlp(features=5), lambda: nn.Conv2d(1, 1, 1))
    yield Call(
        "create_classifier",
        classifier,
        {
            "model": [*wrong.choice("small-cnn"), outputs],
            "nb_classes": [*wrong.count(2), each(lambda: 3, lambda: 5)],
            "input_shape": [
                *wrong.junk(),
                each(lambda: (5,), lambda: (), lambda: (-12,), lambda: (1.0, 12), lambda: 12),
            ],
            "clip_values": bounds,
            "learning_rate": wrong.number(exclusive=True),
            "momentum": wrong.number(),
            "weight_decay": wrong.number(),
            "nesterov": wrong.flag(),
            "decay_norms": wrong.flag(),
            "label_smoothing": wrong.number(maximum=1.0),
            "device_type": wrong.choice("cpu", "gpu", optional=True),
            "sub_block1": wrong.flag(),
            "weights": _WEIGHTS,
        },
    )


def _weights() -> Iterator[Call]:
    file = folder() / "mlp.safetensors"
    module = [*wrong.junk(), each(make_classifier, lambda: nn.Linear, dict)]
    yield Call(
        "load_weights",
        lambda: (weights.load_weights, {"model": mlp(), "path_or_state": file}),
        {"model": module, "path_or_state": [*_WEIGHTS, each(lambda: None, lambda: "")]},
        says={"path_or_state": "weights"},
    )
    paths = [*wrong.path(), each(lambda: str(folder()), lambda: str(folder() / "data.npz"), lambda: "")]
    yield Call(
        "read_weights", lambda: (weights.read_weights, {"path": file}), {"path": paths}, says={"path": "weights"}
    )
    places = [*wrong.no_path(), each(lambda: "/dev/null/a", lambda: str(folder()), lambda: "")]
    yield Call(
        "save_weights",
        lambda: (weights.save_weights, {"model": mlp(), "path": folder() / "saved.safetensors"}),
        {"model": module, "path": places},
    )


def calls() -> list[Call]:
    """The part of the table."""
    return [*_readers(), *_containers(), *_streams(), *_augmentations(), *_networks(), *_weights()]
