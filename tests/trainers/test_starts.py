"""The random starts of a global batch are the same numbers however it is shared."""

import itertools

import pytest
import torch

from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.classifier import TensorView
from art_lbgat.engine.adversary import Adversary
from art_lbgat.preserve import Key
from art_lbgat.processes import Share
from tests.conftest import make_classifier

ATTACKS = {
    "Linf": lambda c: PGDAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
    "L2, restarts": lambda c: PGDAttack(c, norm=2, eps=0.3, eps_step=0.1, max_iter=1, num_random_init=3),
    "TRADES": lambda c: TRADESAttack(c, eps=0.03, eps_step=0.01, max_iter=1),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("total", [11, 20_000])  # images of 64 values: in one chunk, and in three
def test_shares_of_a_batch_start_where_the_whole_batch_does(attack, total):
    classifier, key = make_classifier(), Key(3, 1, 2, 5)
    made, x = Adversary(ATTACKS[attack](classifier), TensorView(classifier)), torch.zeros(total, 1, 8, 8)
    whole = made.starts(x, key, Share(slice(0, total), total))
    for cuts in ((0, 5, total), (0, 3, total * 3 // 4, total), (0, 1, total - 1, total)):
        parts = [made.starts(x[a:b], key, Share(slice(a, b), total)) for a, b in itertools.pairwise(cuts)]
        for restart, expected in enumerate(whole):
            assert torch.equal(torch.cat([part[restart] for part in parts]), expected)
    rows = torch.cat([start.flatten(1) for start in whole])
    assert len(rows.unique(dim=0)) == len(rows)  # no two chunks, and no two restarts, have the same numbers
    if total == 11:
        assert all(torch.equal(a, b) for a, b in zip(whole, made.starts(x, key), strict=True))
