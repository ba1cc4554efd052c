"""The stream of batches: arrays, bytes, mixed data and loaders, all a function of the key."""

import numpy as np
import pytest
import torch
from art.data_generators import NumpyDataGenerator
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from art_lbgat.data import Images, MixedData
from art_lbgat.preserve import Key, preserved_randomness
from art_lbgat.processes import Processes, Share
from tests.conftest import make_classifier, make_data
from tests.data.cases import KEY, batches, make_images, stream


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("augmentation", [None, "crop+flip", "crop+flip+cutout", "crop+autoaugment", "cutmix"])
@pytest.mark.parametrize("scale", [255, 16])
def test_bytes_have_the_bits_of_floats(augmentation, scale):
    images = make_images(n=19, scale=scale)
    held = batches(images, augmentation=augmentation)
    assert [len(batch.x) for batch in held] == [8, 8, 3]
    assert all(batch.x.dtype == torch.float32 for batch in held)
    assert equal(held, batches(*images.arrays(), augmentation=augmentation))
    if augmentation is None:  # every sample once, in the order of the key
        order = torch.randperm(19, generator=KEY.generator("order"))
        x, y = images.arrays()
        assert np.array_equal(torch.cat([batch.x for batch in held]), x[order])
        assert np.array_equal(torch.cat([batch.y for batch in held]), y[order])
    else:
        assert not equal(held, batches(images, augmentation=augmentation, key=Key(0, 1, 2)))


BY_PIXEL = np.zeros((1, 8, 8), np.float32), np.linspace(1, 3, 64, dtype=np.float32).reshape(1, 8, 8)


@pytest.mark.parametrize("clip_values", [(-1.0, 1.0), (0.0, 255.0), (-0.1, 0.7), None, BY_PIXEL])
def test_bytes_fill_the_range_of_the_classifier(clip_values):
    images = make_images(n=64)
    x, unit = (
        torch.cat([b.x for b in batches(images, classifier=make_classifier(clip_values=each))]).numpy()
        for each in (clip_values, (0.0, 1.0))
    )
    low, high = (np.float32(v) for v in clip_values or (0, 1))
    assert (unit.min(), unit.max()) == (0, 1)
    assert ((x >= low) & (x <= high)).all()
    assert (x == low).any()
    assert (x == high).any()
    np.testing.assert_allclose(x, low + unit * (high - low), rtol=1e-6, atol=1e-6)


def test_a_single_last_sample_is_joined_where_it_must_be():
    images = make_images(n=17)
    loader = DataLoader(images, batch_size=8)
    for data in (images, loader):
        assert [len(b.x) for b in batches(data, avoid_single=True)] == [8, 9]
        assert [len(b.x) for b in batches(data)] == [8, 8, 1]
    assert equal(batches(images)[:1], batches(images, avoid_single=True)[:1])
    with pytest.raises(ValueError, match="x: got a batch of one sample, of which BatchNorm"):
        batches(DataLoader(images, batch_size=1), avoid_single=True)


# Mixed data


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
    places, every = set(), mixed_batches(fraction)
    for step, batch in enumerate(every):
        held = np.array(numbers(batch))
        count = int((held >= 100).sum())
        places.add(tuple(held >= 100))
        if step < len(every) - 1:
            assert (len(held), count) == (16, counts)
        else:
            assert count == round((len(held) - count) * counts / (16 - counts))
        assert batch.y.tolist() == (held % 100 % 4).tolist()
    assert len(places) > 1  # extra samples are anywhere in a batch
    uses = np.bincount([number for batch in every for number in numbers(batch)], minlength=130)
    assert uses[:50].tolist() == [1] * 50
    assert uses[100:].max() - uses[100:].min() <= 1  # none again before all were used


def test_extra_samples_go_on_through_the_epochs_and_are_keyed():
    def extras(epoch, fit=1, seed=0):
        held = [n for batch in mixed_batches(0.2, key=Key(seed, fit, epoch)) for n in numbers(batch)]
        return [n for n in held if n >= 100]

    first, second, third = extras(1), extras(2), extras(3)
    assert len(first) == len(second) == len({*first, *second}) / 2 == 12
    uses = np.bincount([*first, *second, *third], minlength=130)[100:]
    assert (uses.sum(), uses.min(), uses.max()) == (36, 1, 2)
    assert extras(2) == second
    assert second not in (extras(2, seed=1), extras(2, fit=2))


def test_arrays_images_and_archives_mix_with_each_other(tmp_path):
    path = tmp_path / "generated.npz"
    np.savez(path, image=EXTRA.x.transpose(0, 2, 3, 1), label=EXTRA.y)
    expected = mixed_batches(0.3)
    for data, extra in ((DATA.arrays(), EXTRA), (DATA, EXTRA.arrays()), (DATA.arrays(), EXTRA.arrays()), (DATA, path)):
        assert equal(expected, mixed_batches(0.3, data=data, extra=extra))
    soft = np.full((30, 4), 0.25, np.float32)
    for batch in mixed_batches(0.3, extra=(EXTRA.arrays()[0], soft)):
        for number, row in zip(numbers(batch), batch.y.tolist(), strict=True):
            assert row == ([0.25] * 4 if number >= 100 else np.eye(4)[number % 4].tolist())


def test_mixed_data_with_augmentation_and_single_samples():
    every = mixed_batches(0.5, augmentation="crop+flip+cutmix")
    assert all(batch.y.shape == (len(batch.x), 4) for batch in every)
    data = numbered(15)
    assert [len(batch.x) for batch in mixed_batches(0.125, data=data)] == [16, 1]
    (joined,) = mixed_batches(0.125, data=data, avoid_single=True)
    assert sorted(n for n in numbers(joined) if n < 100) == list(range(15))
    assert len(joined.x) == 17
    with pytest.raises(ValueError, match=r"batches of one sample .* give BatchNorm"):
        mixed_batches(0.125, data=numbered(1), avoid_single=True)


# Loaders and generators


class Pieces(IterableDataset):
    """Batches as they are given, without a length."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def __iter__(self):
        return iter(self.pieces)


def loader(n=26, own_generator=True, **kwargs):
    x, y = make_data(n)
    generator = torch.Generator().manual_seed(3) if own_generator else None
    data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return DataLoader(data, **{"batch_size": 8, "shuffle": True, "generator": generator, **kwargs})


SOURCES = {
    "arrays": lambda: make_data(26),
    "mixed": lambda: (MixedData(make_data(26), make_data(9, seed=1), 0.25),),
    "data set": lambda: (loader().dataset,),
    "loader": lambda: (loader(),),
    "generator": lambda: (NumpyDataGenerator(*make_data(24), batch_size=8, shuffle=True),),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("augmentation", [None, "crop+flip"])
def test_a_stream_goes_on_from_its_state_at_any_step(source, augmentation):
    with preserved_randomness():
        whole = stream(*SOURCES[source](), augmentation=augmentation)
        epochs = [list(whole.epoch(Key(0, 1, epoch))) for epoch in (1, 2)]
        assert not equal(*epochs)
        assert whole.steps == len(epochs[0])
        for step in range(4):
            stopped = stream(*SOURCES[source](), augmentation=augmentation)
            list(stopped.epoch(KEY))
            if step:
                running = stopped.epoch(Key(0, 1, 2))
                for _ in range(step):
                    next(running)
            state = stopped.state(at_start=not step)
            again = stream(*SOURCES[source](), augmentation=augmentation)
            assert again.fingerprint() == stopped.fingerprint()
            again.load(state, Key(0, 1, 2))
            assert equal(list(again.epoch(Key(0, 1, 2), step)), epochs[1][step:])


def test_other_data_have_another_fingerprint_and_other_batches_are_refused():
    x, y = make_data(26)
    same = stream(x, y).fingerprint()
    assert stream(x, y).fingerprint() == same
    for other in (stream(x * 0.5, y), stream(x, y, batch_size=4), stream(x, y, augmentation="flip")):
        assert other.fingerprint() != same
    first, other = stream(loader()), stream(loader(shuffle=False))
    assert first.fingerprint() == other.fingerprint()
    with preserved_randomness():
        list(first.epoch(KEY))
        other.load({**first.state(at_start=False), "generators": other.state(at_start=True)["generators"]}, KEY)
        with pytest.raises(ValueError, match="x: the loader gives other batches than in the run that was stopped"):
            list(other.epoch(KEY, 4))


def test_a_joined_single_sample_keeps_soft_labels_soft():
    hard = torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])
    soft = torch.ones(1, 1, 8, 8), torch.tensor([[0.5, 0.25, 0.25, 0]])
    for pieces, order in (((hard, soft), [0, 1, 2]), ((soft, soft), [2, 2])):
        loaded = stream(DataLoader(Pieces(*pieces), batch_size=None), avoid_single=True)
        (batch,) = loaded.epoch(KEY)
        rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.25, 0.25, 0]]
        assert batch.y.tolist() == [rows[i] for i in order]
    assert loaded.steps is None


X, Y = make_data(8)


def mixing(extra, fraction=0.5, data=DATA):
    return lambda: batches(MixedData(data, extra, fraction))


def loading(*batch):
    return lambda: batches(DataLoader(Pieces(batch), batch_size=None))


REFUSED = {
    "images of another shape": (lambda: batches(make_images(shape=(3, 8, 8))), r"x: expected shape \(N, 1, 8, 8\), got \(24, 3, 8, 8\)"),
    "more classes": (lambda: batches(make_images(classes=7)), r"y: expected class indices in \[0, 3\], got values in \[0, 6\]"),
    "labels twice": (lambda: batches(make_images(), np.zeros(24)), "y: expected None, since Images brings its own labels"),
    "no labels": (lambda: batches(X), r"y: expected labels, got None \(only Images"),
    "single samples": (lambda: batches(make_images(), batch_size=1, avoid_single=True), "batch_size: batches of one sample"),
    "fraction 0": (mixing(EXTRA, 0), "extra_fraction: expected a finite number > 0, got 0"),
    "fraction 1": (mixing(EXTRA, 1.0), r"extra_fraction: expected a number in \(0, 1\), got 1.0"),
    "no pair": (mixing(X), r"extra: expected Images or arrays \(x, y\), got ndarray"),
    "empty": (mixing((X[:0], Y[:0])), "extra: expected at least one sample, got none"),
    "shape": (mixing((X[:, :, :4], Y)), r"extra: expected samples of shape \(1, 8, 8\) as in data, got \(1, 4, 8\)"),
    "no file": (mixing("nowhere.npz"), "extra: expected an .npz archive .* nowhere.npz does not exist"),
    "labels": (mixing((X, Y + 1)), r"extra \(labels\): expected class indices in \[0, 3\], got values in \[1, 4\]"),
    "length": (mixing((X, Y[:2])), r"extra \(labels\): expected 8 labels"),
    "range": (mixing((X + 2, Y)), "extra: values lie in .* outside clip_values"),
    "no extra in a batch": (mixing(EXTRA, 0.01), "extra_fraction: expected a share of which batches of 8 .* 8 of data and 0 of extra"),
    "nothing else": (mixing(EXTRA, 0.99), "extra_fraction: .* 0 of data and 8 of extra"),
    "a batch of three": (loading(X, Y, Y), r"x: every batch must be a pair \(x, y\), got 3"),
    "a batch out of range": (loading(X + 2, Y), r"x \(a batch\): values lie in .* outside clip_values"),
    "labels of a batch": (loading(X, Y + 9), r"y \(a batch\): expected class indices in \[0, 3\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        call()


def test_nan_of_a_loader_is_left_to_the_training_loop():
    (batch,) = batches(DataLoader(Pieces((X * np.nan, Y)), batch_size=None), augmentation="crop")
    assert batch.x.isnan().all()
    generator = NumpyDataGenerator(*make_data(24), batch_size=8)
    generator._size = None
    with pytest.raises(ValueError, match="generator: its size is None"):
        batches(generator)


class Half(Processes):
    """One of two processes, told of what the other has."""

    world = 2

    def __init__(self, rank, other=None):
        self.rank, self.other = rank, other

    def share(self, total):
        return Share(slice(0, total // 2) if self.rank == 0 else slice(total // 2, total), total)

    def check_same(self, value, message):
        if self.other not in (None, value):
            raise ValueError(message)
        self.other = value


@pytest.mark.parametrize("workers", [0, 2])
def test_each_process_reads_its_own_rows_of_a_loader(workers):
    with preserved_randomness():
        alone = batches(loader(25, num_workers=workers), avoid_single=True)
        first, second = Half(0), Half(1)
        halves = [batches(loader(25, num_workers=workers), avoid_single=True, processes=p) for p in (first, second)]
        assert first.other == second.other
        for whole, one, other in zip(alone, *halves, strict=True):
            assert one.share.total == other.share.total == len(whole.x)
            assert torch.equal(whole.x[one.share.rows], one.x)
            assert torch.equal(whole.x[other.share.rows], other.x)
            assert torch.equal(whole.y, torch.cat([one.y, other.y]))
        with pytest.raises(ValueError, match="x: the loaders of the processes shuffle in different orders"):
            batches(loader(25, shuffle=False), processes=Half(1, first.other))


def test_each_process_augments_its_rows_with_numbers_of_its_own_and_goes_on_where_it_was():
    def part(rank):
        images = Images(np.tile(numbered(1, 9).x, (16, 1, 1, 1)), np.zeros(16, int))
        return stream(DataLoader(images, batch_size=8), augmentation="crop", processes=Half(rank))

    with preserved_randomness():
        first, second = (list(part(rank).epoch(KEY)) for rank in (0, 1))
        assert not equal(first, second)
        stopped = part(1)
        next(stopped.epoch(KEY))
        again = part(1)
        again.load(stopped.state(at_start=False), KEY)
        (rest,) = again.epoch(KEY, 1)
    assert equal([rest], second[1:])
    assert rest.share.rows == slice(4, 8)
