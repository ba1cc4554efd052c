"""Data sets by name, each from a tiny copy of its published layout, and their splits."""

import hashlib
import pickle  # noqa: TID251 (the CIFAR files' own format)

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from art_lbgat.data import (
    balanced_order,
    load_cifar10,
    load_cifar100,
    load_data,
    load_digits,
    load_image_folder,
    load_svhn,
    load_tiny_imagenet,
    split,
    split_indices,
)
from tests.data.cases import pixels, sizes, write_tree


def test_digits_are_split_into_disjoint_stratified_seeded_parts():
    data, again, other = load_digits(0), load_digits(0), load_digits(1)
    parts = (data.train, data.validation, data.test)
    assert sum(len(x) for x, _ in parts) == 1797
    assert [len(x) for x, _ in parts] == [1048, 150, 599]
    rows = [{row.tobytes() for row in x} for x, _ in parts]
    assert not rows[0] & rows[1]
    assert not (rows[0] | rows[1]) & rows[2]
    for x, y in parts:
        assert x.dtype == np.float32
        assert x.shape[1:] == data.input_shape == (1, 8, 8)
        assert (x.min(), x.max()) == (0, 1)
        assert y.dtype == np.int64
        shares = np.bincount(y, minlength=10) / len(y)
        assert np.abs(shares - 0.1).max() < 0.02
    assert np.array_equal(data.train[0], again.train[0])
    assert np.array_equal(data.test[0], other.test[0])  # for every seed
    assert not np.array_equal(data.validation[0], other.validation[0])
    assert np.array_equal(load_digits(0, validation=0.3).test[0], data.test[0])


def test_the_parts_of_a_data_set_are_bytes_and_arrays_of_them():
    data = load_digits(validation=0.5, limit=40)
    assert [len(part) for part in (data.train_images, data.validation_images, data.test_images)] == [20, 20, 599]
    for name in ("train", "validation", "test"):
        images, (x, y) = getattr(data, f"{name}_images"), getattr(data, name)
        assert (images.scale, images.x.max()) == (16, 16)
        assert np.array_equal(x, images.x / 16)
        assert np.array_equal(y, images.y)


BYTES = np.zeros((4, 1, 8, 8), np.uint8)
BAD_IMAGES = {
    "float": ((BYTES.astype(np.float32), np.zeros(4, int)), TypeError, "x: expected images as uint8 .* float32"),
    "3-D": ((BYTES[0], np.zeros(1, int)), ValueError, r"x: expected images \(N, C, H, W\).* \(1, 8, 8\)"),
    "none": ((BYTES[:0], np.zeros(0, int)), ValueError, r"x: expected images .* at least one"),
    "labels too few": ((BYTES, np.zeros(3, int)), ValueError, r"y: expected 4 labels .* got shape \(3,\)"),
    "labels float": ((BYTES, np.zeros(4)), TypeError, "y: expected class indices as whole numbers"),
    "labels negative": ((BYTES, [0, 1, -1, 2]), ValueError, "y: expected class indices >= 0, got -1"),
    "above scale": (
        (BYTES + 17, np.zeros(4, int), 16),
        ValueError,
        r"x: expected values in \[0, 16\] \(scale\), got 17",
    ),
    "scale 0": ((BYTES, np.zeros(4, int), 0), ValueError, "scale: expected a finite number > 0"),
}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_a_bad_fraction(fraction):
    with pytest.raises(ValueError, match="fraction: expected a"):
        split(np.zeros((10, 1)), np.arange(10) % 2, fraction, 0)


def test_a_split_leaves_single_samples_in_the_first_part():
    y = np.array([0] * 10 + [1] * 10 + [2])
    first, second = split_indices(y, 0.2, 0)
    assert sorted([*first, *second]) == list(range(21))
    assert np.bincount(y[second], minlength=3).tolist() == [2, 2, 0]
    assert 20 in first
    again = split_indices(y, 0.2, 0)
    assert np.array_equal(first, again[0])
    (x_first, y_first), (x_second, _) = split(y * 10, y, 0.2, 0)
    assert np.array_equal(x_first, y[first] * 10)
    assert np.array_equal(y_first, y[first])
    assert len(x_second) == 4


@pytest.mark.parametrize(("y", "fraction"), [(np.arange(40) % 10, 0.1), (np.arange(40) % 10, 0.9), (np.arange(5), 0.5)])
def test_a_split_that_cannot_hold_every_class_is_refused(y, fraction):
    with pytest.raises(ValueError, match=r"fraction: 0.\d of \d+ samples leaves \d+ for the second part"):
        split_indices(y, fraction, 0)


def test_balanced_order_is_nested_balanced_and_complete():
    y = np.repeat([0, 1, 2], [5, 2, 9])  # sorted by class, as image folders are
    order = balanced_order(y)
    assert sorted(order) == list(range(16))
    assert np.bincount(y[order[:6]]).tolist() == [2, 2, 2]
    assert np.bincount(y[order[:10]]).tolist() == [4, 2, 4]
    assert not np.array_equal(order, balanced_order(y, seed=1))
    assert np.array_equal(order, balanced_order(y))
    assert order[0] != 0 or order[3] != 1 or order[2] != 7  # shuffled within a class


def test_image_folder_is_read_as_it_is(tmp_path):
    write_tree(tmp_path)
    data = load_image_folder(tmp_path, validation=0.5)
    assert (data.nb_classes, data.class_names) == (2, ("cat", "dog"))
    assert [x.shape for x, _ in (data.train, data.validation, data.test)] == [(6, 3, 8, 8), (6, 3, 8, 8), (12, 3, 8, 8)]
    first = np.asarray(Image.open(tmp_path / "test" / "cat" / "0.png")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data.test[0][0], first, atol=1e-6)
    limited = load_cifar10(tmp_path, validation=0.5, limit=8)
    assert len(limited.train[0]) + len(limited.validation[0]) == 8
    assert np.bincount(limited.train[1]).tolist() == [2, 2]
    assert limited.name == "cifar10"


def test_a_folder_of_classes_alone_is_split_and_its_test_part_does_not_depend_on_the_seed(tmp_path):
    write_tree(tmp_path, parts=("",))
    first, second = (load_image_folder(tmp_path, seed=seed, validation=0.25, test=1 / 3) for seed in (0, 1))
    assert first.class_names == ("cat", "dog")
    assert [np.bincount(y).tolist() for _, y in (first.train, first.validation, first.test)] == [[3, 3], [1, 1], [2, 2]]
    assert np.array_equal(first.test[0], second.test[0])
    assert not np.array_equal(first.train[0], second.train[0])
    everything = {x.tobytes() for part in (first.train, first.validation, first.test) for x in part[0]}
    assert len(everything) == 12
    with pytest.raises(ValueError, match=r"test: expected"):
        load_image_folder(tmp_path, test=1.0)
    write_tree(tmp_path / "one", parts=("",), classes=("a",))
    with pytest.raises(ValueError, match=r"root: expected at least two classes in .*, got \['a'\]"):
        load_image_folder(tmp_path / "one")


def test_cifar10_in_torchvisions_files(tmp_path, monkeypatch):
    """The real loader of torchvision on a tiny data set placed where it looks."""
    import pickle  # noqa: TID251 (CIFAR-10's own file format)

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)
    sums = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        content = {
            "data": generator.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        if name == "batches.meta":
            content = {"label_names": [str(i) for i in range(10)]}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()  # noqa: S324
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    data = load_cifar10(tmp_path)
    assert [len(x) for x, _ in (data.train, data.validation, data.test)] == [90, 10, 20]
    assert data.input_shape == (3, 32, 32)
    assert data.class_names == tuple(str(i) for i in range(10))
    assert len(load_cifar10(tmp_path, validation=0.2, limit=50).train[0]) == 40


def write_cifar100(root, n=400):
    folder = root / CIFAR100.base_folder
    folder.mkdir()
    contents = {"train": pixels(n, 3072), "test": pixels(100, 3072)}
    for name, data in contents.items():
        content = {"data": data, "fine_labels": [i % 100 for i in range(len(data))], "coarse_labels": [0] * len(data)}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    return contents


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


def write_svhn(root, n=40):
    contents = {}
    for part in ("train", "test"):
        x, y = pixels(32, 32, 3, n), (np.arange(n) % 10 + 1).astype(np.uint8)
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": x, "y": y[:, None]})
        contents[part] = x, y
    return contents


def test_svhn_in_its_mat_files(tmp_path, monkeypatch):
    monkeypatch.setattr(SVHN, "_check_integrity", lambda self: True)
    contents = write_svhn(tmp_path)
    data = load_data("svhn", tmp_path, validation=0.25)
    assert (data.name, data.nb_classes, sizes(data)) == ("svhn", 10, [30, 10, 40])
    x, y = contents["test"]
    assert np.array_equal(data.test_images.x, x.transpose(3, 2, 0, 1))
    assert data.test_images.y.tolist() == (y % 10).tolist()  # the file calls the digit 0 a 10
    assert sizes(load_svhn(tmp_path, validation=0.5, limit=20)) == [10, 10, 40]


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


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8, 3), (8, 8), (1, 8, 8), (8, 8, 1)])
def test_npz_holds_a_data_set(tmp_path, shape):
    x, y = pixels(40, *shape), np.arange(40) % 4
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y[:, None], x_test=x[:8], y_test=y[:8])
    data = load_data("npz", tmp_path / "mine.npz", validation=0.1)
    channels = 3 if 3 in shape else 1
    assert (data.name, data.nb_classes, data.input_shape) == ("mine", 4, (channels, 8, 8))
    assert sizes(data) == [36, 4, 8]
    expected = x[:8].transpose(0, 3, 1, 2) if shape[-1] in (1, 3) else x[:8].reshape(8, channels, 8, 8)
    assert np.array_equal(data.test_images.x, expected)


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


def test_missing_data_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: no CIFAR-10 in .*cifar-10-batches-py"):
        load_cifar10(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"root: expected folders .*train/<class>/<image>.*, but there are none"
    ):
        load_image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root: expected a folder of images, .*none is none"):
        load_image_folder(tmp_path / "none")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "1.jpg").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"but there are 1 files without a folder of their class"):
        load_image_folder(tmp_path / "loose")
    write_tree(tmp_path, parts=("train",))
    write_tree(tmp_path, parts=("test",), classes=("cat", "bird"))
    with pytest.raises(ValueError, match=r"root: train has the classes \['cat', 'dog'\], test has \['bird', 'cat'\]"):
        load_image_folder(tmp_path)


def test_too_few_training_images_are_the_limits_fault(tmp_path):
    with pytest.raises(ValueError, match=r"limit: 5 training images are too few\. validation: "):
        load_digits(limit=5)
