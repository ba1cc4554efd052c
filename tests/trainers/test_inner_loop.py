"""Options that make the inner loop cheaper: early stopping, warm starts, a rising number of steps; off by default."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from art.attacks.evasion import FastGradientMethod
from art_lbgat.trainers.adversary import Adversary, validation_adversary
from art_lbgat.trainers.warm_starts import WarmStarts

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, RunOptions
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.classifier import TensorView
from art_lbgat.data import MixedData
from art_lbgat.preserve import Key
from tests import reference_lbgat as reference
from tests.conftest import copied_state, make_classifier, make_data, states_equal
from tests.trainers.cases import ADVERSARIAL, OPTIONS, another, pgd
from tests.trainers.test_cost import Counting, Passes

N, SEED = 24, OPTIONS["seed"]
RADII = {"inf": (0.2, 0.05), 2: (1.0, 0.3)}
NORMS = pytest.mark.parametrize("norm", RADII, ids=["linf", "l2"])
KINDS = pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
EVERY = pytest.mark.parametrize("build", ADVERSARIAL.values(), ids=ADVERSARIAL)


def trained(epochs=6):
    """A net that is right about most samples and can be fooled, after as many steps as its margin asks for."""
    classifier = make_classifier(lr=0.05)
    NaturalTrainer(classifier, **OPTIONS).fit(*make_data(64), batch_size=16, nb_epochs=epochs)
    return classifier


def friendly(model, x, y, start, eps, step, iterations, tau, norm, trades):
    """Algorithm 1 of arXiv 2002.11242, a sample at a time; (x_adv, steps of each sample)."""
    model.eval()
    results, steps = [], []
    for x0, y0, x_adv in zip(x.split(1), y.split(1), start.split(1), strict=True):
        natural, left, k = F.softmax(model(x0), dim=1).detach(), tau, iterations
        while k > 0:
            x_adv = x_adv.detach().requires_grad_(True)
            logits = model(x_adv)
            if logits.argmax(dim=1) != y0:
                if left == 0:
                    break
                left -= 1
            log = F.log_softmax(logits, dim=1)
            loss = F.kl_div(log, natural, reduction="sum") if trades else F.nll_loss(log, y0, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = reference.ascend(x_adv.detach(), x0, gradient, eps, step, norm)
            k -= 1
        results.append(x_adv.detach())
        steps.append(iterations - k)
    return torch.cat(results), steps


def make_attack(kind, classifier, norm, **kwargs):
    eps, eps_step = RADII[norm]
    return kind(classifier, norm=norm, eps=eps, eps_step=eps_step, max_iter=8, **kwargs)


@NORMS
@KINDS
@pytest.mark.parametrize("tau", [0, 1, 3])
def test_early_stopped_ascent_is_the_published_algorithm(kind, norm, tau):
    """Of a sample alone and of many at once gradients may differ in the last bit, of which Linf takes the sign only."""
    classifier = trained()
    x, y = (torch.from_numpy(a) for a in make_data(N, seed=1))
    attack = make_attack(kind, classifier, norm, early_stop_steps=tau)
    start = make_attack(kind, classifier, norm)
    start.set_params(max_iter=0)
    start = start.perturb(x, y, torch.Generator().manual_seed(0))
    x_adv = attack.perturb(x, y, torch.Generator().manual_seed(0))
    expected, steps = friendly(classifier.model, x, y, start, *RADII[norm], 8, tau, norm, kind is TRADESAttack)
    assert len(set(steps)) > 2  # some stop at once, some never, some between
    if norm == "inf":
        assert torch.equal(x_adv, expected)
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-5)


@NORMS
@KINDS
def test_tau_as_large_as_max_iter_is_pgd_bit_for_bit(kind, norm):
    classifier = trained()
    x, y = (torch.from_numpy(a) for a in make_data(N, seed=1))
    found = [
        make_attack(kind, classifier, norm, early_stop_steps=tau).perturb(x, y, torch.Generator().manual_seed(0))
        for tau in (None, 8)
    ]
    assert torch.equal(*found)


@KINDS
def test_early_stopping_follows_radii_per_sample_soft_labels_and_predictions(kind):
    classifier = trained()
    x, y = make_data(9, seed=1)
    eps = np.linspace(0.05, 0.25, 9)
    guessed = classifier.predict(x).argmax(axis=1)
    whole = kind(classifier, eps=eps, eps_step=eps / 4, max_iter=8, early_stop_steps=0)
    torch.manual_seed(0)
    x_adv = whole.generate(x, y)
    assert (np.abs(x_adv - x).reshape(9, -1).max(axis=1) <= eps + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    if kind is TRADESAttack:  # whose loss has no labels: they only stop it, by the largest probability
        torch.manual_seed(0)
        assert np.array_equal(whole.generate(x, 0.9 * np.eye(4, dtype=np.float32)[y] + 0.025), x_adv)
    torch.manual_seed(0)
    predicted = whole.generate(x, guessed)
    torch.manual_seed(0)
    assert np.array_equal(whole.generate(x), predicted)


def test_what_is_already_wrong_is_not_moved_and_costs_one_forward():
    classifier = trained()
    x, _ = make_data(N, seed=1)
    wrong = (classifier.predict(x).argmax(axis=1) + 1) % 4
    attack = pgd(classifier, num_random_init=0, max_iter=8, early_stop_steps=0)
    passes = Passes(classifier.model)
    assert np.array_equal(attack.generate(x, wrong), x)
    assert (passes.forwards, passes.input_backwards) == (1, 0)


def rows_counted(module):
    """Rows of all forwards and of all backwards to the input of a frozen net."""
    counted, parameter = {"forward": 0, "backward": 0}, next(module.parameters())

    def forward(_, args, output):
        if not parameter.requires_grad:
            counted["forward"] += len(args[0])

    def backward(_, grad_input, grad_output):
        if not parameter.requires_grad:
            counted["backward"] += len(grad_output[0])

    module.register_forward_hook(forward)
    module.register_full_backward_hook(backward)
    return counted


@KINDS
def test_history_holds_the_measured_steps_and_passes_and_cost_the_most(kind):
    classifier = trained(3)
    attack = kind(classifier, eps=0.4, eps_step=0.1, max_iter=6, early_stop_steps=1)
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    counted = rows_counted(classifier.model)
    trainer.fit(*make_data(N), batch_size=N // 2, nb_epochs=2)
    history = trainer.history
    assert history.attack_passes.sum() * N == pytest.approx(sum(counted.values()))
    natural = kind is TRADESAttack
    assert (history.attack_steps < 6).all()
    assert (history.attack_passes >= 2 * history.attack_steps + natural).all()
    most = trainer.cost.student_forwards - 1 + trainer.cost.student_input_backwards
    assert (history.attack_passes <= most).all()
    assert most == 12 + natural


def test_early_stopping_does_not_reach_validation():
    classifier = make_classifier()
    view = TensorView(classifier)
    adversary = Adversary(pgd(classifier, early_stop_steps=0), view)
    assert adversary.ascent.early_stop_steps == 0
    assert validation_adversary(adversary, view).ascent.early_stop_steps is None


def recorded(trainer):
    """The x_adv of each step."""
    seen = []
    trainer._joint.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    return seen


@NORMS
@EVERY
def test_a_warm_start_goes_on_from_the_last_x_adv_in_the_ball(build, norm):
    """With no step, x_adv is its own start: the first one for ever, projected while the ball is small."""
    x, y = make_data(N)
    classifier = make_classifier()
    eps, _ = RADII[norm]
    attack = pgd(classifier, norm=norm, eps=eps, max_iter=0)
    trainer = build(classifier, attack=attack, warm_start=True, eps_warmup_epochs=2)
    seen = recorded(trainer)
    trainer.fit(x, y, batch_size=10, nb_epochs=3)
    by_row = []
    for epoch in (1, 2, 3):
        order = torch.randperm(N, generator=Key(SEED, 1, epoch).generator("order"))
        x_adv = torch.cat(seen[3 * epoch - 3 : 3 * epoch])
        by_row.append(torch.empty_like(x_adv).index_copy_(0, order, x_adv))
    torch.testing.assert_close(by_row[0], by_row[2], rtol=0, atol=1e-6)
    assert torch.equal(by_row[1], by_row[2]) or norm == 2
    delta = (by_row[0] - torch.from_numpy(x)).flatten(1)
    size = delta.abs().amax(dim=1) if norm == "inf" else delta.norm(dim=1)
    assert size.max() <= eps / 2 + 1e-6
    assert size.min() > 0


@NORMS
def test_warm_started_steps_are_those_of_a_plain_transcription(norm):
    x, y = (torch.from_numpy(a) for a in make_data(N))
    eps, step = RADII[norm]
    classifier = make_classifier()
    attack = PGDAttack(classifier, norm=norm, eps=eps, eps_step=step, max_iter=2)
    states = [copied_state(classifier.model)]

    class Spy:
        def step(self):
            states.append(copied_state(classifier.model))

    trainer = MadryTrainer(classifier, attack, warm_start=True, **OPTIONS)
    seen = recorded(trainer)
    trainer.fit(x.numpy(), y.numpy(), batch_size=N, nb_epochs=3, scheduler=Spy())
    last, model = None, make_classifier().model.eval()
    for epoch in (1, 2, 3):
        model.load_state_dict(states[epoch - 1])
        order = torch.randperm(N, generator=Key(SEED, 1, epoch).generator("order"))
        xb, yb = x[order], y[order]
        if last is None:
            x_adv = seen[0]
        else:
            x_adv = reference.ascend(last[order], xb, torch.zeros_like(xb), eps, 0.0, norm)
            for _ in range(2):
                point = x_adv.requires_grad_(True)
                (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), yb, reduction="sum"), point)
                x_adv = reference.ascend(point.detach(), xb, gradient, eps, step, norm)
            assert torch.equal(x_adv, seen[epoch - 1])
        last = torch.empty_like(x_adv).index_copy_(0, order, x_adv)


@EVERY
def test_a_warm_start_is_forgotten_by_the_next_fit_and_repeats_bit_for_bit(build):
    x, y = make_data(N)
    found = []
    for _ in range(2):
        classifier = make_classifier()
        trainer = build(classifier, warm_start=True)
        seen = recorded(trainer)
        trainer.fit(x, y, batch_size=8, nb_epochs=2)
        classifier.model.load_state_dict(make_classifier().model.state_dict())
        trainer.fit(x, y, batch_size=8, nb_epochs=1)
        found.append((seen, copied_state(classifier.model)))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert states_equal(found[0][1], found[1][1])
    cold = build(make_classifier())
    cold._fits = 1  # the second fit draws other starts than the first
    first = recorded(cold)
    cold.fit(x, y, batch_size=8, nb_epochs=1)
    assert torch.equal(first[0], found[0][0][6])


def test_a_warm_start_makes_a_few_steps_stronger():
    """The loss that two steps reach in a later epoch, on weights that do not change."""
    x, y = make_data(N)
    losses = {}
    for warm in (False, True):
        classifier = trained()
        for group in classifier.optimizer.param_groups:
            group.update(lr=0.0, weight_decay=0.0, momentum=0.0)
        attack = pgd(classifier, eps=0.2, eps_step=0.02, max_iter=2)
        trainer = MadryTrainer(classifier, attack, warm_start=warm, **OPTIONS)
        trainer.fit(x, y, batch_size=N, nb_epochs=4)
        losses[warm] = trainer.history.filter(regex="^loss$").iloc[:, 0].tolist()
    assert losses[True][0] == losses[False][0]
    assert losses[True][3] > 1.1 * max(losses[False])


@NORMS
@KINDS
def test_a_warm_start_is_projected_onto_ball_and_range(kind, norm):
    classifier = make_classifier()
    x, y = (torch.from_numpy(a) for a in make_data(N))
    eps, _ = RADII[norm]
    adversary = Adversary(make_attack(kind, classifier, norm), TensorView(classifier))
    far = x + 3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    kept = far.clone()
    x_adv = adversary.examples(x, y, Key(0), 0.5, max_iter=0, warm_start=far)
    size = (x_adv - x).flatten(1)
    size = size.abs().amax(dim=1) if norm == "inf" else size.norm(dim=1)
    assert size.max() <= eps / 2 + 1e-6
    assert size.min() > 0.9 * eps / 2 or norm == 2
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert torch.equal(adversary.examples(x, y, Key(1), 0.5, max_iter=0, warm_start=far), x_adv)
    adversary.examples(x, y, Key(1), warm_start=far)
    assert torch.equal(far, kept)


def test_warm_starts_of_unknown_samples_are_none():
    warm = WarmStarts(4)
    rows, x_adv = torch.tensor([2, 0]), torch.rand(2, 1, 2, 2)
    assert warm.get(rows) is None
    warm.put(None, x_adv)
    warm.put(rows, x_adv)
    assert warm.get(None) is None
    assert warm.get(torch.tensor([0, 1])) is None
    assert torch.equal(warm.get(torch.tensor([0, 2])), x_adv.flip(0))
    warm.get(rows).zero_()
    assert torch.equal(warm.get(rows), x_adv)


def test_what_a_warm_start_cannot_follow_is_refused():
    x, y = make_data(N)
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, pgd(classifier), warm_start=True, **OPTIONS)
    with pytest.raises(ValueError, match=r"warm_start: expected no augmentation, .*got augmentation='crop\+flip'"):
        trainer.fit(x, y, nb_epochs=1, augmentation="crop+flip")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8
    )
    for data in ((loader,), (MixedData((x, y), (x, y), 0.5),)):
        with pytest.raises(ValueError, match="warm_start: expected arrays or Images"):
            trainer.fit(*data, nb_epochs=1)
    generate = MadryTrainer(classifier, FastGradientMethod(classifier, norm=2, eps=0.1), warm_start=True, **OPTIONS)
    with pytest.raises(ValueError, match="warm_start: expected False for an attack that runs through"):
        generate.fit(x, y, nb_epochs=1)
    assert trainer.history.empty
    NaturalTrainer(classifier, warm_start=True, **OPTIONS).fit(x, y, nb_epochs=1, augmentation="flip")  # no attack


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_rising_number_of_steps_is_taken_and_recorded(restarts):
    classifier = make_classifier()
    attack = pgd(classifier, max_iter=5, num_random_init=restarts)
    trainer = MadryTrainer(classifier, attack, max_iter_warmup_epochs=4, **OPTIONS)
    student, seen = Passes(classifier.model), []
    trainer.fit(*make_data(8), batch_size=8, nb_epochs=6, scheduler=Counting(student, seen))
    expected = [math.ceil(5 * min(1, e / 4)) for e in range(1, 7)]
    assert trainer.history.max_iter.tolist() == expected == [2, 3, 4, 5, 5, 5]
    choose = restarts if restarts > 1 else 0
    assert np.diff([0, *seen]).tolist() == [restarts * k + choose + 1 for k in expected]
    assert trainer.cost.student_forwards == restarts * 5 + choose + 1  # after the warm-up
    assert attack.max_iter == 5


def test_the_number_of_steps_is_exactly_the_ceiling():
    for epochs in range(1, 60):
        steps = [RunOptions(max_iter_warmup_epochs=epochs).steps(10, e) for e in range(1, epochs + 2)]
        assert steps == sorted(steps)
        assert (steps[0], steps[-2], steps[-1]) == (-(-10 // epochs), 10, 10)
    assert RunOptions(max_iter_warmup_epochs=10).steps(10, 3) == 3
    assert RunOptions().steps(10, 1) == 10


@EVERY
def test_all_options_together_train_with_every_method(build):
    x, y = make_data(N)
    classifier = make_classifier()
    attack = pgd(classifier, eps=0.1, max_iter=4, early_stop_steps=1)
    trainer = build(classifier, attack=attack, warm_start=True, max_iter_warmup_epochs=2)
    trainer.fit(x, y, batch_size=8, nb_epochs=3)
    assert trainer.history.max_iter.tolist() == [2, 4, 4]
    assert trainer.history.loss.notna().all()
    assert (trainer.history.attack_steps <= trainer.history.max_iter).all()


def test_without_the_options_nothing_is_kept_or_recorded():
    classifier = make_classifier()
    trainer = LBGATTrainer(classifier, another(classifier), pgd(classifier), **OPTIONS)
    trainer.fit(*make_data(N), nb_epochs=1)
    assert not {"max_iter", "attack_steps", "attack_passes"} & set(trainer.history)


BAD = {
    "tau below 0": (lambda: PGDAttack(make_classifier(), early_stop_steps=-1), ValueError, "early_stop_steps: expected a whole number >= 0, got -1"),
    "tau 1.5": (lambda: TRADESAttack(make_classifier(), early_stop_steps=1.5), TypeError, "early_stop_steps: expected a whole number"),
    "restarts": (
        lambda: PGDAttack(make_classifier(), early_stop_steps=1, num_random_init=3), ValueError,
        "num_random_init: expected at most 1 with early_stop_steps=1, got 3"),
    "restarts of trades": (
        lambda: TRADESAttack(make_classifier(), early_stop_steps=0, num_random_init=2), ValueError, "num_random_init: expected at most 1"),
    "warm_start": (lambda: RunOptions(warm_start="yes"), TypeError, "warm_start: expected a bool, got 'yes'"),
    "steps": (lambda: RunOptions(max_iter_warmup_epochs=-1), ValueError, "max_iter_warmup_epochs: expected a whole number >= 0"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "match"), BAD.values(), ids=BAD)
def test_construction_refuses(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_a_rising_number_of_steps_needs_the_tensor_loop():
    classifier = make_classifier()
    attack = FastGradientMethod(classifier, norm=2, eps=0.1)
    trainer = BGATTrainer(classifier, another(classifier), attack, max_iter_warmup_epochs=2, **OPTIONS)
    with pytest.raises(ValueError, match="max_iter_warmup_epochs: expected 0 for an attack that runs through"):
        trainer.fit(*make_data(8), nb_epochs=1)
