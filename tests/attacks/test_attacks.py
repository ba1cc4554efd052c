"""Strength against closed forms, geometry as properties, and manners of the tensor attacks."""

import math

import numpy as np
import pytest
import torch
from art.attacks.attack import EvasionAttack
from art.attacks.evasion import ProjectedGradientDescent
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from art_lbgat.attacks import Ascent, PGDAttack, TRADESAttack, projections
from art_lbgat.attacks.pgd import ascend, cross_entropy, kl_to_natural, margin
from art_lbgat.evaluation import evaluate
from tests import reference_lbgat as reference
from tests.conftest import copied_state, make_classifier, make_data, states_equal

NORMS = pytest.mark.parametrize("norm", [math.inf, 2.0], ids=["linf", "l2"])


def linear(bias=0.0, clip_values=None):
    """A linear net of two classes: the margin falls along one direction, so that the worst case is known."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.normal_(model[1].weight, std=0.3)
    nn.init.constant_(model[1].bias, bias)
    return make_classifier(model, classes=2, clip_values=clip_values)


OBJECTIVES = {
    "trades": (TRADESAttack, {}),
    "ce": (PGDAttack, {"objective": "ce"}),
    "kl": (PGDAttack, {"objective": "kl"}),
    "margin": (PGDAttack, {"objective": "cw"}),
}


@NORMS
@pytest.mark.parametrize("name", OBJECTIVES)
def test_reaches_the_known_worst_case_of_a_linear_net(name, norm):
    """``max_{||d|| <= eps} margin drop = eps * ||w||_dual``: the L1 norm for Linf, the L2 norm for L2."""
    classifier = linear()
    x, _ = make_data(16, classes=2)
    x = x - 0.5
    weight = classifier.model[1].weight.detach().numpy()
    y = classifier.predict(x).argmax(axis=1)
    eps = 0.02 if norm == math.inf else 0.1
    direction = weight[1 - y] - weight[y]
    best = eps * (np.abs(direction).sum(axis=1) if norm == math.inf else np.linalg.norm(direction, axis=1))
    kind, options = OBJECTIVES[name]
    x_adv = kind(classifier, norm=norm, eps=eps, eps_step=eps / 4, max_iter=20, **options).generate(x, y)
    reached = ((x_adv - x).reshape(16, -1) * direction).sum(axis=1)
    if name in ("trades", "kl"):  # the KL grows both ways; it falls to one side by the start, so compare the size
        reached = np.abs(reached)
    assert (reached <= best * (1 + 1e-4)).all()
    assert (reached >= 0.99 * best).all()


@NORMS
@pytest.mark.parametrize("objective", ["ce", "cw"])
def test_reaches_the_known_worst_case_among_several_classes(objective, norm):
    """With few classes whose weights differ along one axis only, every objective has the same closed-form optimum."""
    torch.manual_seed(0)
    axis = torch.randn(64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None] * axis)
        model[1].bias.zero_()
    classifier = make_classifier(model, clip_values=None)
    x = np.zeros((4, 1, 8, 8), dtype=np.float32)
    eps = 0.05
    attack = PGDAttack(classifier, norm=norm, eps=eps, eps_step=eps / 4, max_iter=20, objective=objective)
    x_adv = attack.generate(x, np.zeros(4, dtype=np.int64))
    along = (x_adv.reshape(4, -1) * axis.numpy()).sum(axis=1)  # class 0 loses most to class 3, by three times this
    best = eps * float(axis.abs().sum() if norm == math.inf else axis.norm())
    np.testing.assert_allclose(along, best, rtol=0.01)


@NORMS
@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
def test_one_radius_per_sample(kind, norm):
    classifier = make_classifier()
    x, y = make_data(7)
    eps = np.linspace(0.0, 0.2, 7)
    results = {}
    for batch_size in (3, 7):
        for shape in ((7,), (7, 1, 1, 1)):
            torch.manual_seed(0)
            attack = kind(
                classifier, norm=norm, eps=eps.reshape(shape), eps_step=0.1 * eps.reshape(shape) + 1e-6, max_iter=15,
                batch_size=batch_size,
            )  # fmt: skip
            x_adv = attack.generate(x, y)
            delta = (x_adv - x).reshape(7, -1)
            size = np.abs(delta).max(axis=1) if norm == math.inf else np.linalg.norm(delta, axis=1)
            assert (size <= eps + 1e-6).all()
            assert (size[1:] >= 0.8 * eps[1:]).all()
            results[batch_size, shape] = x_adv
    assert np.array_equal(results[7, (7,)], results[7, (7, 1, 1, 1)])
    with pytest.raises(ValueError, match="eps: expected one number, or 6, one per sample, got 7"):
        kind(classifier, norm=norm, eps=eps, eps_step=0.1).generate(x[:6], y[:6])


def test_equal_radii_per_sample_are_one_radius():
    classifier = make_classifier()
    x, y = make_data(8)
    for norm in (math.inf, 2.0):
        found = []
        for eps, step in ((0.1, 0.03), (np.full(8, np.float32(0.1)), np.full((8, 1, 1, 1), np.float32(0.03)))):
            torch.manual_seed(0)
            found.append(PGDAttack(classifier, norm=norm, eps=eps, eps_step=step, max_iter=3).generate(x, y))
        np.testing.assert_allclose(*found, atol=1e-6)


def test_trades_restarts_keep_the_highest_kl():
    classifier = make_classifier()
    x, _ = make_data(16)
    values = []
    for restarts in (1, 6):
        torch.manual_seed(0)
        x_adv = TRADESAttack(
            classifier, eps=0.2, eps_step=0.2, max_iter=1, num_random_init=restarts, start_std=0.05
        ).generate(x)
        p, q = (torch.softmax(torch.from_numpy(classifier.predict(v)), dim=1) for v in (x, x_adv))
        values.append((p * (p / q).log()).sum(dim=1))
    assert (values[1] >= values[0] - 1e-6).all()
    assert (values[1] > values[0] + 1e-6).any()


@NORMS
@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
def test_inside_ball_and_range_deterministic_and_independent_of_batch_size(kind, norm):
    classifier = make_classifier()
    x, y = make_data(11)
    eps = 0.1 if norm == math.inf else 0.7
    results = []
    for batch_size in (1, 4, 11):
        torch.manual_seed(0)
        attack = kind(classifier, norm=norm, eps=eps, eps_step=eps / 3, max_iter=4, batch_size=batch_size)
        results.append(attack.generate(x, y))
    for x_adv in results:
        delta = (x_adv - x).reshape(11, -1)
        size = np.abs(delta).max(axis=1) if norm == math.inf else np.linalg.norm(delta, axis=1)
        assert size.max() <= eps + 1e-6
        assert size.min() > 0.5 * eps
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        assert x_adv.dtype == np.float32
        # logits differ in the last bit with the batch size, which a first step from a KL near 0 enlarges in L2
        np.testing.assert_allclose(x_adv, results[0], atol=1e-4 if norm == math.inf else 2e-3)


def test_generate_and_perturb_agree():
    classifier = make_classifier()
    x, y = make_data(8)
    attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=3)
    torch.manual_seed(1)
    expected = attack.generate(x, y)
    generator = torch.Generator().manual_seed(1)
    assert np.array_equal(expected, attack.perturb(torch.from_numpy(x), torch.from_numpy(y), generator).numpy())


def test_without_labels_the_predictions_are_used_as_in_art():
    classifier = make_classifier()
    x, _ = make_data(8)
    attack = PGDAttack(classifier, eps=0.1, eps_step=0.05, max_iter=3, num_random_init=0)
    predicted = classifier.predict(x).argmax(axis=1)
    np.testing.assert_array_equal(attack.generate(x), attack.generate(x, predicted))


def test_restarts_keep_the_highest_loss_for_each_sample():
    classifier = make_classifier()
    x, y = make_data(16)
    loss = nn.CrossEntropyLoss(reduction="none")
    values = []
    for restarts in (1, 5):
        torch.manual_seed(0)
        attack = PGDAttack(classifier, eps=0.2, eps_step=0.2, max_iter=1, num_random_init=restarts)
        x_adv = torch.from_numpy(attack.generate(x, y))
        with torch.no_grad():
            values.append(loss(classifier.model.eval()(x_adv), torch.from_numpy(y)))
    assert (values[1] >= values[0]).all()
    assert (values[1] > values[0]).any()


@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
def test_leaves_the_model_as_it_was(kind):
    classifier = make_classifier()
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


def test_are_art_attacks_with_settable_parameters():
    classifier = make_classifier()
    attack = PGDAttack(classifier)
    assert isinstance(attack, EvasionAttack)
    attack.set_params(eps=0.05, eps_step=0.01, max_iter=3, num_random_init=0, norm="inf")
    assert (attack.ascent().eps, attack.ascent().max_iter, attack.ascent().start) == (0.05, 3, "none")
    with pytest.raises(ValueError, match="eps: expected a finite number >= 0"):
        attack.set_params(eps=-1.0)
    with pytest.raises(ValueError, match="cannot be set"):
        attack.set_params(unknown=1)
    with pytest.raises(TypeError, match=r"PGDAttack.generate takes no keyword \['mask'\]"):
        attack.generate(*make_data(4), mask=np.ones((1, 8, 8)))
    assert "eps=0.05" in repr(PGDAttack(classifier, eps=0.05))


def test_zero_steps_give_the_start_and_zero_eps_gives_x():
    classifier = make_classifier()
    x, y = make_data(8)
    assert np.array_equal(PGDAttack(classifier, max_iter=0, num_random_init=0).generate(x, y), x)
    assert np.array_equal(PGDAttack(classifier, eps=0.0, eps_step=0.1).generate(x, y), x)
    assert np.array_equal(PGDAttack(classifier, norm=2, eps=0.0, eps_step=0.1).generate(x, y), x)


def test_stronger_than_noise_and_as_strong_as_arts_pgd():
    classifier = make_classifier()
    x, y = make_data(64)
    classifier.fit(x, y, nb_epochs=5, batch_size=16, verbose=False)
    art = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.02, max_iter=20, batch_size=64, verbose=False)
    ours = PGDAttack(classifier, eps=0.1, eps_step=0.02, max_iter=20, num_random_init=0)
    noise = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    accuracy = [
        (classifier.predict(a).argmax(axis=1) == y).mean()
        for a in (ours.generate(x, y), art.generate(x, y), np.clip(x + 0.1 * np.sign(noise), 0, 1))
    ]
    assert accuracy[0] <= accuracy[1] + 1 / 64
    assert accuracy[0] < accuracy[2]


def test_the_progress_bar_can_be_shown(capsys):
    PGDAttack(make_classifier(), max_iter=1, verbose=True).generate(*make_data(4))
    assert "PGDAttack" in capsys.readouterr().err


def test_attack_losses_are_their_equations():
    torch.manual_seed(0)
    a, b, y = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    p, q = torch.softmax(b, 1), torch.softmax(a, 1)
    torch.testing.assert_close(kl_to_natural(a, p), (p * (p / q).log()).sum(dim=1))
    torch.testing.assert_close(cross_entropy(a, y), -q[range(5), y].log())
    others = torch.stack([torch.cat([row[:k], row[k + 1 :]]).max() for row, k in zip(a, y, strict=True)])
    torch.testing.assert_close(margin(a, y), others - a[range(5), y])
    torch.testing.assert_close(margin(a, nn.functional.one_hot(y, 4).float() * 0.7 + 0.1), margin(a, y))


# --- geometry -------------------------------------------------------------------------------------------------------

TENSORS = st.integers(0, 2**31).map(lambda s: torch.Generator().manual_seed(s))


@settings(max_examples=60, deadline=None)
@given(TENSORS, st.floats(0, 3), st.sampled_from([(1, 8, 8), (3, 4, 4), (7,), (2, 3)]))
def test_l2_projection_is_inside_idempotent_and_leaves_inner_points(generator, eps, shape):
    x = torch.rand((6, *shape), generator=generator)
    point = x + torch.randn((6, *shape), generator=generator)
    bounds = (torch.tensor(0.0), torch.tensor(1.0))
    once = projections.project_l2(point, x, eps, bounds)
    size = (once.double() - x.double()).flatten(1).norm(dim=1)
    assert (size <= eps + 1e-5).all()
    assert ((once >= 0) & (once <= 1)).all()
    torch.testing.assert_close(projections.project_l2(once, x, eps, bounds), once, rtol=0, atol=1e-5)
    inner = x + 0.5 * (once - x)
    torch.testing.assert_close(projections.project_l2(inner, x, eps, bounds), inner, rtol=0, atol=1e-6)
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
    x = torch.zeros((64, *shape))
    unit = projections.unit_uniform(x, norm, generator).flatten(1)
    size = unit.abs().amax(dim=1) if norm == math.inf else unit.norm(dim=1)
    assert (size <= 1 + 1e-6).all()
    assert size.max() > 0.5
    gradient = torch.randn((8, *shape), generator=generator)
    gradient[0] = 0
    length = projections.ascent_direction(gradient.clone(), norm).flatten(1)
    assert (length[0] == 0).all()
    size = length[1:].abs().amax(dim=1) if norm == math.inf else length[1:].norm(dim=1)
    torch.testing.assert_close(size, torch.ones(7), rtol=1e-5, atol=1e-5)


def test_random_start_is_uniform_in_the_l2_ball():
    """In d dimensions the radius of a uniform point has the distribution r^d."""
    unit = projections.unit_uniform(torch.zeros(20_000, 3), 2.0, torch.Generator().manual_seed(0))
    cubed = unit.norm(dim=1) ** 3
    assert float(cubed.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(cubed.std()) == pytest.approx(1 / math.sqrt(12), abs=0.01)
    assert unit.mean(dim=0).abs().max() < 0.02


@pytest.mark.parametrize(
    "ambient", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]
)
@pytest.mark.parametrize("kind", [PGDAttack, TRADESAttack])
def test_ambient_contexts_change_nothing(kind, ambient):
    classifier = make_classifier()
    x, y = make_data(8)
    attack = kind(classifier, eps=0.1, eps_step=0.05, max_iter=3)
    torch.manual_seed(0)
    expected = attack.generate(x, y)
    table = evaluate(classifier, x, y, eps=0.1, attacks=["natural", "pgd-3"])
    with ambient():
        torch.manual_seed(0)
        assert np.array_equal(attack.generate(x, y), expected)
        generator = torch.Generator().manual_seed(0)
        found = attack.perturb(torch.from_numpy(x), torch.from_numpy(y), generator)
        assert np.array_equal(found.numpy(), expected)
        again = evaluate(classifier, x, y, eps=0.1, attacks=["natural", "pgd-3"])
    assert again.accuracy.tolist() == table.accuracy.tolist()
