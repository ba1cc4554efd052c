"""Images, files and streams that several tests of this folder use."""

import numpy as np
from PIL import Image

from art_lbgat.classifier import TensorView
from art_lbgat.data import Images, as_stream
from art_lbgat.preserve import Key
from tests.conftest import make_classifier

KEY = Key(0, 1, 1)


def pixels(*shape, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


def make_images(n=24, shape=(1, 8, 8), classes=4, scale=255):
    return Images(pixels(n, *shape, high=scale + 1), np.arange(n) % classes, scale)


def stream(x, y=None, batch_size=8, classifier=None, **kwargs):
    view = TensorView(make_classifier() if classifier is None else classifier)
    return as_stream(x, y, batch_size, view, **kwargs)


def batches(*args, key=KEY, first_step=0, **kwargs):
    return list(stream(*args, **kwargs).epoch(key, first_step))


def write_tree(root, n=6, size=8, parts=("train", "test"), classes=("cat", "dog")):
    generator = np.random.default_rng(0)
    for part in parts:
        for label in classes:
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def sizes(data):
    return [len(part) for part in (data.train_images, data.validation_images, data.test_images)]
