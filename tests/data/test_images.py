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
BAD_IMAGES = [
    (BYTES.astype(np.float32), range(4), 255, "x: expected images as uint8 .* float32"),
    (BYTES[0], [0], 255, r"x: expected images \(N, C, H, W\).* \(1, 8, 8\)"),
    (BYTES[:0], np.zeros(0, int), 255, r"x: expected images .* at least one"),
    (BYTES, range(3), 255, r"y: expected 4 labels .* got shape \(3,\)"),
    (BYTES, np.zeros(4), 255, "y: expected class indices as whole numbers"),
    (BYTES, [0, 1, -1, 2], 255, "y: expected class indices >= 0, got -1"),
    (BYTES + 17, range(4), 16, r"x: expected values in \[0, 16\] \(scale\), got 17"),
    (BYTES, range(4), 0, "scale: expected a finite number > 0"),
]


@pytest.mark.parametrize(("x", "y", "scale", "message"), BAD_IMAGES)
def test_bad_images_are_refused(x, y, scale, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Images(x, y, scale)


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


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREYS = {  # what a file holds, and what bytes it is read as
    "16 bits.png": (np.rint(RAMP * 65535).astype(np.uint16), np.rint(RAMP * 255)),
    "16 bits.tiff": (np.rint(RAMP * 65535).astype(np.uint16), np.rint(RAMP * 255)),
    "bytes as 16 bits.png": (np.arange(64, dtype=np.uint16).reshape(8, 8) * 257, np.arange(64).reshape(8, 8)),
    "bytes as 32 bits.tiff": (np.rint(RAMP * 255).astype(np.int32), np.rint(RAMP * 255)),
    "bytes as floats.tiff": (np.rint(RAMP * 255).astype(np.float32), np.rint(RAMP * 255)),
    "32 bits.tiff": (np.rint(RAMP * 65535).astype(np.int32), r"32-bit values lie in \[0, 65535\]; expected \[0, 255\]"),
    "negative.tiff": (np.arange(-4, 60, dtype=np.int32).reshape(8, 8), r"32-bit values lie in \[-4, 59\]"),
    "shares.tiff": (RAMP.astype(np.float32), r"float values lie in \[0, 1\]; expected \[0, 255\]"),
    "nan.tiff": (np.full((8, 8), np.nan, np.float32), r"float values lie in \[nan, nan\]"),
}


@pytest.mark.parametrize("name", GREYS)
def test_grey_levels_of_more_than_8_bits_keep_their_brightness_or_are_refused_by_file_name(tmp_path, name):
    values, expected = GREYS[name]
    Image.fromarray(values).save(tmp_path / name)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=f"paths: expected an image in .*{name} .*{expected}"):
            read_images([tmp_path / name])
        return
    (x,) = read_images([tmp_path / name])
    for channel in x:
        assert np.array_equal(channel, expected)


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
PARTS = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
BAD_ARCHIVES = [
    (read_npz_images, {"x": X}, r"path: expected the key 'label' or 'labels' or 'y' in .*got \['x'\]"),
    (read_npz_images, {"x": X / 255, "y": Y}, r"path: in .*bad.npz, x: expected images as uint8"),
    (read_npz_images, {"x": X[..., :2], "y": Y}, r"path: in .* x: expected 1 or 3 channels"),
    (read_npz_images, {"x": X[:, 0, 0], "y": Y}, r"path: in .* x: expected images \(N, H, W, C\)"),
    (read_npz_images, {"x": X, "y": Y[:3]}, r"path: in .* y: expected 4 labels"),
    (read_npz_images, {"x": X, "y": np.array([0, None], object)}, r"expected an array of numbers under 'y'"),
    (load_npz, {**PARTS, "y_test": Y + 1}, r"root: expected two labels .* got \[2\] in y_test alone"),
    (load_npz, {**PARTS, "x_test": X[:, :4]}, r"root: x_train has images of shape \(3, 8, 8\), x_test of \(3, 4, 8\)"),
]


@pytest.mark.parametrize(("read", "content", "message"), BAD_ARCHIVES)
def test_bad_archives_are_refused(read, content, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises((TypeError, ValueError), match=message):
        read(tmp_path / "bad.npz")


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", X)
    for name in ("text.npz", "single.npy"):
        with pytest.raises(ValueError, match=rf"path: expected an .npz archive .* image and label, but .*{name} is"):
            read_npz_images(tmp_path / name)
