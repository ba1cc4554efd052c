"""Data sets, splits and augmentation."""

import numpy as np
import pytest
import torch
from PIL import Image

from art_lbgat.data import (
    Batch,
    RandomCropFlip,
    balanced_order,
    load_cifar10,
    load_digits,
    load_image_folder,
    read_images,
    split,
    split_indices,
)
from art_lbgat.data.batches import join_single


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


def write_tree(root, n=6, size=8, parts=("train", "test"), classes=("cat", "dog")):
    generator = np.random.default_rng(0)
    for part in parts:
        for label in classes:
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(n):
                Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i}.png")


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


def test_cifar10_in_torchvisions_files(tmp_path, monkeypatch):
    """The real loader of torchvision on a tiny data set placed where it looks."""
    import hashlib
    import pickle  # noqa: TID251 (CIFAR-10's own file format)

    from torchvision.datasets import CIFAR10

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


def test_images_of_any_shape_are_brought_to_one_size_by_their_middle_square(tmp_path):
    write_tree(tmp_path, classes=("cat", "dog"))
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "test" / "cat" / "0.png")
    x = load_image_folder(tmp_path, size=4).test_images.x
    assert x.shape[1:] == (3, 4, 4)
    assert (x[0, :, :, 1:3] == 200).all()
    assert (x[0] > 150).all()  # the filter reaches a little beyond the square
    with pytest.raises(ValueError, match=r"size: expected"):
        load_image_folder(tmp_path, size=0)


def test_photos_are_upright_as_the_camera_was_held(tmp_path):
    write_tree(tmp_path)
    pixels, exif = np.zeros((8, 8, 3), dtype=np.uint8), Image.Exif()
    pixels[:, :4] = 255  # white on the left
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: white on top
    Image.fromarray(pixels).save(tmp_path / "test" / "cat" / "0.png", exif=exif)
    x = load_image_folder(tmp_path).test_images.x[0]
    assert (x[:, :4] == 255).all()
    assert (x[:, 4:] == 0).all()
    Image.fromarray(pixels).save(tmp_path / "test" / "cat" / "0.png", exif=b"Exif\x00\x00damaged")
    assert np.array_equal(load_image_folder(tmp_path).test_images.x[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_are_a_shifted_window_of_each_image(flip):
    x = torch.rand(32, 2, 6, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    out = RandomCropFlip(padding=2, flip=flip)(x, torch.Generator().manual_seed(1))
    assert out.shape == x.shape
    assert out.is_contiguous()
    padded = torch.nn.functional.pad(x, [2] * 4)
    found = []
    for image, source in zip(out, padded, strict=True):
        windows = {
            (i, j, f): source[:, i : i + 6, j : j + 5].flip(-1) if f else source[:, i : i + 6, j : j + 5]
            for i in range(5)
            for j in range(5)
            for f in range(1 + flip)
        }
        (place,) = [place for place, window in windows.items() if torch.equal(window, image)]
        found.append(place)
    assert len(set(found)) > 10  # drawn for each image
    assert {f for _, _, f in found} == ({0, 1} if flip else {0})
    again = RandomCropFlip(padding=2, flip=flip)(x, torch.Generator().manual_seed(1))
    assert torch.equal(out, again)


def test_crop_and_flip_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"augmentation: RandomCropFlip expects images \(N, C, H, W\)"):
        RandomCropFlip()(torch.zeros(4, 12), torch.Generator())
    with pytest.raises(ValueError, match="padding: expected"):
        RandomCropFlip(padding=-1)


def test_joining_a_single_sample_keeps_soft_labels_soft():
    hard = Batch(torch.zeros(2, 3), torch.tensor([0, 1]))
    soft = Batch(torch.ones(1, 3), torch.tensor([[0.5, 0.25, 0.25]]))
    (batch,) = join_single([hard, soft])
    assert batch.x.shape == (3, 3)
    assert batch.y.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0.25, 0.25]]
    assert batch.rows is None


def test_balanced_order_is_nested_balanced_and_complete():
    y = np.repeat([0, 1, 2], [5, 2, 9])  # sorted by class, as image folders are
    order = balanced_order(y)
    assert sorted(order) == list(range(16))
    assert np.bincount(y[order[:6]]).tolist() == [2, 2, 2]
    assert np.bincount(y[order[:10]]).tolist() == [4, 2, 4]
    assert not np.array_equal(order, balanced_order(y, seed=1))
    assert np.array_equal(order, balanced_order(y))
    assert order[0] != 0 or order[3] != 1 or order[2] != 7  # shuffled within a class


def test_all_files_that_are_no_images_are_named_at_once(tmp_path):
    write_tree(tmp_path)
    for name in ("3.png", "5.png"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"root: expected an image in .*3\.png .*And 1 more: .*5\.png"):
        load_image_folder(tmp_path)


def test_read_images_takes_paths(tmp_path):
    write_tree(tmp_path, parts=("",), n=2)
    files = sorted((tmp_path / "cat").iterdir())
    assert read_images(files, 4).shape == (2, 3, 4, 4)
    assert np.array_equal(read_images(files), np.stack([np.asarray(Image.open(f)).transpose(2, 0, 1) for f in files]))
    for wrong, error in (
        ("a.png", TypeError),
        ([], ValueError),
        ([3], TypeError),
        ([tmp_path / "no.png"], FileNotFoundError),
    ):
        with pytest.raises(error, match=r"^paths: expected"):
            read_images(wrong)


def test_too_few_training_images_are_the_limits_fault(tmp_path):
    with pytest.raises(ValueError, match=r"limit: 5 training images are too few\. validation: "):
        load_digits(limit=5)
