"""A healthy net on the digits, and what can be wrong with one."""

import functools

from torch import nn

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.data import load_digits
from art_lbgat.preserve import preserved_randomness, seed_everything
from tests.conftest import conv_net, make_classifier

EPS = 0.15


class Wrapped(nn.Module):
    """``after(model(before(x)))``."""

    def __init__(self, model, before=None, after=None):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x):
        output = self.model(x if self.before is None else self.before(x))
        return output if self.after is None else self.after(output)


def digits(n=100):
    x, y = load_digits().test
    return x[:n], y[:n]


@functools.cache
def healthy():
    """Adversarially trained for less than a second."""
    return _trained(0, _fit_robust)


@functools.cache
def natural():
    return _trained(1, lambda c: c.fit(*load_digits().train, batch_size=64, nb_epochs=4, verbose=False))


def _trained(seed, fit):
    """The same net whichever test asks first."""
    with preserved_randomness():
        seed_everything(seed)
        classifier = make_classifier(conv_net(width=12, classes=10), lr=0.02, classes=10)
        fit(classifier)
    return classifier


def _fit_robust(classifier):
    attack = PGDAttack(classifier, eps=EPS, eps_step=0.05, max_iter=5)
    MadryTrainer(classifier, attack, seed=0, verbose=False).fit(*load_digits().train, batch_size=64, nb_epochs=8)


def wrapped(**kwargs):
    """The healthy net with something wrong about it."""
    return make_classifier(Wrapped(healthy().model, **kwargs), classes=10)
