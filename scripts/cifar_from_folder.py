"""Write an ImageFolder tree of 32x32 images as the files that torchvision and RobustBench expect of CIFAR-10.

    python scripts/cifar_from_folder.py TREE DATA_DIR

TREE holds train/<class>/<image> and test/<class>/<image>; DATA_DIR gets cifar-10-batches-py. Classes are numbered in
alphabetical order, as CIFAR-10's are, and the test images are shuffled, so that the first ones are a sample of all.
The checksums are not those of the published files, and benchmark() says so.
"""

from __future__ import annotations

import argparse
import pickle  # noqa: TID251 (CIFAR's own format; nothing is read)
from pathlib import Path

import numpy as np

from art_lbgat.data import Images, load_image_folder


def write_batches(tree: Path, data_dir: Path, seed: int = 0) -> Path:
    """Write ``test_batch``, ``data_batch_1`` to ``5`` and ``batches.meta``.

    :param tree: The tree of images.
    :param data_dir: Where to put ``cifar-10-batches-py``; files there are not replaced.
    :param seed: Seed of the order.
    :return: The folder written.
    :raises FileExistsError: If the folder is there already.
    """
    data = load_image_folder(tree, "cifar10")
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    train = [data.train_images, data.validation_images]
    x, y = (np.concatenate([getattr(part, name) for part in train]) for name in ("x", "y"))
    order = np.array_split(generator.permutation(len(x)), 5)
    _write(folder / "test_batch", data.test_images, generator.permutation(len(data.test_images)))
    for number, rows in enumerate(order, 1):
        _write(folder / f"data_batch_{number}", Images(x, y), rows)
    names = sorted(path.name for path in (tree / "train").iterdir() if path.is_dir())
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return folder


def _write(path: Path, images: Images, rows: np.ndarray) -> None:
    batch = {"data": images.x[rows].reshape(len(rows), -1), "labels": images.y[rows].tolist()}
    path.write_bytes(pickle.dumps(batch))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("data_dir", type=Path)
    arguments = parser.parse_args()
    print(write_batches(arguments.tree, arguments.data_dir))
