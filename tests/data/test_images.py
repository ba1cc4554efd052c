"""Images as bytes: the same bits as the float arrays, through the stream and through a trainer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from art_lbgat import MadryTrainer
from art_lbgat.classifier import TensorView
from art_lbgat.data import Images, as_stream, load_digits
from art_lbgat.preserve import Key
from tests.conftest import copied_state, make_classifier, states_equal
from tests.trainers.cases import pgd

KEY = Key(0, 1, 1)


def make_images(n=24, shape=(1, 8, 8), classes=4, seed=0, scale=255):
    generator = np.random.default_rng(seed)
    return Images(generator.integers(0, scale + 1, (n, *shape), dtype=np.uint8), np.arange(n) % classes, scale)


def batches(x, y=None, batch_size=8, key=KEY, classifier=None, **kwargs):
    view = TensorView(make_classifier() if classifier is None else classifier)
    return list(as_stream(x, y, batch_size, view, **kwargs).epoch(key))


@pytest.mark.parametrize("scale", [255, 16])
def test_arrays_and_samples_are_the_bytes_over_the_scale(scale):
    images = make_images(scale=scale)
    x, y = images.arrays()
    assert x.dtype == np.float32
    assert y.dtype == np.int64
    assert np.array_equal(x, (images.x / np.float64(scale)).astype(np.float32))
    first, label = images[5]
    assert first.dtype == torch.float32
    assert np.array_equal(first.numpy(), x[5])
    assert (label, type(label), len(images), images.image_shape) == (1, int, 24, (1, 8, 8))
    part = images.subset([3, 1])
    assert np.array_equal(part.x, images.x[[3, 1]])
    assert (part.y.tolist(), part.scale) == ([3, 1], scale)
    loaded, _ = next(iter(DataLoader(images, batch_size=24)))
    assert np.array_equal(loaded.numpy(), x)


@given(st.integers(1, 255), st.data())
def test_bytes_survive_the_way_to_float_and_back(scale, data):
    pixels = data.draw(st.lists(st.integers(0, scale), min_size=1, max_size=8))
    x, _ = Images(np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(len(pixels), int), scale).arrays()
    assert np.rint(x * np.float32(scale)).astype(np.uint8).ravel().tolist() == pixels


@pytest.mark.parametrize("augmentation", [None, "crop+flip", "crop+flip+cutout", "crop+autoaugment", "cutmix"])
@pytest.mark.parametrize("scale", [255, 16])
def test_the_stream_of_bytes_has_the_bits_of_the_stream_of_floats(augmentation, scale):
    images = make_images(n=19, scale=scale)
    held = batches(images, augmentation=augmentation)
    floats = batches(*images.arrays(), augmentation=augmentation)
    assert [len(batch.x) for batch in held] == [8, 8, 3]
    for a, b in zip(held, floats, strict=True):
        assert a.x.dtype == torch.float32
        for first, second in zip(a[:3], b[:3], strict=True):
            assert torch.equal(first, second)
    rows = torch.cat([batch.rows for batch in held])
    assert sorted(rows.tolist()) == list(range(19))
    if augmentation is None:
        assert np.array_equal(torch.cat([batch.x for batch in held]).numpy(), images.arrays()[0][rows])


@pytest.mark.parametrize("clip_values", [(-1.0, 1.0), (0.0, 255.0), (-0.1, 0.7), None])
def test_the_stream_of_bytes_fills_the_range_of_the_classifier(clip_values):
    images = make_images(n=64)
    assert (images.x.min(), images.x.max()) == (0, 255)
    x = torch.cat([b.x for b in batches(images, classifier=make_classifier(clip_values=clip_values))])
    low, high = (np.float32(v) for v in clip_values or (0, 1))
    assert (x.min().item(), x.max().item()) == (low, high)
    order = torch.cat([b.rows for b in batches(images)])
    expected = low + images.arrays()[0][order] * (high - low)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_bounds_may_differ_by_pixel():
    low, high = np.zeros((1, 8, 8), np.float32), np.full((1, 8, 8), 1, np.float32)
    low[0, 0], high[0, 0] = -2, 3
    images = Images(np.full((4, 1, 8, 8), 255, np.uint8), np.arange(4))
    (batch,) = batches(images, classifier=make_classifier(clip_values=(low, high)))
    assert batch.x[:, 0, 0].unique().tolist() == [3]
    assert batch.x[:, 0, 1:].unique().tolist() == [1]


def test_a_single_last_sample_is_joined_where_it_must_be():
    images = make_images(n=17)
    assert [len(b.x) for b in batches(images, avoid_single=True)] == [8, 9]
    assert [len(b.x) for b in batches(images)] == [8, 8, 1]
    with pytest.raises(ValueError, match="batch_size: batches of one sample"):
        batches(images, batch_size=1, avoid_single=True)


def test_a_trainer_makes_the_same_weights_of_bytes_and_of_floats():
    states = []
    images = make_images(n=20)
    for data in ((images,), images.arrays()):
        classifier = make_classifier()
        trainer = MadryTrainer(classifier, pgd(classifier), seed=3)
        trainer.fit(*data, augmentation="crop+flip", batch_size=8, nb_epochs=1)
        states.append(copied_state(classifier.model))
    assert states_equal(*states)
    assert not states_equal(states[0], copied_state(make_classifier().model))


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


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused(case):
    arguments, error, message = BAD_IMAGES[case]
    with pytest.raises(error, match=message):
        Images(*arguments)


def test_images_that_do_not_fit_the_classifier_are_refused():
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 1, 8, 8\), got \(24, 3, 8, 8\)"):
        batches(make_images(shape=(3, 8, 8)))
    with pytest.raises(ValueError, match=r"y: expected class indices in \[0, 3\], got values in \[0, 6\]"):
        batches(make_images(classes=7))
    with pytest.raises(ValueError, match="y: expected None, since Images brings its own labels"):
        batches(make_images(), np.zeros(24))
