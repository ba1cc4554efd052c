"""MART's terms against a direct transcription of its released code."""

import torch
import torch.nn.functional as F

from art_lbgat.objectives import boosted_cross_entropy, mart, total


def published(logits_adv, logits, y, beta):
    """The loss as the authors' code writes it: BCE with the runner-up class, KL weighted by 1 - p_y."""
    adv_probs = F.softmax(logits_adv, dim=1)
    top = torch.argsort(adv_probs, dim=1)[:, -2:]
    other = torch.where(top[:, -1] == y, top[:, -2], top[:, -1])
    bce = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), other)
    nat_probs = F.softmax(logits, dim=1)
    true_probs = torch.gather(nat_probs, 1, y.unsqueeze(1)).squeeze()
    kl = torch.nn.KLDivLoss(reduction="none")(torch.log(adv_probs + 1e-12), nat_probs)
    robust = (1.0 / len(y)) * torch.sum(torch.sum(kl, dim=1) * (1.0000001 - true_probs))
    return bce + beta * robust


def test_mart_is_the_published_loss_and_gradient():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(5, (16,), generator=generator)
    ours = [torch.randn(16, 5, generator=generator) * 3 for _ in range(2)]
    theirs = [x.clone().requires_grad_() for x in ours]
    ours = [x.clone().requires_grad_() for x in ours]
    terms = {**boosted_cross_entropy(ours[0], y), **mart(*ours, y, 5.0)}
    assert list(terms) == ["adversarial_ce", "adversarial_margin", "mart_kl"]
    loss, expected = total(terms), published(*theirs, y, 5.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad.abs().max() > 0
        torch.testing.assert_close(a.grad, b.grad)


def test_soft_labels_count_as_their_largest_class():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    hard = torch.tensor([0, 1, 2, 1])
    soft = 0.7 * F.one_hot(hard, 3).float() + 0.1
    assert total(boosted_cross_entropy(logits, hard)) == total(boosted_cross_entropy(logits, soft))
    assert total(mart(logits, logits + 1, hard)) == total(mart(logits, logits + 1, soft))


def test_a_probability_of_zero_has_a_finite_gradient():
    natural = torch.tensor([[200.0, 0.0, -50.0]], requires_grad=True)
    adversarial = torch.tensor([[150.0, 10.0, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    assert F.softmax(natural, dim=1)[0, 2] == 0
    total({**boosted_cross_entropy(adversarial, y), **mart(adversarial, natural, y)}).backward()
    assert natural.grad.isfinite().all()
    assert adversarial.grad.isfinite().all()
