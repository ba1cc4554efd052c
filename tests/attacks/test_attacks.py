"""Strength against closed forms, geometry as properties, and manners of the tensor attacks."""

import math

import numpy as np
import pytest
import torch
from art.attacks.attack import EvasionAttack
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from art_lbgat import MadryTrainer
from art_lbgat.attacks import ATTACK_LOSSES, Ascent, AttackLoss, PGDAttack, TRADESAttack, projections
from art_lbgat.attacks.pgd import ascend, cross_entropy, draw_start, kl_to_natural, margin
from art_lbgat.evaluation import evaluate
from tests import reference_lbgat as reference
from tests.conftest import copied_state, make_classifier, make_data, states_equal

NORMS = pytest.mark.parametrize("norm", [math.inf, 2.0], ids=["linf", "l2"])
KINDS = pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
# name: (the attack, the loss that it ascends)
OBJECTIVES = {
    "ce": (PGDAttack, "ce"),
    "margin": (lambda c, **k: PGDAttack(c, objective="cw", **k), "cw"),
    "kl": (lambda c, **k: PGDAttack(c, objective="kl", **k), "kl"),
    "trades": (TRADESAttack, "kl"),
}


def size(delta, norm):
    """The length of each row in the norm."""
    delta = np.asarray(delta).reshape(len(delta), -1)
    return np.abs(delta).max(axis=1) if norm == math.inf else np.linalg.norm(delta, axis=1)


@NORMS
@KINDS
def test_is_the_published_attack_bit_for_bit(kind, norm, classifier):
    x, y = (torch.from_numpy(array) for array in make_data(12))
    eps, step = (0.1, 0.03) if norm == math.inf else (0.8, 0.3)
    attack = kind(classifier, norm=norm, eps=eps, eps_step=step, max_iter=5)
    x_adv = attack.perturb(x, y, torch.Generator().manual_seed(0))
    noise, name = draw_start(attack.ascent(), x, torch.Generator().manual_seed(0)), "inf" if norm == math.inf else "2"
    if kind is TRADESAttack:
        expected = reference.trades_attack(classifier.model, x, noise, eps, step, 5, name)
    else:
        expected = reference.pgd_attack(classifier.model, x, y, noise, eps, step, 5, name)
    assert torch.equal(x_adv, expected)


@NORMS
@pytest.mark.parametrize("name", OBJECTIVES)
def test_reaches_the_known_worst_case_of_a_linear_net(name, norm):
    """``max_{||d|| <= eps} margin drop = eps * ||w||_dual``: the L1 norm for Linf, the L2 norm for L2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.normal_(model[1].weight, std=0.3)
    classifier = make_classifier(model, classes=2, clip_values=None)
    x, _ = make_data(16, classes=2)
    x = x - 0.5
    weight = classifier.model[1].weight.detach().numpy()
    y = classifier.predict(x).argmax(axis=1)
    eps = 0.02 if norm == math.inf else 0.1
    direction = weight[1 - y] - weight[y]
    best = eps * (np.abs(direction).sum(axis=1) if norm == math.inf else np.linalg.norm(direction, axis=1))
    build, loss = OBJECTIVES[name]
    x_adv = build(classifier, norm=norm, eps=eps, eps_step=eps / 4, max_iter=20).generate(x, y)
    reached = ((x_adv - x).reshape(16, -1) * direction).sum(axis=1)
    if loss == "kl":  # grows both ways, and the start decides which; so compare the size
        reached = np.abs(reached)
    assert (reached <= best * (1 + 1e-4)).all()
    assert (reached >= 0.99 * best).all()


@NORMS
@KINDS
def test_one_radius_per_sample(kind, norm, classifier):
    x, y = make_data(7)
    eps = np.linspace(0.0, 0.2, 7)
    found = []
    for shape, batch_size in (((7,), 7), ((7, 1, 1, 1), 7), ((7,), 3)):
        torch.manual_seed(0)
        radii = {"eps": eps.reshape(shape), "eps_step": 0.1 * eps.reshape(shape) + 1e-6}
        found.append(kind(classifier, norm=norm, max_iter=15, batch_size=batch_size, **radii).generate(x, y))
        assert (size(found[-1] - x, norm) <= eps + 1e-6).all()
        assert (size(found[-1] - x, norm)[1:] >= 0.8 * eps[1:]).all()
    assert np.array_equal(found[0], found[1])
    with pytest.raises(ValueError, match="eps: expected one number, or 6, one per sample, got 7"):
        kind(classifier, norm=norm, eps=eps, eps_step=0.1).generate(x[:6], y[:6])


@NORMS
@KINDS
def test_inside_ball_and_range_deterministic_and_independent_of_batch_size(kind, norm, classifier):
    x, y = make_data(11)
    eps = 0.1 if norm == math.inf else 0.7
    results = []
    for batch_size in (1, 4, 11):
        torch.manual_seed(0)
        attack = kind(classifier, norm=norm, eps=eps, eps_step=eps / 3, max_iter=4, batch_size=batch_size)
        results.append(attack.generate(x, y))
    for x_adv in results:
        assert size(x_adv - x, norm).max() <= eps + 1e-6
        assert size(x_adv - x, norm).min() > 0.5 * eps
        assert 0 <= x_adv.min() <= x_adv.max() <= 1
        assert x_adv.dtype == np.float32
        # logits differ in the last bit with the batch size, which a first step from a KL near 0 enlarges in L2
        np.testing.assert_allclose(x_adv, results[0], atol=1e-4 if norm == math.inf else 2e-3)


@KINDS
def test_perturb_and_equal_radii_per_sample_give_the_same(kind, classifier):
    x, y = make_data(8)
    attack = kind(classifier, eps=0.1, eps_step=0.05, max_iter=3)
    torch.manual_seed(1)
    expected = attack.generate(x, y)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    found = attack.perturb(*tensors, torch.Generator().manual_seed(1))
    assert np.array_equal(found.numpy(), expected)
    assert torch.equal(attack.perturb(tensors[0], tensors[1][:, None], torch.Generator().manual_seed(1)), found)
    attack.set_params(eps=np.full(8, 0.1), eps_step=np.full((8, 1, 1, 1), 0.05))
    torch.manual_seed(1)
    np.testing.assert_allclose(attack.generate(x, y), expected, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_restarts_keep_the_highest_loss_for_each_sample(name, classifier):
    x, y = make_data(16)
    build, objective = OBJECTIVES[name]
    loss, target = ATTACK_LOSSES[objective]
    of = torch.from_numpy(y) if target == "labels" else torch.from_numpy(classifier.predict(x)).softmax(dim=1)
    values = []
    for restarts in (1, 5):
        torch.manual_seed(0)
        attack = build(classifier, eps=0.2, eps_step=0.2, max_iter=1, num_random_init=restarts)
        attack.set_params(**({"start_std": 0.05} if name == "trades" else {}))
        values.append(loss(torch.from_numpy(classifier.predict(attack.generate(x, y))), of))
    assert (values[1] >= values[0] - 1e-6).all()
    assert (values[1] > values[0] + 1e-6).any()


@KINDS
def test_leaves_the_model_as_it_was(kind, classifier):
    classifier.model.train()
    classifier.model[1].eval()
    classifier.model[3].weight.requires_grad_(False)
    state = copied_state(classifier.model)
    modes = [m.training for m in classifier._model.modules()]
    x, y = make_data(8)
    kind(classifier, eps=0.1, eps_step=0.05, max_iter=3).generate(x, y)
    assert states_equal(state, classifier.model.state_dict())
    assert modes == [m.training for m in classifier._model.modules()]
    assert [p.requires_grad for p in classifier.model.parameters()].count(False) == 1
    assert all(p.grad is None for p in classifier.model.parameters())


def test_are_art_attacks_with_settable_parameters(classifier):
    attack = PGDAttack(classifier)
    assert isinstance(attack, EvasionAttack)
    attack.set_params(eps=0.05, eps_step=0.01, max_iter=3, num_random_init=0, norm="inf")
    assert (attack.ascent().eps, attack.ascent().max_iter, attack.ascent().start) == (0.05, 3, "none")
    with pytest.raises(ValueError, match="eps: expected a finite number >= 0"):
        attack.set_params(eps=-1.0)
    with pytest.raises(ValueError, match="cannot be set"):
        attack.set_params(unknown=1)
    with pytest.raises(TypeError, match=r"PGDAttack.generate takes no keyword \['masks'\]"):
        attack.generate(*make_data(4), masks=np.ones((1, 8, 8)))
    assert "eps=0.05" in repr(PGDAttack(classifier, eps=0.05))


def test_zero_steps_give_the_start_and_zero_eps_gives_x(capsys, classifier):
    x, y = make_data(8)
    for options in ({"max_iter": 0, "num_random_init": 0}, {"norm": 2, "eps": 0.0, "verbose": True}):
        assert np.array_equal(PGDAttack(classifier, eps_step=0.1, **options).generate(x, y), x)
    assert "PGDAttack" in capsys.readouterr().err
    attack = PGDAttack(classifier, eps=0.1, num_random_init=0)  # without labels the predictions are used, as in ART
    assert np.array_equal(attack.generate(x), attack.generate(x, classifier.predict(x).argmax(axis=1)))


def test_attack_losses_are_their_equations():
    torch.manual_seed(0)
    a, b, y = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    p, q = torch.softmax(b, 1), torch.softmax(a, 1)
    torch.testing.assert_close(kl_to_natural(a, p), (p * (p / q).log()).sum(dim=1))
    torch.testing.assert_close(cross_entropy(a, y), -q[range(5), y].log())
    others = torch.stack([torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(a, y, strict=True)])
    torch.testing.assert_close(margin(a, y), others - a[range(5), y])
    torch.testing.assert_close(margin(a, nn.functional.one_hot(y, 4).float() * 0.7 + 0.1), margin(a, y))


def test_a_new_attack_loss_is_one_function_and_one_entry(monkeypatch):
    """Here of both kinds: of the labels, and of the natural prediction; each attacks and trains by its name."""

    def lowest_own_logit(logits, y):
        return -logits.gather(1, y[:, None]).squeeze(1)

    def other_prediction(logits, natural):
        return -(natural * logits).sum(dim=1)

    monkeypatch.setitem(ATTACK_LOSSES, "own", AttackLoss(lowest_own_logit))
    monkeypatch.setitem(ATTACK_LOSSES, "other", AttackLoss(other_prediction, target="natural"))
    classifier = make_classifier()
    x, y = make_data(8)
    own = {}
    for name, forwards in (("own", 5), ("other", 6)):
        attack = PGDAttack(classifier, eps=0.1, eps_step=0.025, max_iter=5, objective=name)
        assert attack.ascent().forwards() == forwards
        own[name] = classifier.predict(attack.generate(x, y))[range(8), y]
        trainer = MadryTrainer(classifier, attack, seed=0, verbose=False)
        assert trainer.cost.student_forwards == forwards + 1
    assert (own["own"] < classifier.predict(x)[range(8), y]).all()
    trainer.fit(x, y, nb_epochs=1)
    assert np.isfinite(trainer.history.loss[0])


def perturb(change):
    return lambda: PGDAttack(make_classifier(), max_iter=1).perturb(*change(*map(torch.from_numpy, make_data(4))))


def ascent(**change):
    return lambda: Ascent(**{"norm": math.inf, "eps": 0.1, "eps_step": 0.1, "max_iter": 1, **change})


REFUSED = {
    "x an array": (perturb(lambda x, y: (x.numpy(), y)), TypeError, "x: expected a Tensor, got ndarray"),
    "x of doubles": (perturb(lambda x, y: (x.double(), y)), TypeError, "x: expected float32, got torch.float64"),
    "x outside": (perturb(lambda x, y: (x + 2, y)), ValueError, "x: values lie in .* outside clip_values"),
    "x of another shape": (perturb(lambda x, y: (x[:, :, :4], y)), ValueError, r"x: expected shape \(N, 1, 8, 8\)"),
    "y of int32": (perturb(lambda x, y: (x, y.int())), TypeError, "y: expected indices as int64, got torch.int32"),
    "too few y": (perturb(lambda x, y: (x, y[:2])), ValueError, "y: expected 4 labels, one per sample of x, got 2"),
    "no generator": (perturb(lambda x, y: (x, y, 3)), TypeError, "generator: expected a Generator, got int"),
    "negative eps": (ascent(eps=-1.0), ValueError, "eps: expected a finite number >= 0, got -1.0"),
    "eps of text": (ascent(eps="8/255"), TypeError, "eps: expected a finite number >= 0, got '8/255'"),
    "eps_step per pixel": (ascent(eps_step=torch.ones(2, 3)), ValueError, "eps_step: expected one number per sample"),
    "norm 1.5": (ascent(norm=1.5), ValueError, "norm: expected np.inf, 'inf' or 1 or 2, got 1.5"),
    "objective": (ascent(objective="estimate"), ValueError, "objective: expected one of .* did you mean 'estimator'"),
    "no estimator loss": (
        lambda: ascend(ascent(objective="estimator")(), torch.sin, torch.ones(1, 2), torch.ones(1), None, [None]),
        ValueError, "estimator_loss: this attack needs it, got None"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- geometry -------------------------------------------------------------------------------------------------------

TENSORS = st.integers(0, 2**31).map(lambda s: torch.Generator().manual_seed(s))


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.floats(0, 3), st.sampled_from([(1, 8, 8), (3, 4, 4), (7,), (2, 3)]))
def test_l2_projection_is_inside_idempotent_and_leaves_inner_points(generator, eps, shape):
    x = torch.rand((6, *shape), generator=generator)
    point = x + torch.randn((6, *shape), generator=generator)
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    once = projections.rescale(point, x, eps, 2, bounds)
    assert (size(once.double() - x.double(), 2) <= eps + 1e-5).all()
    assert ((once >= 0) & (once <= 1)).all()
    torch.testing.assert_close(projections.rescale(once, x, eps, 2, bounds), once, rtol=0, atol=1e-5)
    inner = x + 0.5 * (once - x)
    torch.testing.assert_close(projections.rescale(inner, x, eps, 2, bounds), inner, rtol=0, atol=1e-6)
    torch.testing.assert_close(once, reference.ascend(point, x, torch.zeros_like(x), eps, 0.0, "2"), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.floats(0, 0.5), st.floats(0.001, 0.5), st.sampled_from([(1, 8, 8), (3, 4, 4), (7,)]))
def test_a_linf_step_stays_inside_ball_and_box_and_projects_once(generator, eps, step, shape):
    """One step of the loop from a point outside, as the TRADES start may be; a second projection changes nothing."""
    x = torch.rand((6, *shape), generator=generator)
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    slope = torch.randn((6, *shape), generator=generator)
    ascent = Ascent(math.inf, eps, step, 1, start="gaussian", start_std=0.3)
    unit = torch.randn((6, *shape), generator=generator)

    def logits(point):
        value = (point * slope).flatten(1).sum(dim=1)
        return torch.stack([value, -value], dim=1)

    once = ascend(ascent, logits, x, torch.ones(6, dtype=torch.long), bounds, [unit])
    low, high = torch.clamp(x - eps, 0, 1), torch.clamp(x + eps, 0, 1)
    assert ((once >= low) & (once <= high)).all()
    assert torch.equal(torch.clamp(once, low, high), once)


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.sampled_from([math.inf, 2.0]), st.sampled_from([(1, 8, 8), (1,), (5,), (2, 3)]))
def test_unit_starts_fill_the_unit_ball_and_directions_have_unit_length(generator, norm, shape):
    lengths = size(projections.unit_uniform(torch.zeros((64, *shape)), norm, generator), norm)
    assert (lengths <= 1 + 1e-6).all()
    assert lengths.max() > 0.5
    gradient = torch.randn((8, *shape), generator=generator)
    gradient[0] = 0
    lengths = size(projections.ascent_direction(gradient.clone(), norm), norm)
    assert lengths[0] == 0
    np.testing.assert_allclose(lengths[1:], 1, atol=1e-5)


def test_random_start_is_uniform_in_the_l2_ball():
    """In d dimensions the radius of a uniform point has the distribution r^d."""
    unit = projections.unit_uniform(torch.zeros(20_000, 3), 2.0, torch.Generator().manual_seed(0))
    cubed = unit.norm(dim=1) ** 3
    assert float(cubed.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(cubed.std()) == pytest.approx(1 / math.sqrt(12), abs=0.01)
    assert unit.mean(dim=0).abs().max() < 0.02


AMBIENT = [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]


@pytest.mark.parametrize("ambient", AMBIENT)
def test_ambient_contexts_change_nothing(ambient, classifier):
    x, y = make_data(8)
    attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=3)
    torch.manual_seed(0)
    expected = attack.generate(x, y)
    table = evaluate(classifier, x, y, eps=0.1, attacks=["natural", "pgd-3"])
    with ambient():
        torch.manual_seed(0)
        assert np.array_equal(attack.generate(x, y), expected)
        again = evaluate(classifier, x, y, eps=0.1, attacks=["natural", "pgd-3"])
    assert again.accuracy.tolist() == table.accuracy.tolist()
