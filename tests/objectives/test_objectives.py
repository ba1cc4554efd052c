"""Each objective is its equation, written out; a changed sign, factor or direction fails."""

import pytest
import torch
from torch import nn

from art_lbgat import objectives
from art_lbgat.objectives import Term, total

torch.manual_seed(0)
A, B = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
Y = torch.tensor([0, 1, 2, 3, 4, 0])
SOFT = torch.softmax(torch.randn(6, 5), dim=1)


def log_p(logits):
    return logits - logits.exp().sum(dim=1, keepdim=True).log()


def cross_entropy(logits, y):
    p = y if y.ndim == 2 else nn.functional.one_hot(y, 5).float()
    return -(p * log_p(logits)).sum() / len(logits)


def kl(p_logits, q_logits):
    return (log_p(p_logits).exp() * (log_p(p_logits) - log_p(q_logits))).sum() / len(p_logits)


def mse(a, b):
    return ((a - b) ** 2).sum() / a.numel()


CASES = {
    "mse": (lambda: objectives.mse(A, B), lambda: mse(A, B)),
    "mse+ce": (lambda: objectives.mse_ce(A, B, Y), lambda: mse(A, B) + cross_entropy(A, Y)),
    "mse+ce soft": (lambda: objectives.mse_ce(A, B, SOFT), lambda: mse(A, B) + cross_entropy(A, SOFT)),
    "kd": (
        lambda: objectives.kd(A, B, Y),
        lambda: 0.9 * cross_entropy(A, Y) + 2 * 0.1 * 16 * cross_entropy(A / 4, log_p(B / 4).exp()),
    ),
    "kd T=2 b=0.5": (
        lambda: objectives.kd(A, B, Y, temperature=2.0, weight=0.5),
        lambda: 0.5 * cross_entropy(A, Y) + 2 * 0.5 * 4 * cross_entropy(A / 2, log_p(B / 2).exp()),
    ),
    "kl": (lambda: objectives.kl(A, B, Y), lambda: kl(B, A) + cross_entropy(A, Y)),
    "guide ce": (lambda: objectives.guide_cross_entropy(B, Y, 3.0), lambda: 3 * cross_entropy(B, Y)),
    "alp": (lambda: objectives.alp(A, B, 0.7), lambda: 0.7 * mse(A, B)),
    "trades": (lambda: objectives.trades(A, B, 6.0), lambda: 6 * kl(B, A)),
    "adversarial ce": (lambda: objectives.adversarial_cross_entropy(A, Y), lambda: cross_entropy(A, Y)),
    "natural ce": (lambda: objectives.natural_cross_entropy(A, SOFT, 2.0), lambda: 2 * cross_entropy(A, SOFT)),
}


@pytest.mark.parametrize(("ours", "equation"), CASES.values(), ids=CASES)
def test_value_and_gradients_are_those_of_the_equation(ours, equation):
    loss, expected = total(ours()), equation()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for tensor in (A, B):
        got, want = (
            torch.autograd.grad(value, tensor, retain_graph=True, allow_unused=True)[0] for value in (loss, expected)
        )
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_terms_are_named_and_unweighted():
    terms = objectives.trades(A, B, 6.0)
    assert list(terms) == ["trades_kl"]
    assert terms["trades_kl"].weight == 6.0
    torch.testing.assert_close(terms["trades_kl"].value, kl(B, A), rtol=1e-5, atol=1e-6)


def test_total_adds_in_order_and_leaves_out_weight_zero():
    x = torch.tensor(2.0, requires_grad=True)
    y = torch.tensor(3.0, requires_grad=True)
    loss = total({"a": Term(x * x, 2.0), "b": Term(y * float("nan"), 0.0), "c": Term(x)})
    assert loss.item() == 10
    loss.backward()
    assert x.grad.item() == 9
    assert y.grad is None
    with pytest.raises(ValueError, match=r"terms: every weight is 0 in \['a'\]"):
        total({"a": Term(x, 0.0)})


def test_registries_hold_what_the_paper_compares():
    assert set(objectives.GUIDANCE) == {"mse", "mse+ce", "kd", "kl"}
    assert set(objectives.REGULARIZERS) == {"alp", "trades"}
