"""The engine by itself: the joint module, modes, randomness, selection, the optimizer step."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat.engine.cost import Cost
from art_lbgat.engine.history import Meter
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.modes import Modes, evaluating, preserved_modes
from art_lbgat.engine.randomness import Key, draw_seed, preserved_randomness, seed_everything
from art_lbgat.engine.selection import Best
from art_lbgat.engine.step import optimizer_step
from art_lbgat.objectives import Term
from tests.conftest import conv_net


def test_joint_order_is_adversarial_then_natural_then_guides():
    calls = []

    class Named(nn.Linear):
        def forward(self, x):
            calls.append((id(self), float(x[0, 0])))
            return super().forward(x)

    student, guides = Named(2, 3), [Named(2, 3), Named(2, 3)]
    a, n = torch.full((1, 2), 1.0), torch.full((1, 2), 2.0)
    outputs = Joint(student, guides)(a, n, [n, n + 1])
    assert calls == [(id(student), 1.0), (id(student), 2.0), (id(guides[0]), 2.0), (id(guides[1]), 3.0)]
    assert list(outputs) == ["adversarial", "natural", "guide"]
    expected = (
        nn.functional.linear(n, guides[0].weight, guides[0].bias)
        + nn.functional.linear(n + 1, guides[1].weight, guides[1].bias)
    ) / 2
    torch.testing.assert_close(outputs["guide"], expected)


@pytest.mark.parametrize("train_guides", [True, False])
@pytest.mark.parametrize("natural_graph", [True, False])
def test_joint_graphs_are_only_where_asked_for(train_guides, natural_graph):
    joint = Joint(conv_net(), [conv_net()], train_guides)
    x = torch.rand(4, 1, 8, 8)
    outputs = joint(x, x, [x], natural_graph)
    assert outputs["adversarial"].requires_grad
    assert outputs["natural"].requires_grad == natural_graph
    assert outputs["guide"].requires_grad == train_guides
    assert set(joint(None, x)) == {"natural"}


def test_modes_keep_what_the_user_froze_and_restore_everything():
    net = conv_net().train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    modes = Modes(net)
    assert modes.normalizes_batches()
    modes.evaluate()
    assert not any(m.training for m in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    modes.train()
    assert net[0].training
    assert not net[1].training
    assert [p.requires_grad for p in net.parameters()] == before[1]
    modes.restore()
    assert before == ([m.training for m in net.modules()], [p.requires_grad for p in net.parameters()])
    net.eval()
    assert Modes(net).normalizes_batches()
    assert not any(m.training for m in net.modules())  # asking changes nothing
    Modes(net).train()
    assert all(m.training for m in net.modules())  # all in eval mode says nothing about freezing

    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[1].eval()
            return self

    frozen = Frozen(*conv_net()).eval()
    Modes(frozen).train()
    assert frozen.training
    assert not frozen[1].training  # but the module's own train() does
    assert not Modes(nn.Linear(2, 2)).normalizes_batches()


def test_modes_are_restored_after_an_exception():
    net = conv_net().train()
    with pytest.raises(RuntimeError, match="boom"), evaluating(net):  # noqa: PT012
        assert not net.training
        raise RuntimeError("boom")
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    with preserved_modes([net]):
        net.eval()
    assert net.training


def test_keys_are_functions_of_their_place_and_purpose_alone():
    key = Key(1, 2, 3, 4)
    assert key.derive("attack") == Key(1, 2, 3, 4).derive("attack")
    others = [Key(0, 2, 3, 4), Key(1, 1, 3, 4), Key(1, 2, 4, 4), Key(1, 2, 3, 5)]
    seeds = {key.derive("attack"), key.derive("order"), *(k.derive("attack") for k in others)}
    assert len(seeds) == 6
    assert all(0 <= s < 2**63 for s in seeds)
    first, second = (torch.rand(3, generator=key.generator("attack")) for _ in range(2))
    assert torch.equal(first, second)
    assert Key(2**40).derive("x") != Key(0).derive("x")


def test_a_key_means_the_same_in_another_process():
    code = "from art_lbgat.engine.randomness import Key; print(Key(5, 1, 2, 3).derive('attack'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == Key(5, 1, 2, 3).derive("attack")


def test_global_generators_are_put_back():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = state()
    with preserved_randomness():
        seed_everything(2**62)
        assert state() != before
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
    assert state() == before
    with preserved_randomness():
        seed_everything(2**62)
        assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    torch.manual_seed(0)
    assert draw_seed() != draw_seed()


def test_best_keeps_the_first_of_equal_scores():
    net = nn.Linear(2, 1)
    best = Best([net])
    weights = []
    for epoch, score in enumerate([(0.5,), (0.7,), (0.7,), (0.6,)], start=1):
        with torch.no_grad():
            net.weight.fill_(epoch)
        best.offer(score, epoch)
        weights.append(net.weight.clone())
    best.restore()
    assert (best.epoch, best.score) == (2, (0.7,))
    assert torch.equal(net.weight, weights[1])


def test_optimizer_step_clears_junk_first_and_leaves_unused_parameters():
    net, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*net.parameters(), *unused.parameters()], lr=1.0, weight_decay=0.5)
    before = unused.weight.detach().clone(), net.weight.detach().clone()
    unused.weight.grad = torch.full_like(unused.weight, 100.0)
    net.weight.grad = torch.full_like(net.weight, 100.0)
    optimizer_step(net(torch.ones(1, 2)).sum(), [net, unused], [optimizer], None)
    assert torch.equal(unused.weight, before[0])
    torch.testing.assert_close(net.weight, before[1] - (1 + 0.5 * before[1]))


def test_meter_weights_batches_by_their_size():
    meter = Meter()
    assert meter.means() == {}
    for value, n in ((1.0, 3), (5.0, 1)):
        logits = torch.eye(4)[:n]
        terms = {"term": Term(torch.tensor(value), 2.0)}
        meter.add(
            terms, torch.tensor(2 * value), {"adversarial": logits}, torch.zeros(n, dtype=torch.long), torch.zeros(n)
        )
    assert meter.means() == {"term": 2.0, "loss": 4.0, "train_robust_accuracy": 0.5}


def test_cost_counts_a_full_backward_twice():
    cost = Cost(13, 10, 2, 1, 1)
    assert (cost.student, cost.guide, str(cost)) == (27, 3, "27 F + 3 Fg")
