"""The random starts of a global batch are the same numbers however it is shared."""

import itertools

import pytest
import torch

from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.classifier import TensorView
from art_lbgat.engine.adversary import Adversary
from art_lbgat.preserve import Key
from art_lbgat.processes import Share
from art_lbgat.trainers import adversary
from tests.conftest import make_classifier

ATTACKS = {
    "Linf": lambda c: PGDAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
    "L2, restarts": lambda c: PGDAttack(c, norm=2, eps=0.3, eps_step=0.1, max_iter=1, num_random_init=3),
    "TRADES": lambda c: TRADESAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("chunk", [1 << 19, 64, 64 * 4, 64 * 5])
def test_shares_of_a_batch_start_where_the_whole_batch_does(attack, chunk, monkeypatch):
    monkeypatch.setattr(adversary, "_CHUNK", chunk)  # images have 64 values
    classifier = make_classifier()
    made = Adversary(ATTACKS[attack](classifier), TensorView(classifier))
    x, key = torch.rand(11, 1, 8, 8), Key(3, 1, 2, 5)
    whole = made.starts(x, key, Share(slice(0, 11), 11))
    for cuts in ((0, 11), (0, 5, 11), (0, 3, 6, 8, 11), (0, 1, 10, 11)):
        parts = [made.starts(x[a:b], key, Share(slice(a, b), 11)) for a, b in itertools.pairwise(cuts)]
        for restart, expected in enumerate(whole):
            assert torch.equal(torch.cat([part[restart] for part in parts]), expected)
    assert len({tuple(start.flatten().tolist()) for start in whole}) == len(whole)
    if chunk >= 64 * 11:
        assert all(torch.equal(a, b) for a, b in zip(whole, made.starts(x, key), strict=True))


def test_no_two_chunks_have_the_same_numbers(monkeypatch):
    monkeypatch.setattr(adversary, "_CHUNK", 64 * 3)
    classifier = make_classifier()
    made = Adversary(ATTACKS["Linf"](classifier), TensorView(classifier))
    (start,) = made.starts(torch.rand(9, 1, 8, 8), Key(0), Share(slice(0, 9), 9))
    assert len({tuple(row.flatten().tolist()) for row in start}) == 9
