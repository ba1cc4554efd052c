"""Images and labels in .npz archives."""

import numpy as np
import pytest

from art_lbgat.data import Images, load_data, load_npz, read_npz_images
from tests.data.test_loaders import pixels, sizes


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


@pytest.mark.parametrize("keys", [("image", "label"), ("images", "labels"), ("x", "y")])
def test_generated_data_under_any_of_the_usual_keys(tmp_path, keys):
    path = tmp_path / "extra.npz"
    np.savez(path, **{keys[0]: pixels(5, 8, 8, 3), keys[1]: np.arange(5), "more": np.zeros(2)})
    images = read_npz_images(path)
    assert isinstance(images, Images)
    assert images.image_shape == (3, 8, 8)
    assert images.y.tolist() == list(range(5))


X, Y = pixels(4, 8, 8, 3), np.arange(4) % 2
BAD_ARCHIVES = {
    "no label": ({"x": X}, ValueError, r"path: expected the key 'label' or 'labels' or 'y' in .*got \['x'\]"),
    "float": ({"x": X / 255, "y": Y}, TypeError, r"path: in .*bad.npz, x: expected images as uint8"),
    "channels": ({"x": X[..., :2], "y": Y}, ValueError, r"path: in .* x: expected 1 or 3 channels"),
    "2-D": ({"x": X[:, 0, 0], "y": Y}, ValueError, r"path: in .* x: expected images \(N, H, W, C\)"),
    "labels": ({"x": X, "y": Y[:3]}, ValueError, r"path: in .* y: expected 4 labels"),
    "objects": (
        {"x": X, "y": np.array([0, "a", None, 1], object)},
        ValueError,
        r"expected an array of numbers under 'y'",
    ),
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
        with pytest.raises(
            ValueError, match=rf"path: expected an .npz archive with the keys image and label, but .*{name} is"
        ):
            read_npz_images(tmp_path / name)
    np.savez(tmp_path / "parts.npz", x_train=X, y_train=Y, x_test=X, y_test=Y + 1)
    with pytest.raises(ValueError, match=r"y: expected class indices in \[0, 1\] in the test part of parts, got 2"):
        load_npz(tmp_path / "parts.npz")
    np.savez(tmp_path / "shapes.npz", x_train=X, y_train=Y, x_test=X[:, :4], y_test=Y)
    with pytest.raises(ValueError, match=r"root: x_train has images of shape \(3, 8, 8\), x_test of \(3, 4, 8\)"):
        load_npz(tmp_path / "shapes.npz")
