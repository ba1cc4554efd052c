"""The published procedure, transcribed in the slow and obvious way from its equations; shares no code with the package.

Natural logits are recomputed at every attack step, gradients are taken with ``backward`` (parameter gradients too), the
student is called twice. Source: arXiv 2011.11164 and the steps of its released code; PGD from arXiv 1706.06083, AWP from
arXiv 2004.05884.
"""

import copy

import torch
import torch.nn.functional as F


def trades_attack(model, x, noise, eps, step, iterations, norm="inf"):
    """0.001 * N(0, 1) start, ascend KL(p_nat || p_adv), project, clamp to [0, 1]; the model is in eval mode."""
    model.eval()
    x_adv = (x + 0.001 * noise).detach()
    for _ in range(iterations):
        x_adv = x_adv.detach().requires_grad_(True)
        loss = F.kl_div(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1), reduction="sum")
        loss.backward()
        x_adv = ascend(x_adv.detach(), x, x_adv.grad, eps, step, norm)
    return x_adv.detach()


def pgd_attack(model, x, y, noise, eps, step, iterations, norm="inf"):
    """Start uniform in the ball, clamped; ascend the cross-entropy, project, clamp to [0, 1]; eval mode."""
    model.eval()
    x_adv = torch.clamp(x + eps * noise, 0.0, 1.0)
    for _ in range(iterations):
        x_adv = x_adv.detach().requires_grad_(True)
        F.cross_entropy(model(x_adv), y, reduction="sum").backward()
        x_adv = ascend(x_adv.detach(), x, x_adv.grad, eps, step, norm)
    return x_adv.detach()


def ascend(x_adv, x, gradient, eps, step, norm):
    if norm == "inf":
        x_adv = x_adv + step * torch.sign(gradient)
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
        return torch.clamp(x_adv, 0.0, 1.0)
    shape = (-1, *[1] * (x.ndim - 1))
    length = gradient.flatten(1).norm(dim=1).view(shape)
    x_adv = x_adv + step * (gradient / torch.where(length == 0, torch.ones_like(length), length))
    delta = x_adv - x
    distance = delta.flatten(1).norm(dim=1).view(shape)
    delta = torch.where(distance > eps, delta * (eps / distance), delta)
    return torch.clamp(x + delta, 0.0, 1.0)


def step(
    student,
    guides,
    optimizers,
    x,
    y,
    x_adv,
    *,
    learn_guide,
    guide_ce=1.0,
    regularizer=None,
    alpha=0.0,
    guidance="mse",
    awp_gamma=None,
):
    """One training step after the attack: forwards, loss terms, backward, SGD step. Returns the terms by name."""
    student.train()
    for optimizer in optimizers:
        optimizer.zero_grad()
    if learn_guide:
        for guide in guides:
            guide.train()
        target = sum(guide(x) for guide in guides) / len(guides)
    else:
        with torch.no_grad():
            for guide in guides:
                guide.eval()
            outputs = [guide(x) for guide in guides]
            target = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)

    def loss_terms(model, target):
        adversarial = model(x_adv)
        natural = model(x) if regularizer is not None else None
        terms = {}
        if guidance in ("mse", "mse+ce"):
            terms["guidance_mse"] = ((adversarial - target) ** 2).mean()
            loss = terms["guidance_mse"]
        if guidance == "mse+ce":
            terms["adversarial_ce"] = F.cross_entropy(adversarial, y)
            loss = loss + terms["adversarial_ce"]
        if guidance == "kd":
            temperature, b = 4.0, 0.1
            terms["adversarial_ce"] = F.cross_entropy(adversarial, y)
            terms["guidance_kd"] = F.cross_entropy(adversarial / temperature, F.softmax(target / temperature, dim=1))
            loss = (1 - b) * terms["adversarial_ce"] + 2 * b * temperature**2 * terms["guidance_kd"]
        if guidance == "kl":
            p = F.softmax(target, dim=1)
            terms["guidance_kl"] = F.kl_div(F.log_softmax(adversarial, dim=1), p, reduction="sum") / len(x)
            terms["adversarial_ce"] = F.cross_entropy(adversarial, y)
            loss = terms["guidance_kl"] + terms["adversarial_ce"]
        if learn_guide:
            terms["guide_ce"] = F.cross_entropy(target, y)
            loss = loss + guide_ce * terms["guide_ce"]
        if regularizer == "alp":
            terms["alp"] = ((adversarial - natural) ** 2).mean()
            loss = loss + alpha * terms["alp"]
        if regularizer == "trades":
            p = F.softmax(natural, dim=1)
            terms["trades_kl"] = F.kl_div(F.log_softmax(adversarial, dim=1), p, reduction="sum") / len(x)
            loss = loss + alpha * terms["trades_kl"]
        terms["loss"] = loss
        return terms

    perturbation = {}
    if awp_gamma is not None:
        perturbation = awp(student, lambda proxy: loss_terms(proxy, target.detach())["loss"], awp_gamma)
    move(student, perturbation, +1)
    terms = loss_terms(student, target)
    terms["loss"].backward()
    for optimizer in optimizers:
        optimizer.step()
    move(student, perturbation, -1)
    return terms


def awp(model, loss, gamma):
    """AWP (arXiv 2004.05884): v_l = gamma * ||w_l|| * g_l / ||g_l||, only tensors of dim > 1; on a copy of the model."""
    proxy = copy.deepcopy(model).train()
    proxy.zero_grad()
    loss(proxy).backward()
    perturbation = {}
    for name, w in proxy.named_parameters():
        if w.dim() > 1 and w.grad is not None:
            perturbation[name] = gamma * (w.detach().norm() / w.grad.norm() * w.grad)
    return perturbation


def move(model, perturbation, sign):
    with torch.no_grad():
        for name, w in model.named_parameters():
            if name in perturbation:
                w.add_(sign * perturbation[name])
