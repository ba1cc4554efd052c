"""Each loss is its equation, written out; a changed sign, factor or direction fails. What is refused says why."""

import functools

import pytest
import torch
import torch.nn.functional as F

from art_lbgat import losses
from art_lbgat.losses import Term, check_guidance, total

GENERATOR = torch.Generator().manual_seed(0)
A, B = (torch.randn(6, 5, generator=GENERATOR).requires_grad_() for _ in range(2))
Y = torch.tensor([0, 1, 2, 3, 4, 0])
SOFT = torch.softmax(torch.randn(6, 5, generator=GENERATOR), dim=1)
CPU = torch.device("cpu")


def log_p(logits):
    return logits - logits.exp().sum(dim=1, keepdim=True).log()


def cross_entropy(logits, y):
    p = y if y.ndim == 2 else F.one_hot(y, 5).float()
    return -(p * log_p(logits)).sum() / len(logits)


def kl(p_logits, q_logits):
    return (log_p(p_logits).exp() * (log_p(p_logits) - log_p(q_logits))).sum() / len(p_logits)


def mse(a, b):
    return ((a - b) ** 2).sum() / a.numel()


def published(logits_adv, logits, y, beta):
    """MART as the authors' code writes it: BCE with the runner-up class, KL weighted by 1 - p_y."""
    adv_probs = F.softmax(logits_adv, dim=1)
    top = torch.argsort(adv_probs, dim=1)[:, -2:]
    other = torch.where(top[:, -1] == y, top[:, -2], top[:, -1])
    bce = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), other)
    nat_probs = F.softmax(logits, dim=1)
    true_probs = torch.gather(nat_probs, 1, y.unsqueeze(1)).squeeze()
    divergence = torch.nn.KLDivLoss(reduction="none")(torch.log(adv_probs + 1e-12), nat_probs)
    robust = (1.0 / len(y)) * torch.sum(torch.sum(divergence, dim=1) * (1.0000001 - true_probs))
    return bce + beta * robust


def ours_mart():
    return {**losses.boosted_cross_entropy(A, Y), **losses.mart(A, B, Y, 5.0)}


def pairwise(a, n, weights):
    """wMSE of DKL as its authors' code (v2) writes it, with a C x C tensor for each sample."""
    delta_n, delta_a = (z.view(-1, 5, 1) - z.view(-1, 1, 5) for z in (n, a))
    both = weights.view(-1, 5, 1) @ weights.view(-1, 1, 5)
    return 0.25 * ((delta_n - delta_a) ** 2 * both).sum() / both.sum()


def decoupled(a, n, weights, alpha=4.0, beta=20.0, gamma=1.0):
    """``beta * wMSE + alpha * SCE`` of DKL."""
    sce = -(F.softmax(n, dim=1).detach() * F.log_softmax(a, dim=1)).sum(1).mean()
    return beta * pairwise(a, n, weights**gamma) + alpha * sce


def learnt(loss):
    """A loss that has seen an epoch of two steps, and its weights by the authors' loop; no sample is of class 4."""
    sums = torch.zeros(5, 5)
    for logits, y in ((A, Y % 4), (B, Y % 4)):
        loss.update({loss.of: logits}, y, True)
        sums = sums + F.one_hot(y, 5).float().t() @ F.softmax(logits.detach() / loss.temperature, dim=-1)
    loss.end_epoch(lambda value: value)
    weights = sums / sums.sum(dim=1, keepdim=True)
    weights[4] = 1 / 5
    return loss, weights


IKL, IKL_W = learnt(losses.IKL())
GKL, GKL_W = learnt(losses.IKL(temperature=1.0, gamma=0.2, of="natural"))

# name: (ours, the equation, the weights of the terms by their names)
MSE_CE = {"guidance_mse": 1, "adversarial_ce": 1}
CASES = {
    "mse": (lambda: losses.mse(A, B), lambda: mse(A, B), {"guidance_mse": 1}),
    "mse+ce": (lambda: losses.mse_ce(A, B, Y), lambda: mse(A, B) + cross_entropy(A, Y), MSE_CE),
    "mse+ce soft": (lambda: losses.mse_ce(A, B, SOFT), lambda: mse(A, B) + cross_entropy(A, SOFT), MSE_CE),
    "kd": (
        lambda: losses.kd(A, B, Y),
        lambda: 0.9 * cross_entropy(A, Y) + 2 * 0.1 * 16 * cross_entropy(A / 4, log_p(B / 4).exp()),
        {"adversarial_ce": 0.9, "guidance_kd": 2 * 0.1 * 16}),
    "kd T=2 b=0.5": (
        lambda: losses.kd(A, B, Y, temperature=2.0, weight=0.5),
        lambda: 0.5 * cross_entropy(A, Y) + 2 * 0.5 * 4 * cross_entropy(A / 2, log_p(B / 2).exp()),
        {"adversarial_ce": 0.5, "guidance_kd": 4}),
    "kl": (lambda: losses.kl(A, B, Y), lambda: kl(B, A) + cross_entropy(A, Y), {"guidance_kl": 1, "adversarial_ce": 1}),
    "ikl, first epoch": (
        lambda: losses.GUIDANCE["ikl"](A, B, Y), lambda: decoupled(A, B, torch.full((6, 5), 0.2)),
        {"guidance_wmse": 20, "guidance_sce": 4}),
    "ikl": (lambda: IKL(A, B, Y), lambda: decoupled(A, B, IKL_W[Y]), {"guidance_wmse": 20, "guidance_sce": 4}),
    "ikl soft": (lambda: IKL(A, B, SOFT), lambda: decoupled(A, B, SOFT @ IKL_W), {"guidance_wmse": 20, "guidance_sce": 4}),
    "gkl, a regularizer": (
        lambda: GKL(A, B, Y, weight=0.5), lambda: 0.5 * decoupled(A, B, GKL_W[Y], gamma=0.2),
        {"ikl_wmse": 10, "ikl_sce": 2}),
    "helper": (lambda: losses.helper_cross_entropy(A, B), lambda: 0.5 * cross_entropy(A, B.argmax(dim=1)), {"helper_ce": 0.5}),
    "rslad": (
        lambda: losses.rslad(A, B, Y, A * 2), lambda: (5 / 6 * kl(B, A) + 1 / 6 * kl(B, A * 2)) / 5,
        {"guidance_kl": 5 / 6, "guidance_natural_kl": 1 / 6}),
    "teacher kl": (lambda: losses.teacher_kl(A, B, 0.5), lambda: 0.5 * kl(B, A), {"teacher_kl": 0.5}),
    "nuclear": (
        lambda: losses.nuclear(A, B), lambda: torch.linalg.eigvalsh((A - B).T @ (A - B)).sqrt().sum() / 6,
        {"guidance_nuclear": 1}),
    "guide ce": (lambda: losses.guide_cross_entropy(B, Y, 3.0), lambda: 3 * cross_entropy(B, Y), {"guide_ce": 3}),
    "alp": (lambda: losses.alp(A, B, 0.7), lambda: 0.7 * mse(A, B), {"alp": 0.7}),
    "trades": (lambda: losses.trades(A, B, 6.0), lambda: 6 * kl(B, A), {"trades_kl": 6}),
    "mart": (ours_mart, lambda: published(A, B, Y, 5.0), {"adversarial_ce": 1, "adversarial_margin": 1, "mart_kl": 5}),
    "adversarial ce": (lambda: losses.adversarial_cross_entropy(A, Y), lambda: cross_entropy(A, Y), {"adversarial_ce": 1}),
    "natural ce": (lambda: losses.natural_cross_entropy(A, SOFT, 2.0), lambda: 2 * cross_entropy(A, SOFT), {"natural_ce": 2}),
}  # fmt: skip


@pytest.mark.parametrize(("ours", "equation", "weights"), CASES.values(), ids=CASES)
def test_value_gradients_and_terms_are_those_of_the_equation(ours, equation, weights):
    terms, expected = ours(), equation()
    assert {name: term.weight for name, term in terms.items()} == weights
    loss = total(terms)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for tensor in (A, B):
        options = {"retain_graph": True, "materialize_grads": True}
        got, want = (torch.autograd.grad(value, tensor, **options)[0] for value in (loss, expected))
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_kl_is_a_weighted_mse_and_a_cross_entropy():
    """Their gradients are equal: what IKL is made from."""
    a, n = (value.detach().double().requires_grad_() for value in (A, B))
    p = F.softmax(n, dim=1).detach()
    parts = losses.weighted_mse(a.detach(), n, p) + F.cross_entropy(a, p)
    for got, want in zip(*(torch.autograd.grad(value, (a, n)) for value in (parts, kl(n, a))), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_wmse_does_not_see_a_shift_of_all_classes_and_mse_is_two_of_it_and_the_shift():
    uniform = torch.full((6, 5), 0.2)
    torch.testing.assert_close(losses.weighted_mse(A + 3, B, uniform), losses.weighted_mse(A, B, uniform))
    shift = (B - A).mean(dim=1).square().mean()
    torch.testing.assert_close(mse(A, B), 2 * losses.weighted_mse(A, B, uniform) + shift)


def test_two_processes_learn_the_weights_of_one():
    loss, weights = learnt(losses.IKL())
    halves = [losses.IKL() for _ in range(2)]
    for rank, half in enumerate(halves):
        for logits in (A, B):
            half.update({"guide": logits[3 * rank : 3 * rank + 3]}, (Y % 4)[3 * rank : 3 * rank + 3], True)
            half.update({"guide": logits[:2]}, Y[:2], False)  # rows that stand in for none
    held = [half.state(lambda value: value)["sums"] for half in halves]
    resumed = [losses.IKL() for _ in range(2)]
    for rank, half in enumerate(resumed):  # from a checkpoint, which holds the sums of both
        half.load({"sums": sum(held)}, CPU, counted=rank == 0)
    for half in (*halves, *resumed[:1]):
        half.end_epoch(lambda value, half=half: sum(held) if half in halves else value)
        torch.testing.assert_close(half.state(None)["weights"], weights)
    assert not resumed[1].state(lambda value: value)["sums"].any()
    torch.testing.assert_close(loss.state(None)["weights"].sum(dim=1), torch.ones(5))


def test_rectified_labels_are_those_of_the_formula_and_probabilities():
    found = losses.rectified_labels(B.detach(), Y, 0.8, 2.0)
    for row, logits, y in zip(found, B.detach(), Y.tolist(), strict=True):
        p = (logits / 2.0).exp() / (logits / 2.0).exp().sum()
        share = min(1.0, max(0.0, 0.8 - (p.max() - p[y]).item()))
        expected = [share * p[k].item() + (1 - share) * (k == y) for k in range(5)]
        assert row.tolist() == pytest.approx(expected, rel=1e-5)
    hard = torch.zeros(6, 5)
    hard[range(6), Y] = 1
    torch.testing.assert_close(losses.rectified_labels(B, hard, 0.8, 2.0), losses.rectified_labels(B, Y, 0.8, 2.0))
    torch.testing.assert_close(losses.rectified_labels(B, SOFT, 0.0, 2.0), SOFT)


def test_soft_labels_count_as_their_largest_class_in_mart():
    soft = 0.7 * F.one_hot(Y, 5).float() + 0.06
    assert total(losses.boosted_cross_entropy(A, Y)) == total(losses.boosted_cross_entropy(A, soft))
    assert total(losses.mart(A, B, Y)) == total(losses.mart(A, B, soft))


def test_a_probability_of_zero_has_a_finite_gradient_in_mart():
    natural = torch.tensor([[200.0, 0.0, -50.0]], requires_grad=True)
    adversarial = torch.tensor([[150.0, 10.0, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    assert F.softmax(natural, dim=1)[0, 2] == 0
    total({**losses.boosted_cross_entropy(adversarial, y), **losses.mart(adversarial, natural, y)}).backward()
    assert natural.grad.isfinite().all()
    assert adversarial.grad.isfinite().all()


def test_total_adds_in_order_and_leaves_out_weight_zero():
    x, y = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0))
    loss = total({"a": Term(x * x, 2.0), "b": Term(y * float("nan"), 0.0), "c": Term(x)})
    assert loss.item() == 10
    loss.backward()
    assert x.grad.item() == 9
    assert y.grad is None


def test_the_tables_hold_what_the_paper_compares():
    assert set(losses.GUIDANCE) == {"mse", "mse+ce", "kd", "kl", "ikl", "gkl", "nuclear", "rslad"}
    assert set(losses.REGULARIZERS) == {"alp", "trades", "ikl", "gkl"}
    for table in (losses.GUIDANCE, losses.REGULARIZERS):
        assert (table["ikl"].alpha, table["ikl"].beta, table["ikl"].temperature, table["ikl"].gamma) == (4, 20, 4, 1)
        assert (table["gkl"].alpha, table["gkl"].beta, table["gkl"].temperature, table["gkl"].gamma) == (4, 20, 1, 0.2)
    for guidance in losses.GUIDANCE.values():
        check_guidance(guidance, 5, CPU)


def guided(*terms):
    """A guidance loss that returns what it is given, as functions of the adversarial logits."""
    return lambda adversarial, _guide, _y: {name: make(adversarial) for name, make in terms}


ONE = torch.tensor(1.0)
REFUSED = {
    "logits no tensor": (lambda: losses.mse(A.tolist(), B), TypeError, r"adversarial: expected a tensor of logits \(N, C\), floats, got list"),
    "logits no floats": (lambda: losses.mse(A, B.long()), TypeError, "guide: expected a tensor of logits .* floats, got torch.int64"),
    "logits of another rank": (lambda: losses.mse(A[0], B), ValueError, r"adversarial: expected logits \(N, C\), .*got shape \(5,\)"),
    "logits of two shapes": (lambda: losses.alp(A, B[:3]), ValueError, r"natural: expected shape \(6, 5\) as adversarial has, got \(3, 5\)"),
    "labels no tensor": (lambda: losses.natural_cross_entropy(A, None), TypeError, "y: expected indices .* got NoneType"),
    "too few labels": (lambda: losses.kl(A, B, Y[:3]), ValueError, r"y: expected indices \(6,\) as int64 or rows \(6, 5\) as floats, as adversarial has, got shape \(3,\)"),
    "labels of another dtype": (lambda: losses.mart(A, B, Y.int()), TypeError, "y: expected indices .* as int64 or rows .* as floats, .* got torch.int32"),
    "labels too large": (lambda: losses.guide_cross_entropy(B, Y + 1), ValueError, r"y: expected class indices in \[0, 4\], got values in \[1, 5\]"),
    "rows no probabilities": (lambda: losses.adversarial_cross_entropy(A, 2 * SOFT), ValueError, "y: expected rows that are one-hot or probabilities"),
    "negative weight": (lambda: losses.trades(A, B, -1.0), ValueError, "weight: expected a finite number >= 0, got -1.0"),
    "weight above 1": (lambda: losses.kd(A, B, Y, weight=1.5), ValueError, r"weight: expected a number in \[0, 1\], got 1.5"),
    "gamma 0": (lambda: losses.IKL(gamma=0), ValueError, "gamma: expected a finite number > 0, got 0"),
    "of nothing": (lambda: losses.IKL(of="natral"), ValueError, "of: .*did you mean 'natural'"),
    "pairs": (lambda: losses.rectified_labels(A, Y, -1.0, 2.0), ValueError, "interpolation: expected a finite number >= 0"),
    "temperature 0": (lambda: losses.kd(A, B, Y, temperature=0.0), ValueError, "temperature: expected a finite number > 0"),
    "terms no dictionary": (lambda: total([Term(ONE)]), TypeError, "terms: expected a dictionary from names to Term"),
    "a value no tensor": (lambda: total({"a": Term(1.0)}), TypeError, "terms: expected a tensor and a number under 'a'"),
    "a value no scalar": (lambda: total({"a": Term(A)}), ValueError, r"terms: expected finite scalar values .* got shape \(6, 5\) and 1.0 under 'a'"),
    "every weight 0": (lambda: total({"a": Term(ONE, 0.0)}), ValueError, r"terms: every weight is 0 in \['a'\]"),
    "guidance no function": (lambda: check_guidance("mse", 5, CPU), TypeError, r"guidance: expected a callable \(adversarial, guide, y\)"),
    "guidance that raises": (lambda: check_guidance(functools.partial(losses.kd, weight=2), 5, CPU), TypeError, "it raised ValueError: weight"),
    "guidance of a tensor": (lambda: check_guidance(lambda a, g, y: a.mean(), 5, CPU), TypeError, "guidance: expected a dictionary from names to Term.* got Tensor"),
    "guidance of a plain value": (lambda: check_guidance(guided(("a", torch.mean)), 5, CPU), TypeError, "guidance: .* names to Term.* got {'a': 'Tensor'}"),
    "a reserved name": (lambda: check_guidance(guided(("loss", lambda a: Term(a.mean()))), 5, CPU), ValueError, r"must not be named \['loss'\]"),
    "guidance not finite": (lambda: check_guidance(guided(("a", lambda a: Term(a.mean() / 0))), 5, CPU), ValueError, "guidance: expected finite scalar values"),
    "guidance without adversarial": (lambda: check_guidance(guided(("a", lambda _: Term(ONE))), 5, CPU), ValueError, "none of its terms .* depends on adversarial"),
    "no device": (lambda: check_guidance(losses.mse, 5, "gpu"), TypeError, "device: expected a device such as 'cpu', got 'gpu'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(call, error, match):
    with pytest.raises(error, match=match):
        call()
