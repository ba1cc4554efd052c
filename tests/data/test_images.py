"""Images as bytes, and how they are read from image files and archives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from art_lbgat.data import Images, load_image_folder, load_npz, read_images, read_npz_images
from tests.data.cases import make_images, pixels, write_tree


@pytest.mark.parametrize("scale", [255, 16])
def test_arrays_and_samples_are_the_bytes_over_the_scale(scale):
    images = make_images(scale=scale)
    x, y = images.arrays()
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert np.array_equal(x, (images.x / np.float64(scale)).astype(np.float32))
    assert (images[5][1], type(images[5][1]), len(images), images.image_shape) == (1, int, 24, (1, 8, 8))
    part = images.subset([3, 1])
    assert np.array_equal(part.x, images.x[[3, 1]])
    assert (part.y.tolist(), part.scale) == ([3, 1], scale)
    loaded, _ = next(iter(DataLoader(images, batch_size=24)))
    assert (loaded.dtype, np.array_equal(loaded.numpy(), x)) == (torch.float32, True)


@given(st.integers(1, 255), st.data())
def test_bytes_survive_the_way_to_float_and_back(scale, data):
    pixels = data.draw(st.lists(st.integers(0, scale), min_size=1, max_size=8))
    x, _ = Images(np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(len(pixels), int), scale).arrays()
    assert np.rint(x * np.float32(scale)).astype(np.uint8).ravel().tolist() == pixels


BYTES = np.zeros((4, 1, 8, 8), np.uint8)
BAD_IMAGES = {
    "float": ((BYTES.astype(np.float32), np.zeros(4, int)), TypeError, "x: expected images as uint8 .* float32"),
    "3-D": ((BYTES[0], np.zeros(1, int)), ValueError, r"x: expected images \(N, C, H, W\).* \(1, 8, 8\)"),
    "none": ((BYTES[:0], np.zeros(0, int)), ValueError, r"x: expected images .* at least one"),
    "labels too few": ((BYTES, np.zeros(3, int)), ValueError, r"y: expected 4 labels .* got shape \(3,\)"),
    "labels float": ((BYTES, np.zeros(4)), TypeError, "y: expected class indices as whole numbers"),
    "labels negative": ((BYTES, [0, 1, -1, 2]), ValueError, "y: expected class indices >= 0, got -1"),
    "above scale": ((BYTES + 17, np.zeros(4, int), 16), ValueError, r"x: expected values in \[0, 16\] \(scale\), got 17"),
    "scale 0": ((BYTES, np.zeros(4, int), 0), ValueError, "scale: expected a finite number > 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused(case):
    arguments, error, message = BAD_IMAGES[case]
    with pytest.raises(error, match=message):
        Images(*arguments)


@pytest.mark.parametrize("indices", [[], [24], [-25], [0.5], [[0]], [True]])
def test_bad_indices_are_refused(indices):
    with pytest.raises((TypeError, ValueError), match=r"^indices: expected"):
        make_images().subset(indices)


def test_image_files_are_brought_to_one_size_by_their_middle_square(tmp_path):
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read_images([tmp_path / "wide.png"])[0], wide.transpose(2, 0, 1))
    (x,) = read_images([tmp_path / "wide.png"], 4)
    assert x.shape == (3, 4, 4)
    assert (x[:, :, 1:3] == 200).all()
    assert (x > 150).all()  # the filter reaches a little beyond the square


def test_photos_are_upright_as_the_camera_was_held(tmp_path):
    photo, exif = np.zeros((8, 8, 3), dtype=np.uint8), Image.Exif()
    photo[:, :4] = 255  # white on the left
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: white on top
    Image.fromarray(photo).save(tmp_path / "0.png", exif=exif)
    (x,) = read_images([tmp_path / "0.png"])
    assert (x[:, :4] == 255).all()
    assert (x[:, 4:] == 0).all()
    Image.fromarray(photo).save(tmp_path / "0.png", exif=b"Exif\x00\x00damaged")
    assert np.array_equal(read_images([tmp_path / "0.png"])[0], photo.transpose(2, 0, 1))


def test_bad_files_are_refused_all_broken_ones_at_once(tmp_path):
    write_tree(tmp_path)
    for name in ("3.png", "5.png"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"root: expected an image in .*3\.png .*And 1 more: .*5\.png"):
        load_image_folder(tmp_path)
    no_file = tmp_path / "no.png"
    for paths, error in (("a.png", TypeError), ([], ValueError), ([3], TypeError), ([no_file], FileNotFoundError)):
        with pytest.raises(error, match=r"^paths: expected"):
            read_images(paths)


@pytest.mark.parametrize("keys", [("image", "label"), ("images", "labels"), ("x", "y")])
def test_generated_data_under_any_of_the_usual_keys(tmp_path, keys):
    path = tmp_path / "extra.npz"
    np.savez(path, **{keys[0]: pixels(5, 8, 8, 3), keys[1]: np.arange(5), "more": np.zeros(2)})
    images = read_npz_images(path)
    assert (images.image_shape, images.y.tolist()) == ((3, 8, 8), list(range(5)))


X, Y = pixels(4, 8, 8, 3), np.arange(4) % 2
BAD_ARCHIVES = {
    "no label": ({"x": X}, ValueError, r"path: expected the key 'label' or 'labels' or 'y' in .*got \['x'\]"),
    "float": ({"x": X / 255, "y": Y}, TypeError, r"path: in .*bad.npz, x: expected images as uint8"),
    "channels": ({"x": X[..., :2], "y": Y}, ValueError, r"path: in .* x: expected 1 or 3 channels"),
    "2-D": ({"x": X[:, 0, 0], "y": Y}, ValueError, r"path: in .* x: expected images \(N, H, W, C\)"),
    "labels": ({"x": X, "y": Y[:3]}, ValueError, r"path: in .* y: expected 4 labels"),
    "objects": ({"x": X, "y": np.array([0, None], object)}, ValueError, r"expected an array of numbers under 'y'"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archives_are_refused(tmp_path, case):
    content, error, message = BAD_ARCHIVES[case]
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(error, match=message):
        read_npz_images(tmp_path / "bad.npz")


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", X)
    for name in ("text.npz", "single.npy"):
        with pytest.raises(ValueError, match=rf"path: expected an .npz archive .* image and label, but .*{name} is"):
            read_npz_images(tmp_path / name)
    for change, message in (
        ({"y_test": Y + 1}, r"y: expected class indices in \[0, 1\] in the test part of parts, got 2"),
        ({"x_test": X[:, :4]}, r"root: x_train has images of shape \(3, 8, 8\), x_test of \(3, 4, 8\)"),
    ):
        np.savez(tmp_path / "parts.npz", **{"x_train": X, "y_train": Y, "x_test": X, "y_test": Y, **change})
        with pytest.raises(ValueError, match=message):
            load_npz(tmp_path / "parts.npz")
