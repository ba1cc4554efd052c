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
    assert set(losses.GUIDANCE) == {"mse", "mse+ce", "kd", "kl"}
    assert set(losses.REGULARIZERS) == {"alp", "trades"}
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
