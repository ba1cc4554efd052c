"""Classifiers with ``channels_first=False`` train and are attacked as their twins with channels first are."""

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat import MadryTrainer, NaturalTrainer
from art_lbgat.classifier import TensorView
from art_lbgat.data import RandomCropFlip
from art_lbgat.evaluation import evaluate
from art_lbgat.evaluation.autoattack import auto_attack
from art_lbgat.report import evaluate_for_report
from tests.conftest import conv_net, make_classifier, make_data
from tests.trainers.cases import OPTIONS, pgd

X, Y = make_data(24, shape=(3, 8, 8))
LAST = np.ascontiguousarray(X.transpose(0, 2, 3, 1))


class ChannelsLast(nn.Module):
    """A net on ``(N, H, W, C)``."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.permute(0, 3, 1, 2).contiguous())


def twins():
    """The same net for images ``(3, 8, 8)`` and ``(8, 8, 3)``."""
    made = []
    for shape in ((3, 8, 8), (8, 8, 3)):
        torch.manual_seed(0)
        net = conv_net(channels=3)
        last = shape[-1] == 3
        made.append(make_classifier(ChannelsLast(net) if last else net, shape=shape, channels_first=not last))
    return made


def loader(x):
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=8)


@pytest.mark.parametrize("given", ["arrays", "loader"])
@pytest.mark.parametrize("augmentation", ["flip", "crop+flip", "cutout", "randaugment", "crop+flip+cutout+cutmix",
                                          RandomCropFlip(2)])  # fmt: skip
def test_augmentation_moves_height_and_width(augmentation, given):
    histories = []
    for classifier, x in zip(twins(), (X, LAST), strict=True):
        trainer = NaturalTrainer(classifier, **OPTIONS)
        data = (x, Y) if given == "arrays" else (loader(x), None)
        trainer.fit(*data, nb_epochs=2, batch_size=8, augmentation=augmentation)
        histories.append(trainer.history.loss.tolist())
    assert histories[0] == histories[1]


def test_a_function_of_the_users_gets_the_batch_as_it_is():
    shapes = []

    def augment(x, generator):
        shapes.append(tuple(x.shape[1:]))
        return x

    for classifier, x in zip(twins(), (X, LAST), strict=True):
        NaturalTrainer(classifier, **OPTIONS).fit(x, Y, nb_epochs=1, batch_size=24, augmentation=augment)
    assert shapes == [(3, 8, 8), (8, 8, 3)]


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_autoattack_sees_images(norm, few_queries):
    found = []
    for classifier, x in zip(twins(), (X, LAST), strict=True):
        NaturalTrainer(classifier, **OPTIONS).fit(x, Y, nb_epochs=5, batch_size=8)
        settings = {"eps": 2.0 if norm == 2 else 0.2, "norm": norm, "attacks": ["square"]}
        result = auto_attack(TensorView(classifier), torch.from_numpy(x), torch.from_numpy(Y), **settings)
        found.append(result.x_adv.numpy())
    assert (found[0] != X).any()
    np.testing.assert_array_equal(found[1].transpose(0, 3, 1, 2), found[0])


def test_pages_show_the_same_pictures_and_numbers():
    pages = []
    for classifier, x in zip(twins(), (X, LAST), strict=True):
        MadryTrainer(classifier, pgd(classifier), **OPTIONS).fit(x, Y, nb_epochs=2, batch_size=8)
        options = {"attacks": ["pgd-2"], "n_sanity": 0, "resolution": 4, "n_pictures": 3, "curve_eps": ()}
        pages.append(evaluate_for_report(classifier, x, Y, eps=0.03, **options))
    first, last = pages
    np.testing.assert_array_equal(last.pictures.x, first.pictures.x)
    assert last.pictures.x_adv.shape == (3, 3, 8, 8)
    assert last.results.accuracy.tolist() == first.results.accuracy.tolist()


@pytest.mark.parametrize(("shape", "first"), [((8, 8, 3), True), ((3, 8, 8), False), ((8, 8, 1), True)])
def test_a_layout_that_cannot_be_meant_is_refused_where_it_counts(shape, first):
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4))
    classifier = make_classifier(net, shape=shape, channels_first=first)
    x, y = make_data(8, shape=shape)
    with pytest.raises(
        ValueError, match=rf"augmentation: classifier has input_shape=.* expected channels_first={not first}"
    ):
        NaturalTrainer(classifier, **OPTIONS).fit(x, y, nb_epochs=1, augmentation="flip")
    NaturalTrainer(classifier, **OPTIONS).fit(x, y, nb_epochs=1)  # nothing asks for the layout
    assert len(evaluate(classifier, x, y, eps=0.03, attacks=["pgd-2"])) == 1
    with pytest.raises(ValueError, match=r"attacks \(square\): classifier has input_shape"):
        evaluate(classifier, x, y, eps=0.03, attacks=["autoattack"], autoattack=["square"])
