"""The engine by itself: models, modes, randomness, selection, averages, weight perturbation, the optimizer step."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from art_lbgat.classifier import TensorView
from art_lbgat.engine.history import Meter
from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.perturbation import weight_perturbation
from art_lbgat.engine.schedule import StepSchedule
from art_lbgat.engine.step import Method, Models, Passes
from art_lbgat.engine.validation import Selection
from art_lbgat.losses import Term
from art_lbgat.preserve import Key, Modes, draw_seed, evaluating, preserved_modes, preserved_randomness, seed_everything
from tests.conftest import conv_net, make_classifier


def models(natural="graph", guides=1, train_guides=False, net=conv_net):
    views = [TensorView(make_classifier(net())) for _ in range(1 + guides)]
    method = Method("test", lambda logits, y, y_guide: {}, Passes(natural), train_guides)
    modules = [view.module for view in views]
    return Models(views[0], views[1:], method, [Modes(module) for module in modules], modules)


def test_forwards_run_adversarial_then_natural_then_guides():
    calls = []

    class Named(nn.Linear):
        def forward(self, x):
            calls.append((id(self), float(x[0, 0])))
            return super().forward(x)

    made = models(guides=2, net=lambda: Named(2, 4))
    student, guides = made.student, list(made.guides)
    a, n = torch.full((1, 2), 1.0), torch.full((1, 2), 2.0)
    outputs = made(a, n, [n, n + 1])
    assert calls == [(id(student), 1.0), (id(student), 2.0), (id(guides[0]), 2.0), (id(guides[1]), 3.0)]
    assert list(outputs) == ["adversarial", "natural", "guide"]
    torch.testing.assert_close(outputs["guide"], (guides[0](n) + guides[1](n + 1)) / 2)  # an ensemble: the mean


@pytest.mark.parametrize("train_guides", [True, False])
@pytest.mark.parametrize("natural", ["graph", "value"])
def test_graphs_are_only_where_asked_for(train_guides, natural):
    made, x = models(natural, train_guides=train_guides), torch.rand(4, 1, 8, 8)
    outputs = made(x, x, [x])
    assert outputs["adversarial"].requires_grad
    assert outputs["natural"].requires_grad == (natural == "graph")
    assert outputs["guide"].requires_grad == train_guides
    assert set(made(None, x, ())) == {"natural"}


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
    code = "from art_lbgat.preserve import Key; print(Key(5, 1, 2, 3).derive('attack'))"
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


def offers(scores, **options):
    """A selection that was offered ``(natural, robust)`` accuracies, one per epoch, with the epoch as its weights."""
    net = nn.Linear(2, 1)
    selection, rows = Selection(RunOptions(**options), {"classifier": net}, nb_classes=10), []
    for epoch, (natural, robust) in enumerate(scores, start=1):
        nn.init.constant_(net.weight, epoch)
        accuracies = {"validation_natural_accuracy": natural}
        if robust is not None:
            accuracies["validation_robust_accuracy"] = robust
        rows.append(selection.offer(accuracies, epoch))
        if selection.stop:
            break
    return selection, selection.finish(len(rows)), net.weight[0, 0].item(), rows


def test_selection_keeps_the_most_robust_then_the_most_natural_then_the_first():
    _, kept, weight, _ = offers([(0.9, 0.5), (0.8, 0.7), (0.85, 0.7), (0.85, 0.7), (1.0, 0.6)])
    assert kept == (3, "highest robust validation accuracy (0.7000) of 5 validated epochs")
    assert weight == 3
    _, kept, weight, _ = offers([(0.9, None), (0.8, None)])
    assert kept == (1, "highest natural accuracy (0.9000) of 2 validated epochs")
    assert weight == 1
    _, kept, weight, _ = offers([(0.9, 0.5), (0.8, 0.4)], keep="last")
    assert (kept, weight) == ((2, "last epoch"), 2)


def test_selection_stops_when_patience_is_over():
    scores = [(0.5, 0.5), (0.5, 0.6), (0.5, 0.5), (0.5, 0.6), (0.5, 0.9)]
    selection, kept, weight, rows = offers(scores, patience=2)
    assert (len(rows), kept[0], weight) == (4, 2, 2)
    assert selection.stop == "no better validation accuracy for 2 validated epochs"
    assert selection.stop in kept[1]
    assert len(offers(scores, patience=3)[3]) == 5


def test_selection_reports_a_collapse_and_stops_where_asked(caplog):
    scores = [(0.1, 0.1), (0.5, 0.02), (0.5, 0.4), (0.9, 0.19), (0.9, 0.3)]
    _, kept, _, rows = offers(scores)
    assert [row["collapsed"] for row in rows] == [False, False, False, True, False]  # 0.1 is what chance gives
    assert kept[0] == 3
    assert "robust accuracy collapsed in epoch 4: 0.1900, after 0.4000 in epoch 3" in caplog.text
    selection, kept, weight, rows = offers(scores, on_collapse="stop")
    assert (len(rows), kept[0], weight) == (4, 3, 3)
    assert "collapsed" in selection.stop


def test_step_schedule_is_that_of_the_paper():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = StepSchedule((75, 90), first_epoch_factor=0.2)(optimizer)
    rates = {}
    for epoch in range(1, 101):
        rates[epoch] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
    expected = {1: 0.02, 2: 0.1, 75: 0.1, 76: 0.01, 90: 0.01, 91: 0.001, 100: 0.001}
    assert {epoch: rates[epoch] for epoch in expected} == pytest.approx(expected)
    for bad in (
        {"milestones": (5, 3)},
        {"milestones": (0,)},
        {"gamma": 0.0},
        {"gamma": 2.0},
        {"first_epoch_factor": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            StepSchedule(**bad)


def test_weight_perturbation_of_a_zero_gradient_is_zero():
    parameter = nn.Parameter(torch.ones(2, 2))
    (move,) = weight_perturbation((parameter * 0).sum(), [parameter], 0.1)
    assert torch.equal(move, torch.zeros(2, 2))


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
