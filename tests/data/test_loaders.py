"""Data sets by name, each from a tiny copy of its published layout."""

import pickle  # noqa: TID251 (the CIFAR files' own format)

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR100, SVHN

from art_lbgat.data import (
    load_cifar100,
    load_data,
    load_digits,
    load_image_folder,
    load_svhn,
    load_tiny_imagenet,
)
from tests.data.test_data import write_tree

GENERATOR = np.random.default_rng(0)


def pixels(*shape):
    return GENERATOR.integers(0, 256, shape, dtype=np.uint8)


def write_cifar100(root, n=400):
    folder = root / CIFAR100.base_folder
    folder.mkdir()
    contents = {"train": pixels(n, 3072), "test": pixels(100, 3072)}
    for name, data in contents.items():
        content = {"data": data, "fine_labels": [i % 100 for i in range(len(data))], "coarse_labels": [0] * len(data)}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    return contents


def write_svhn(root, n=40):
    contents = {}
    for part in ("train", "test"):
        x, y = pixels(32, 32, 3, n), (np.arange(n) % 10 + 1).astype(np.uint8)
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": x, "y": y[:, None]})
        contents[part] = x, y
    return contents


def write_tiny(root, per_class=4):
    wnids = ["n02", "n01", "n10"]
    for wnid in wnids:
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(pixels(64, 64, 3)).save(folder / f"{wnid}_{i}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for i, wnid in enumerate(["n10", "n02", "n01", "n01"]):
        image = Image.fromarray(pixels(64, 64)) if i == 3 else Image.fromarray(pixels(64, 64, 3))  # some are grey
        image.save(root / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")


def sizes(data):
    return [len(part) for part in (data.train_images, data.validation_images, data.test_images)]


def test_cifar100_in_torchvisions_files(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR100, "_load_meta", lambda self: setattr(self, "classes", [f"c{i}" for i in range(100)]))
    contents = write_cifar100(tmp_path)
    data = load_data("cifar100", tmp_path, validation=0.25)
    assert (data.name, data.nb_classes, data.input_shape) == ("cifar100", 100, (3, 32, 32))
    assert data.class_names == tuple(f"c{i}" for i in range(100))
    assert sizes(data) == [300, 100, 100]
    assert np.array_equal(data.test_images.x, contents["test"].reshape(-1, 3, 32, 32))
    assert data.test_images.y.tolist() == list(range(100))
    assert np.array_equal(np.bincount(data.validation[1]), np.ones(100))
    assert sizes(load_cifar100(tmp_path, validation=0.5, limit=200)) == [100, 100, 100]
    rows = {row.tobytes() for row in data.train_images.x} | {row.tobytes() for row in data.validation_images.x}
    assert rows == {row.tobytes() for row in contents["train"]}


def test_svhn_in_its_mat_files(tmp_path, monkeypatch):
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    contents = write_svhn(tmp_path)
    data = load_data("svhn", tmp_path, validation=0.25)
    assert (data.name, data.nb_classes, sizes(data)) == ("svhn", 10, [30, 10, 40])
    x, y = contents["test"]
    assert np.array_equal(data.test_images.x, x.transpose(3, 2, 0, 1))
    assert data.test_images.y.tolist() == (y % 10).tolist()  # the file calls the digit 0 a 10
    assert sizes(load_svhn(tmp_path, validation=0.5, limit=20)) == [10, 10, 40]


@pytest.mark.parametrize("inner", ["", "tiny-imagenet-200"])
@pytest.mark.parametrize("size", [64, 32])
def test_tiny_imagenet_in_its_published_layout(tmp_path, inner, size):
    root = tmp_path / inner
    write_tiny(root)
    data = load_data("tiny-imagenet", tmp_path, validation=0.25, size=size)
    assert (data.name, data.nb_classes, data.input_shape) == ("tiny-imagenet", 3, (3, size, size))
    assert sizes(data) == [9, 3, 4]
    assert data.test_images.y.tolist() == [2, 1, 0, 0]  # in the sorted order of the WordNet ids
    image = Image.open(root / "val" / "images" / "val_0.JPEG").convert("RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(data.test_images.x[0], np.asarray(image).transpose(2, 0, 1))
    grey = data.test_images.x[3]
    assert np.array_equal(grey[0], grey[1])
    limited = load_tiny_imagenet(tmp_path, limit=6, validation=0.5, size=size)
    assert np.bincount(limited.train[1]).tolist() == [1, 1, 1]


def test_tiny_imagenet_with_bad_annotations_or_size_is_refused(tmp_path):
    write_tiny(tmp_path)
    annotations = tmp_path / "val" / "val_annotations.txt"
    with pytest.raises(ValueError, match=r"size: expected one of \[32, 64\], got 48"):
        load_tiny_imagenet(tmp_path, size=48)
    annotations.write_text("val_0.JPEG\tn10\nval_1.JPEG\tn99\n")
    with pytest.raises(ValueError, match=r"root: expected '<file>\\t<wnid>' in line 2 of .*n99"):
        load_tiny_imagenet(tmp_path)
    annotations.write_text("val_9.JPEG\tn10\n")
    with pytest.raises(FileNotFoundError, match=r"root: expected the image .*val_9.JPEG"):
        load_tiny_imagenet(tmp_path)
    annotations.write_text("")
    with pytest.raises(ValueError, match=r"for each image in .*, got none"):
        load_tiny_imagenet(tmp_path)


def test_folders_with_images_of_two_sizes_or_none_are_refused(tmp_path):
    write_tree(tmp_path)
    Image.fromarray(pixels(9, 8, 3)).save(tmp_path / "train" / "dog" / "9.png")
    with pytest.raises(ValueError, match=r"root: expected images of one size, .*, got \(8, 8\) .* \(9, 8\) in .*9.png"):
        load_image_folder(tmp_path)
    (tmp_path / "train" / "dog" / "9.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"root: expected an image in .*9.png"):
        load_image_folder(tmp_path)


def test_digits_by_name_are_the_digits():
    data, same = load_data("digits", seed=3), load_digits(3)
    for part in ("train", "validation", "test"):
        for first, second in zip(getattr(data, part), getattr(same, part), strict=True):
            assert np.array_equal(first, second)
    assert sizes(load_data("digits", validation=0.5, limit=100)) == [50, 50, 599]


MISSING = {
    "cifar10": r"no CIFAR-10 in .*cifar-10-batches-py there .*torchvision.datasets.CIFAR10\(.*download=True\).*https://",
    "cifar100": r"no CIFAR-100 in .*cifar-100-python there .*torchvision.datasets.CIFAR100\(.*download=True\).*https://",
    "svhn": r"no SVHN in .*train_32x32.mat and test_32x32.mat there \(torchvision.datasets.SVHN\(.*'train', download=True\)",
    "tiny-imagenet": r"no Tiny ImageNet in .*Unpack http://cs231n.*train/<wnid>/images/\*.JPEG.*val_annotations.txt",
    "folder": r"expected folders .*/train/<class>/<image>",
    "npz": r"expected an .npz archive with the keys x_train, y_train, x_test and y_test",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_data_says_what_to_download_and_where_to_put_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="^root: " + MISSING[name]) as raised:
        load_data(name, tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_damaged_files_are_reported_like_missing_ones(tmp_path):
    write_cifar100(tmp_path)  # of which torchvision knows other checksums
    write_svhn(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root: no CIFAR-100 in .*, or a damaged one"):
        load_data("cifar100", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root: no SVHN in .*, or a damaged one"):
        load_data("svhn", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("cifra10", "."), {}, r"name: expected one of .*'cifra10'; did you mean 'cifar10'"),
        (("svhn",), {}, "root: expected the path that holds svhn .*, got None"),
        (("digits", "."), {}, "root: expected None, since digits come with scikit-learn"),
        (("tiny-imagenet", "."), {"sise": 32}, r"options: expected one of \['size'\], got 'sise'; did you mean 'size'"),
        (("digits",), {"limit": 0}, "limit: expected a whole number >= 1, got 0"),
        (("digits",), {"validation": 0.001}, "validation: 0.001 of 1198 samples leaves 2 for the second part"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(*arguments, **options)
