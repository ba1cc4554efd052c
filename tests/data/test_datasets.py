"""Data sets by name, each from a tiny copy of its published layout, and their splits."""

import pickle  # noqa: TID251 (the CIFAR files' own format)

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from art_lbgat.data import (
    balanced_order,
    load_cifar10,
    load_data,
    load_digits,
    load_image_folder,
    load_tiny_imagenet,
    split,
    split_indices,
)
from tests.data.cases import pixels, write_tree

PARTS = ("train", "validation", "test")


def sizes(data):
    return [len(getattr(data, f"{part}_images")) for part in PARTS]


def test_digits_are_split_into_disjoint_stratified_seeded_parts():
    data, again, other = load_digits(0), load_data("digits", seed=0), load_digits(1)
    assert sizes(data) == [1048, 150, 599]
    assert len({row.tobytes() for part in PARTS for row in getattr(data, part)[0]}) == 1797
    for part in PARTS:
        images, (x, y) = getattr(data, f"{part}_images"), getattr(data, part)
        assert (images.scale, images.x.max()) == (16, 16)
        assert np.array_equal(x, images.x / 16)
        assert np.array_equal(y, images.y)
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert x.shape[1:] == data.input_shape == (1, 8, 8)
        assert np.abs(np.bincount(y, minlength=10) / len(y) - 0.1).max() < 0.02
        assert np.array_equal(x, getattr(again, part)[0])
    assert np.array_equal(data.test[0], other.test[0])  # for every seed
    assert not np.array_equal(data.validation[0], other.validation[0])
    assert np.array_equal(load_digits(0, validation=0.3).test[0], data.test[0])
    assert sizes(load_data("digits", validation=0.5, limit=100)) == [50, 50, 599]


def test_a_split_leaves_single_samples_in_the_first_part():
    y = np.array([0] * 10 + [1] * 10 + [2])
    first, second = split_indices(y, 0.2, 0)
    assert sorted([*first, *second]) == list(range(21))
    assert np.bincount(y[second], minlength=3).tolist() == [2, 2, 0]
    for (x_part, y_part), indices in zip(split(y * 10, y, 0.2, 0), (first, second), strict=True):
        assert np.array_equal(x_part, y[indices] * 10)
        assert np.array_equal(y_part, y[indices])
    with pytest.raises(ValueError, match=r"x: expected 21 samples, one for each label, got shape \(20,\)"):
        split(y[1:], y, 0.2, 0)


@pytest.mark.parametrize(("y", "fraction"), [(np.arange(40) % 10, 0.1), (np.arange(40) % 10, 0.9), (np.arange(5), 0.5)])
def test_a_split_that_cannot_be_is_refused(y, fraction):
    with pytest.raises(ValueError, match=r"fraction: 0.\d of \d+ samples leaves \d+ for the second part"):
        split_indices(y, fraction, 0)
    with pytest.raises(ValueError, match=r"fraction: expected a number in \(0, 1\), got 1.0"):
        split(y, y, 1.0, 0)


def test_balanced_order_is_nested_balanced_and_complete():
    y = np.repeat([0, 1, 2], [5, 2, 9])  # sorted by class, as image folders are
    order = balanced_order(y)
    assert sorted(order) == list(range(16))
    assert np.bincount(y[order[:6]]).tolist() == [2, 2, 2]
    assert np.bincount(y[order[:10]]).tolist() == [4, 2, 4]
    assert not np.array_equal(order, balanced_order(y, seed=1))
    assert np.array_equal(order, balanced_order(y))


def write_cifar(root, loader, y):
    (root / loader.base_folder).mkdir()
    for seed, (file, _) in enumerate((*loader.test_list, *loader.train_list)):
        labels = {"labels" if loader is CIFAR10 else "fine_labels": y.tolist()}
        (root / loader.base_folder / file).write_bytes(
            pickle.dumps({"data": pixels(len(y), 3072, seed=seed), **labels})
        )
    return pixels(len(y), 3072).reshape(-1, 3, 32, 32)


def write_svhn(root, loader, y):
    for part in ("train", "test"):  # the file calls the digit 0 a 10, and has images last
        content = {"X": pixels(32, 32, 3, len(y), seed=part == "train"), "y": np.where(y == 0, 10, y)[:, None]}
        scipy.io.savemat(root / f"{part}_32x32.mat", content)
    return pixels(32, 32, 3, len(y)).transpose(3, 2, 0, 1)


TORCHVISION = [(CIFAR10, 10, [150, 50, 40]), (CIFAR100, 100, [300, 100, 400]), (SVHN, 10, [30, 10, 40])]


@pytest.mark.parametrize(("loader", "classes", "parts"), TORCHVISION)
def test_torchvisions_files(loader, classes, parts, tmp_path, monkeypatch):
    """Its real loaders on tiny data sets placed where they look."""
    name, y = loader.__name__.lower(), np.arange(4 * classes) % classes
    x = (write_svhn if loader is SVHN else write_cifar)(tmp_path, loader, y)
    with pytest.raises(FileNotFoundError, match=r"root: no (CIFAR-100?|SVHN) in .*, or a damaged one"):
        load_data(name, tmp_path)  # torchvision knows other checksums
    monkeypatch.setattr(loader, "_check_integrity", lambda self: True)
    names = () if loader is SVHN else tuple(f"c{i}" for i in range(classes))
    monkeypatch.setattr(loader, "_load_meta", lambda self: setattr(self, "classes", names), raising=False)
    data = load_data(name, tmp_path, validation=0.25)
    assert (data.name, data.nb_classes, data.input_shape) == (name, classes, (3, 32, 32))
    assert (data.class_names, sizes(data)) == (names, parts)
    assert np.array_equal(data.test_images.x, x)
    assert np.array_equal(data.test_images.y, y)
    assert not (data.train_images.x == x[0]).all((1, 2, 3)).any()
    assert np.array_equal(np.bincount(data.validation[1]), np.full(classes, parts[1] // classes))
    limited = load_data(name, tmp_path, validation=0.5, limit=2 * classes)
    assert sizes(limited) == [classes, classes, 4 * classes]


def write_tiny(root, per_class=4):
    for wnid in ("n02", "n01", "n10"):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{wnid}_boxes.txt").write_text("")
        for i in range(per_class):
            Image.fromarray(pixels(64, 64, 3, seed=i)).save(folder / f"{wnid}_{i}.JPEG")
    (root / "val" / "images").mkdir(parents=True)
    for i in range(4):  # some are grey
        Image.fromarray(pixels(64, 64, *([] if i == 3 else [3]))).save(root / "val" / "images" / f"val_{i}.JPEG")
    lines = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate(["n10", "n02", "n01", "n01"])]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize(("inner", "size"), [("", 64), ("tiny-imagenet-200", 32)])
def test_tiny_imagenet_in_its_published_layout(tmp_path, inner, size):
    write_tiny(tmp_path / inner)
    data = load_data("tiny-imagenet", tmp_path, validation=0.25, size=size)
    assert (data.name, data.nb_classes, data.input_shape) == ("tiny-imagenet", 3, (3, size, size))
    assert sizes(data) == [9, 3, 4]
    assert data.test_images.y.tolist() == [2, 1, 0, 0]  # in the sorted order of the WordNet ids
    image = Image.open(tmp_path / inner / "val" / "images" / "val_0.JPEG").convert("RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(data.test_images.x[0], np.asarray(image).transpose(2, 0, 1))
    assert np.array_equal(*data.test_images.x[3][:2])
    limited = load_tiny_imagenet(tmp_path, limit=6, validation=0.5, size=size)
    assert np.bincount(limited.train[1]).tolist() == [1, 1, 1]


def test_tiny_imagenet_with_bad_annotations_or_size_is_refused(tmp_path):
    write_tiny(tmp_path)
    with pytest.raises(ValueError, match=r"size: expected one of \[32, 64\], got 48"):
        load_tiny_imagenet(tmp_path, size=48)
    for text, error, message in (
        ("val_0.JPEG\tn10\nval_1.JPEG\tn99\n", ValueError, r"'<file>\\t<wnid>' in line 2 of .*n99"),
        ("val_9.JPEG\tn10\n", FileNotFoundError, "expected the image .*val_9.JPEG"),
        ("", ValueError, r"for each image in .*, got none"),
    ):
        (tmp_path / "val" / "val_annotations.txt").write_text(text)
        with pytest.raises(error, match=f"^root: .*{message}"):
            load_tiny_imagenet(tmp_path)


def test_image_folder_is_read_as_it_is(tmp_path):
    write_tree(tmp_path)
    data = load_image_folder(tmp_path, validation=0.5)
    assert (data.nb_classes, data.class_names, data.input_shape) == (2, ("cat", "dog"), (3, 8, 8))
    assert sum(sizes(data)[:2]) == sizes(data)[2] == 12
    first = np.asarray(Image.open(tmp_path / "test" / "cat" / "0.png")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data.test[0][0], first, atol=1e-6)
    limited = load_cifar10(tmp_path, validation=0.5, limit=8)
    assert (limited.name, limited.nb_classes, sum(sizes(limited)[:2]) <= 8) == ("cifar10", 2, True)


def test_a_folder_of_classes_alone_is_split_and_its_test_part_does_not_depend_on_the_seed(tmp_path):
    write_tree(tmp_path, parts=("",))
    first, second = (load_image_folder(tmp_path, seed=seed, validation=0.25, test=1 / 3) for seed in (0, 1))
    assert first.class_names == ("cat", "dog")
    assert all(np.bincount(getattr(first, part)[1], minlength=2).all() for part in PARTS)
    assert np.array_equal(first.test[0], second.test[0])
    assert not np.array_equal(first.validation[0], second.validation[0])
    assert len({x.tobytes() for part in PARTS for x in getattr(first, part)[0]}) == 12


def test_folders_that_do_not_fit_are_refused(tmp_path):
    write_tree(tmp_path / "a")
    for arguments, message in (({"test": 1.0}, "test: expected"), ({"size": 0}, "size: expected")):
        with pytest.raises(ValueError, match=message):
            load_image_folder(tmp_path / "a", **arguments)
    Image.fromarray(pixels(9, 8, 3)).save(tmp_path / "a" / "train" / "dog" / "9.png")
    write_tree(tmp_path / "one", parts=("",), classes=("a",))
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "1.jpg").write_bytes(b"")
    write_tree(tmp_path / "half", parts=("train",))
    write_tree(tmp_path / "other", parts=("train",))
    write_tree(tmp_path / "other", parts=("test",), classes=("cat", "bird"))
    for name, message in (
        ("a", r"expected images of one size, .*, got \(8, 8\) .* \(9, 8\) in .*9.png"),
        ("one", r"expected at least two classes in .*, got \['a'\]"),
        ("none", "expected a folder of images, .*none is none"),
        ("loose", "expected folders .*but there are 1 files without a folder of their class"),
        ("half", r"expected folders .* and test/<class>/<image> .*, but there are \['train'\]"),
        ("other", r"test has the classes \['bird', 'cat'\], train has \['cat', 'dog'\]"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=f"root: {message}"):
            load_image_folder(tmp_path / name)


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


LABELS = [([1, 2, 3], ("1", "2", "3")), ([20, 5, 9], ("5", "9", "20")), ([0, 1, 3], ("0", "1", "3")), ([0, 1, 2], ())]


@pytest.mark.parametrize(("labels", "names"), LABELS)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_labels_of_an_archive_from_1_or_with_gaps_are_the_classes_there_are(tmp_path, labels, names, dtype):
    x, y = pixels(60, 8, 8), np.array(labels, dtype)[np.arange(60) % 3]
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    data = load_data("npz", tmp_path / "mine.npz")
    assert (data.nb_classes, data.class_names, sizes(data)) == (3, names, [54, 6, 9])
    assert data.test_images.y.tolist() == [sorted(labels).index(label) for label in y[:9]]
    for y_train, y_test, got in (
        (y, y[:9] + 1, r"\[\d+.*\] in y_test alone"),
        (y[:1].repeat(60), y[:1].repeat(9), r"\[\d+\]"),
    ):
        np.savez(tmp_path / "bad.npz", x_train=x, y_train=y_train, x_test=x[:9], y_test=y_test)
        with pytest.raises(ValueError, match=f"root: expected two labels or more .*, got {got} in .*bad.npz"):
            load_data("npz", tmp_path / "bad.npz")


MISSING = {
    "cifar10": r"no CIFAR-10 in .*cifar-10-batches-py there .*torchvision.datasets.CIFAR10\(.*download=True\).*https://",
    "cifar100": r"no CIFAR-100 in .*cifar-100-python there .*torchvision.datasets.CIFAR100\(.*download=True\).*https://",
    "svhn": r"no SVHN in .*train_32x32.mat and test_32x32.mat there \(torchvision.datasets.SVHN\(.*'train', download=True\)",
    "tiny-imagenet": r"no Tiny ImageNet in .*Unpack http://cs231n.*train/<wnid>/images/\*.JPEG.*val_annotations.txt",
    "folder": r"expected folders .*/train/<class>/<image>.*, but there are 0 files",
    "npz": r"expected an .npz archive with the keys x_train, y_train, x_test and y_test",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_data_says_what_to_download_and_where_to_put_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="^root: " + MISSING[name]) as raised:
        load_data(name, tmp_path)
    assert str(tmp_path) in str(raised.value)


BAD_ARGUMENTS = [
    (("cifra10", "."), {}, r"name: expected one of .*'cifra10'; did you mean 'cifar10'"),
    (("svhn",), {}, "root: expected the path that holds svhn .*, got None"),
    (("digits", "."), {}, "root: expected None, since digits come with scikit-learn"),
    (("tiny-imagenet", "."), {"sise": 32}, r"options: expected one of \['size'\], got 'sise'; did you mean 'size'"),
    (("digits",), {"limit": 0}, "limit: expected a whole number >= 1, got 0"),
    (("digits",), {"limit": 5}, r"limit: 5 training images are too few\. validation: "),
    (("digits",), {"validation": 0.001}, "validation: 0.001 of 1198 samples leaves 2 for the second part"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(*arguments, **options)
