"""Every trainer step is bit for bit the published procedure (``tests/reference_lbgat.py``), CPU, fp32."""

import copy

import pytest
import torch

from art_lbgat import BGATTrainer, LBGATTrainer
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.engine.randomness import Key
from art_lbgat.objectives import total
from tests import reference_lbgat as reference
from tests.conftest import make_classifier, make_data, states_equal

EPS, STEP, K, SEED, N = 0.031, 0.007, 4, 7, 24

METHODS = {"bgat": 1, "bgat-ensemble": 2, "lbgat": 1}
REGULARIZERS = {"none": (None, None), "alp": ("alp", 1.0), "trades0": ("trades", 0.0), "trades6": ("trades", 6.0)}
CASES = [
    (method, guidance, regularizer, norm, awp_gamma)
    for method in METHODS
    for guidance in ("mse", "mse+ce", "kd", "kl")
    for regularizer in REGULARIZERS
    for norm in ("inf", 2)
    for awp_gamma in (None, 0.05)
    if method != "bgat-ensemble" or guidance == "mse"  # the ensemble is one more target, whatever the guidance
]


class Recorder:
    """What one ``fit`` computed: x_adv, terms and gradients of its steps."""

    def __init__(self, trainer, classifiers):
        self.x_adv, self.terms, self.gradients = [], [], []
        trainer._joint.register_forward_pre_hook(lambda _, args: self.x_adv.append(args[0].clone()))
        compute = trainer._terms

        def terms(*args):
            named = compute(*args)
            self.terms.append({name: term.value.detach().clone() for name, term in named.items()})
            self.terms[-1]["loss"] = total(named).detach()
            return named

        trainer._terms = terms
        for classifier in classifiers:
            classifier.optimizer.register_step_pre_hook(self.keep_gradients)

    def keep_gradients(self, optimizer, args, kwargs):
        self.gradients.append([None if p.grad is None else p.grad.clone() for p in optimizer.param_groups[0]["params"]])


def build(method, guidance, regularizer, norm, guide_ce, awp_gamma=None):
    name, alpha = REGULARIZERS[regularizer]
    student = make_classifier(seed=0)
    guides = [make_classifier(seed=1 + i) for i in range(METHODS[method])]
    kind = TRADESAttack if name == "trades" else PGDAttack
    attack = kind(
        student, norm=norm, eps=EPS if norm == "inf" else 0.5, eps_step=STEP * (1 if norm == "inf" else 15), max_iter=K
    )
    shared = {"guidance": guidance, "regularizer": name, "regularizer_weight": alpha, "seed": SEED, "verbose": False}
    shared |= {"awp_gamma": awp_gamma, "awp_start_epoch": 1}
    if method == "lbgat":
        trainer = LBGATTrainer(student, guides[0], attack, guide_ce_weight=guide_ce, **shared)
    else:
        trainer = BGATTrainer(student, guides if len(guides) > 1 else guides[0], attack, **shared)
    return trainer, student, guides, attack


def run_reference(student, guides, x, y, attack, method, guidance, regularizer, norm, guide_ce, awp_gamma, steps):
    """The same steps on deep copies of the models, by the transcription."""
    name, alpha = REGULARIZERS[regularizer]
    models = [copy.deepcopy(c.model) for c in (student, *guides)]
    learn = method == "lbgat"
    trained = models if learn else models[:1]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4) for m in trained]
    records = []
    for epoch in range(1, steps + 1):
        key = Key(SEED, 1, epoch)
        order = torch.randperm(N, generator=key.generator("order"))
        xb, yb = torch.from_numpy(x)[order], torch.from_numpy(y)[order]
        generator = key.generator("attack")
        if name == "trades":
            noise = torch.randn(xb.shape, generator=generator)
            x_adv = reference.trades_attack(models[0], xb, noise, attack.eps, attack.eps_step, K, norm)
        else:
            if norm == "inf":
                noise = torch.rand(xb.shape, generator=generator) * 2 - 1
            else:
                direction = torch.randn(xb.shape, generator=generator).flatten(1)
                radius = torch.rand((N, 1), generator=generator) ** (1.0 / direction.shape[1])
                noise = (direction / direction.norm(dim=1, keepdim=True) * radius).reshape(xb.shape)
            x_adv = reference.pgd_attack(models[0], xb, yb, noise, attack.eps, attack.eps_step, K, norm)
        terms = reference.step(
            models[0],
            models[1:],
            optimizers,
            xb,
            yb,
            x_adv,
            learn_guide=learn,
            guide_ce=guide_ce,
            regularizer=name,
            alpha=alpha,
            guidance=guidance,
            awp_gamma=awp_gamma,
        )
        gradients = [[None if p.grad is None else p.grad.clone() for p in m.parameters()] for m in trained]
        records.append((x_adv, {k: v.detach() for k, v in terms.items()}, gradients))
    return models, records


@pytest.mark.parametrize(("method", "guidance", "regularizer", "norm", "awp_gamma"), CASES)
def test_one_step_and_three_steps_equal_the_published_procedure(method, guidance, regularizer, norm, awp_gamma):
    guide_ce = 1.0 if guidance == "mse" else 3.0
    x, y = make_data(N)
    for steps in (1, 3):
        trainer, student, guides, attack = build(method, guidance, regularizer, norm, guide_ce, awp_gamma)
        models, records = run_reference(
            student, guides, x, y, attack, method, guidance, regularizer, norm, guide_ce, awp_gamma, steps
        )
        recorder = Recorder(trainer, [student, *guides] if method == "lbgat" else [student])
        trainer.fit(x, y, batch_size=N, nb_epochs=steps)

        x_adv, terms, gradients = records[0]
        assert torch.equal(recorder.x_adv[0], x_adv)
        assert not torch.equal(x_adv, torch.from_numpy(x))
        found = recorder.terms[0 if awp_gamma is None else 1]  # AWP computes the terms once before, to find its way
        assert found.keys() == terms.keys()
        for name, value in terms.items():
            assert torch.equal(found[name], value), name
        assert trainer.history.loss[0] == pytest.approx(terms["loss"].item(), rel=1e-6)
        for ours, theirs in zip(recorder.gradients[: len(gradients)], gradients, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert torch.equal(a, b)
        for classifier, model in zip((student, *guides), models, strict=True):
            assert states_equal(classifier.model.state_dict(), model.state_dict())


def test_a_zero_moves_batch_norm_twice_and_plain_lbgat_once():
    x, y = make_data(N)
    moved = {}
    for regularizer in REGULARIZERS:
        trainer, student, _, _ = build("lbgat", "mse", regularizer, "inf", 1.0)
        trainer.fit(x, y, batch_size=N, nb_epochs=1)
        moved[regularizer] = int(student.model[1].num_batches_tracked)
    assert moved == {"none": 1, "alp": 2, "trades0": 2, "trades6": 2}
