"""Augmentations: drawn for each image, repeatable by key, without a trace in the global generators."""

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from art_lbgat.data import CutMix, Cutout, PerImage, RandomCropFlip, make_augmentation
from tests.data.cases import batches, make_images, pixels

ALL = ["crop", "flip", "cutout", "autoaugment", "autoaugment-svhn", "randaugment", "crop+flip+autoaugment+cutout"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def generators():
    """What the global generators are about to draw."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def pictures(n=16, channels=3, size=32, seed=0):
    return (torch.from_numpy(pixels(n, channels, size, size, seed=seed, high=255)).float() + 1) / 255


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_name_draws_for_each_image_and_repeats(name, channels):
    same = pictures(1, channels).expand(24, -1, -1, -1).contiguous()
    before = same.clone()
    augmentation = make_augmentation(name, 10)
    states = generators()
    out = augmentation(same, seeded(1))
    assert generators() == states
    assert torch.equal(same, before)
    assert (out.shape, out.dtype) == (same.shape, torch.float32)
    assert 0 <= out.min() <= out.max() <= 1
    assert len({image.numpy().tobytes() for image in out}) > (1 if name == "flip" else 4)
    torch.manual_seed(99)
    assert torch.equal(out, augmentation(same, seeded(1)))
    assert not torch.equal(out, augmentation(same, seeded(2)))


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_are_a_shifted_window_of_each_image(flip):
    x = torch.rand(32, 2, 6, 5, generator=seeded()) + 0.1
    out = RandomCropFlip(padding=2, flip=flip)(x, seeded(1))
    assert out.is_contiguous()
    places, found = [(i, j, f) for i in range(5) for j in range(5) for f in range(1 + flip)], []
    for image, source in zip(out, torch.nn.functional.pad(x, [2] * 4), strict=True):
        windows = {(i, j, f): source[:, i : i + 6, j : j + 5].flip([-1] * f) for i, j, f in places}
        found += [place for place, window in windows.items() if torch.equal(window, image)]
    assert len(found) == 32
    assert len(set(found)) > 10  # drawn for each image
    assert {f for _, _, f in found} == ({0, 1} if flip else {0})


@pytest.mark.parametrize("size", [None, 1, 5, 6, 40])
def test_cutout_blanks_one_square_that_the_border_may_cut(size):
    x = pictures(200, 2, 12)
    blank = Cutout(size)(x, seeded()) == 0
    side = min(size or 6, 12)
    assert torch.equal(blank[:, 0], blank[:, 1])
    shapes = set()
    for mask in blank[:, 0]:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        shapes.add((len(rows), len(columns)))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert max(shapes) == (side, side)
    assert (len(shapes) > 1) == (size not in (1, 40))
    assert torch.equal(Cutout(size)(x, seeded())[~blank], x[~blank])


def test_a_transform_that_changes_nothing_gives_bytes_back_exactly():
    every = (torch.arange(256).float() / 255).reshape(1, 1, 16, 16)
    assert torch.equal(PerImage(v2.Identity(), as_bytes=True)(every, seeded()), every)
    assert torch.equal(PerImage(v2.Identity())(every * 2 - 1, seeded()), every * 2 - 1)


def test_cutmix_mixes_labels_in_proportion_to_the_area():
    x = torch.stack([torch.full((1, 16, 16), i / 8) for i in range(8)])
    y = torch.arange(8)
    states = generators()
    mixed, rows = CutMix(8)(x, y, seeded(3))
    assert generators() == states
    assert rows.dtype == torch.float32
    own = (mixed == x).float().mean((1, 2, 3))
    assert 0 < own[0] < 1
    torch.testing.assert_close(rows[range(8), y], own)
    torch.testing.assert_close(rows[range(8), y.roll(1)], 1 - own)
    again, same = CutMix(8)(x, torch.nn.functional.one_hot(y, 8).float(), seeded(3))
    assert torch.equal(mixed, again)
    assert torch.equal(rows, same)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["cutmix", "crop+flip+cutmix"])
def test_the_stream_gives_soft_rows_after_cutmix(name, soft):
    x, y = make_images(n=20).arrays()
    labels = np.full((20, 4), 0.25, np.float32) if soft else y
    for batch in batches(x, labels, augmentation=name):
        assert batch.y.shape == (len(batch.x), 4)
        assert batch.y.dtype == torch.float32
        torch.testing.assert_close(batch.y.sum(1), torch.ones(len(batch.x)))
    loader = torch.utils.data.DataLoader(make_images(n=20), batch_size=8)
    assert [batch.y.shape for batch in batches(loader, augmentation=name)] == [(8, 4), (8, 4), (4, 4)]


def test_names_say_what_is_built():
    assert make_augmentation("none", 10) is None
    assert make_augmentation("crop", 10, padding=2) == RandomCropFlip(2, flip=False)
    assert make_augmentation("flip", 10) == RandomCropFlip(0, flip=True)
    assert make_augmentation("crop+flip", 10) == make_augmentation("flip+crop", 10) == RandomCropFlip(4)
    chain = make_augmentation("crop+flip+cutout", 10)
    assert (chain.parts, chain.mixes_labels) == ((RandomCropFlip(4), Cutout()), False)
    chain = make_augmentation("crop+randaugment+flip+cutmix", 7)
    assert [type(part) for part in chain.parts] == [RandomCropFlip, PerImage, RandomCropFlip, CutMix]
    assert (chain.parts[-1], chain.mixes_labels) == (CutMix(7), True)
    for name, policy in (("autoaugment", "CIFAR10"), ("autoaugment-svhn", "SVHN")):
        assert make_augmentation(name, 10).transform.policy is v2.AutoAugmentPolicy[policy]


def mixing(change):
    def augmentation(x, y, generator):
        return change(x, y)

    augmentation.mixes_labels = True
    return augmentation


def augmented(augmentation):
    return batches(make_images(), augmentation=augmentation)


REFUSED = [
    (lambda: augmented("crop+cutot"), r"augmentation: expected one of .*'cutot'; did you mean 'cutout'"),
    (lambda: augmented(""), "augmentation: expected one of"),
    (lambda: augmented("none+flip"), "augmentation: expected 'none' alone"),
    (lambda: augmented("flip+crop+flip"), "augmentation: expected each part once"),
    (lambda: augmented(mixing(lambda x, y: x)), r"augmentation: expected a pair of tensors \(x, y\) back"),
    (lambda: augmented(mixing(lambda x, y: (x, torch.ones(len(x), 5) / 5))), r"augmentation \(its labels\)"),
    (lambda: augmented(mixing(lambda x, y: (x, torch.ones(len(x), 4) / 2))), r"\(its labels\): expected rows"),
    (lambda: augmented(mixing(lambda x, y: (x[1:], y[1:]))), "augmentation: expected 8 samples as it was given, got 7"),
    (lambda: augmented(mixing(lambda x, y: (x + 1, y))), r"augmentation \(its output\): values lie in"),
    (lambda: augmented(lambda x, generator: x.numpy()), "augmentation: expected a tensor back, got ndarray"),
    (lambda: augmented(3), "augmentation: expected a callable .* or a name such as 'crop\\+flip', got int"),
    (lambda: RandomCropFlip(padding=-1), "padding: expected a whole number >= 0"),
    (lambda: Cutout(0), "size: expected a whole number >= 1"),
    (lambda: CutMix(1), "nb_classes: expected a whole number >= 2"),
    (lambda: CutMix(10, alpha=0), "alpha: expected a finite number > 0"),
    (lambda: PerImage(3), "transform: expected a function from image to image, got int"),
    (lambda: RandomCropFlip()(torch.zeros(4, 12), seeded()), r"RandomCropFlip expects images \(N, C, H, W\)"),
    (lambda: Cutout()(np.zeros((2, 1, 8, 8)), seeded()), r"Cutout expects images .* a tensor, got ndarray"),
    (lambda: CutMix(4)(pictures(4), np.arange(4), seeded()), "y: expected a tensor of labels, got ndarray"),
    (lambda: CutMix(4)(pictures(4), torch.arange(4.0), seeded()), "y: expected indices as int64, got torch.float32"),
    (lambda: make_augmentation("autoaugment", 10)(pictures(2) * 2 - 1, seeded()), r"AutoAugment expects images in \[0, 1\] .* values in \[-"),
    (lambda: make_augmentation("randaugment", 10)(pictures(2) * np.nan, seeded()), r"RandAugment expects images in \[0, 1\]"),
    (lambda: PerImage(v2.CenterCrop(8))(pictures(2), seeded()), r"CenterCrop to keep the shape \(3, 32, 32\), got \[\(3, 8, 8\)\]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_names_parameters_images_and_what_comes_back_are_checked(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
