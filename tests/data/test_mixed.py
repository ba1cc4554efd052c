"""Extra data mixed into every batch: exact counts, every sample, a keyed order."""

import numpy as np
import pytest
import torch

from art_lbgat import MadryTrainer
from art_lbgat.data import Images, MixedData
from art_lbgat.preserve import Key
from tests.conftest import make_classifier
from tests.data.test_images import KEY, batches
from tests.trainers.cases import pgd


def numbered(n, first=0):
    """Images that hold their own number in every pixel."""
    numbers = np.arange(first, first + n, dtype=np.uint8)
    return Images(np.tile(numbers[:, None, None, None], (1, 1, 8, 8)), np.arange(n) % 4)


def numbers(batch):
    return (batch.x[:, 0, 0, 0] * 255).round().int().tolist()


DATA, EXTRA = numbered(50), numbered(30, first=100)


def mixed_batches(fraction, batch_size=16, data=DATA, extra=EXTRA, **kwargs):
    return batches(MixedData(data, extra, fraction), batch_size=batch_size, **kwargs)


@pytest.mark.parametrize(("fraction", "counts"), [(0.3, 5), (0.5, 8), (0.7, 11), (0.05, 1)])
def test_every_batch_holds_the_exact_share_and_an_epoch_all_data(fraction, counts):
    own, extra = [], []
    every = mixed_batches(fraction)
    for step, batch in enumerate(every):
        held = numbers(batch)
        count = sum(number >= 100 for number in held)
        left = len(held) - count
        if step < len(every) - 1:
            assert (len(held), count) == (16, counts)
        else:
            assert count == round(left * counts / (16 - counts))
        assert batch.y.tolist() == [(number % 100) % 4 for number in held]
        assert batch.rows is None
        own += [number for number in held if number < 100]
        extra += [number for number in held if number >= 100]
    assert sorted(own) == list(range(50))
    uses = np.bincount(extra, minlength=130)[100:]
    assert uses.max() - uses.min() <= 1  # none again before all were used


def test_extra_samples_go_on_through_the_epochs_and_are_keyed():
    def extras(epoch, fit=1, seed=0):
        held = [n for batch in mixed_batches(0.2, key=Key(seed, fit, epoch)) for n in numbers(batch)]
        return [n for n in held if n >= 100]

    first, second, third = extras(1), extras(2), extras(3)
    assert len(first) == len(second) == 12
    assert len({*first, *second}) == 24
    uses = np.bincount([*first, *second, *third], minlength=130)[100:]
    assert uses.sum() == 36
    assert (uses.min(), uses.max()) == (1, 2)
    assert extras(2) == second
    assert extras(2, seed=1) != second
    assert extras(2, fit=2) != second


def test_places_in_a_batch_are_shuffled():
    kinds = [tuple(number >= 100 for number in numbers(batch)) for batch in mixed_batches(0.5)]
    assert all(kind != tuple(sorted(kind)) for kind in kinds[:-1])
    assert len(set(kinds)) == len(kinds)


def test_arrays_images_and_archives_mix_with_each_other(tmp_path):
    path = tmp_path / "generated.npz"
    np.savez(path, image=EXTRA.x.transpose(0, 2, 3, 1), label=EXTRA.y)
    expected = mixed_batches(0.3)
    for data, extra in ((DATA.arrays(), EXTRA), (DATA, EXTRA.arrays()), (DATA.arrays(), EXTRA.arrays()), (DATA, path)):
        for a, b in zip(expected, mixed_batches(0.3, data=data, extra=extra), strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)
    soft = np.full((30, 4), 0.25, np.float32)
    for batch in mixed_batches(0.3, extra=(EXTRA.arrays()[0], soft)):
        for number, row in zip(numbers(batch), batch.y.tolist(), strict=True):
            assert row == ([0.25] * 4 if number >= 100 else np.eye(4)[number % 4].tolist())


def test_augmentation_and_single_samples():
    every = mixed_batches(0.5, augmentation="crop+flip+cutmix")
    assert all(batch.y.shape == (len(batch.x), 4) for batch in every)
    data = numbered(15)
    sizes = [len(batch.x) for batch in mixed_batches(0.125, data=data, batch_size=16)]
    assert sizes == [16, 1]
    (joined,) = mixed_batches(0.125, data=data, batch_size=16, avoid_single=True)
    assert sorted(n for n in numbers(joined) if n < 100) == list(range(15))
    assert len(joined.x) == 17
    with pytest.raises(ValueError, match="data: 1 sample gives BatchNorm"):
        mixed_batches(0.125, data=numbered(1), avoid_single=True)


def test_a_trainer_takes_mixed_data():
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), seed=0)
    trainer.fit(MixedData(DATA, EXTRA, 0.5), batch_size=16, nb_epochs=2)
    assert trainer.history["epoch"].tolist() == [1, 2]
    assert np.isfinite(trainer.history["loss"]).all()


SOFT = (np.zeros((3, 1, 8, 8), np.float32), np.arange(3))
BAD = {
    "fraction 0": (DATA, EXTRA, 0, ValueError, "extra_fraction: expected a finite number > 0, got 0"),
    "fraction 1": (DATA, EXTRA, 1.0, ValueError, r"extra_fraction: expected a number in \(0, 1\), got 1.0"),
    "fraction NaN": (DATA, EXTRA, float("nan"), ValueError, "extra_fraction: expected"),
    "fraction text": (DATA, EXTRA, "half", TypeError, "extra_fraction: expected"),
    "no pair": (DATA, np.zeros((3, 1, 8, 8)), 0.5, TypeError, r"extra: expected Images or arrays \(x, y\), got ndarray"),
    "data no pair": (3, EXTRA, 0.5, TypeError, r"data: expected Images or arrays \(x, y\), got int"),
    "empty": (DATA, (SOFT[0][:0], SOFT[1][:0]), 0.5, ValueError, "extra: expected at least one sample, got none"),
    "shape": (DATA, (SOFT[0][:, :, :4], SOFT[1]), 0.5, ValueError, r"extra: expected samples of shape \(1, 8, 8\) as in data, got \(1, 4, 8\)"),
    "no file": (DATA, "nowhere.npz", 0.5, FileNotFoundError, "extra: expected an .npz archive .* nowhere.npz does not exist"),
    "labels": (DATA, (SOFT[0], [0, 1, 4]), 0.5, ValueError, r"extra \(labels\): expected class indices in \[0, 3\], got values in \[0, 4\]"),
    "labels of images": (DATA, Images(EXTRA.x, EXTRA.y + 3), 0.5, ValueError, r"extra \(labels\): expected class indices in \[0, 3\]"),
    "length": (DATA, (SOFT[0], [0, 1]), 0.5, ValueError, r"extra \(labels\): expected 3 labels"),
    "range": (DATA, (SOFT[0] + 2, SOFT[1]), 0.5, ValueError, "extra: values lie in .* outside clip_values"),
    "no extra in a batch": (DATA, EXTRA, 0.01, ValueError, "extra_fraction: expected a share of which batches of 8 .* 8 of data and 0 of extra"),
    "nothing else": (DATA, EXTRA, 0.99, ValueError, "extra_fraction: .* 0 of data and 8 of extra"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_mixtures_are_refused(case):
    data, extra, fraction, error, message = BAD[case]
    with pytest.raises(error, match=message):
        batches(MixedData(data, extra, fraction), batch_size=8, key=KEY)


def test_labels_beside_mixed_data_are_refused():
    with pytest.raises(ValueError, match="y: expected None, since MixedData brings its own labels"):
        batches(MixedData(DATA, EXTRA, 0.5), DATA.y)
