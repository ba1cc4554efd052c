"""Every trainer step is bit for bit the published procedure (``tests/reference_lbgat.py``), CPU, fp32."""

import copy

import pytest
import torch
import torch.nn.functional as F

from art_lbgat import (
    ALPTrainer,
    BGATTrainer,
    FastATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    TRADESTrainer,
)
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.preserve import Key
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

    def __init__(self):
        self.x_adv, self.terms, self.gradients, self.models = [], [], [], []

    def __call__(self, step):
        self.x_adv.append(step.x_adv.clone())
        values = {name: term.value.detach().clone() for name, term in step.terms.items()}
        self.terms.append({**values, "loss": step.loss.detach()})
        self.gradients.append(
            [[None if p.grad is None else p.grad.clone() for p in m.parameters()] for m in self.models]
        )


def build(method, guidance, regularizer, norm, guide_ce, awp_gamma=None, on_step=None):
    name, alpha = REGULARIZERS[regularizer]
    student = make_classifier(seed=0)
    guides = [make_classifier(seed=1 + i) for i in range(METHODS[method])]
    kind = TRADESAttack if name == "trades" else PGDAttack
    attack = kind(
        student, norm=norm, eps=EPS if norm == "inf" else 0.5, eps_step=STEP * (1 if norm == "inf" else 15), max_iter=K
    )
    shared = {
        "preset": "paper",
        "guidance": guidance,
        "regularizer": name,
        "regularizer_weight": alpha,
        "seed": SEED,
        "verbose": False,
    }
    shared |= {"awp_gamma": awp_gamma, "awp_start_epoch": 1, "on_step": on_step}
    if method == "lbgat":
        trainer = LBGATTrainer(student, guides[0], attack, guide_ce_weight=guide_ce, **shared)
    else:
        trainer = BGATTrainer(student, guides if len(guides) > 1 else guides[0], attack, **shared)
    return trainer, student, guides, attack


def reference_examples(model, x, y, attack, key, norm, trades):
    """The batch of an epoch and its adversarial examples, by the transcription from the numbers that the run draws."""
    order = torch.randperm(N, generator=key.generator("order"))
    xb, yb = torch.from_numpy(x)[order], torch.from_numpy(y)[order]
    generator = key.generator("attack")
    settings = (attack.eps, attack.eps_step, attack.max_iter, norm)
    if trades:
        return xb, yb, reference.trades_attack(model, xb, torch.randn(xb.shape, generator=generator), *settings)
    if norm == "inf":
        noise = torch.rand(xb.shape, generator=generator) * 2 - 1
    else:
        direction = torch.randn(xb.shape, generator=generator).flatten(1)
        radius = torch.rand((N, 1), generator=generator) ** (1.0 / direction.shape[1])
        noise = (direction / direction.norm(dim=1, keepdim=True) * radius).reshape(xb.shape)
    return xb, yb, reference.pgd_attack(model, xb, yb, noise, *settings)


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
        xb, yb, x_adv = reference_examples(models[0], x, y, attack, key, norm, name == "trades")
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
        recorder = Recorder()
        trainer, student, guides, attack = build(method, guidance, regularizer, norm, guide_ce, awp_gamma, recorder)
        models, records = run_reference(
            student, guides, x, y, attack, method, guidance, regularizer, norm, guide_ce, awp_gamma, steps
        )
        recorder.models = [each.model for each in ([student, *guides] if method == "lbgat" else [student])]
        trainer.fit(x, y, batch_size=N, nb_epochs=steps)

        assert len(recorder.x_adv) == steps
        for step, (x_adv, terms, gradients) in enumerate(records):
            assert torch.equal(recorder.x_adv[step], x_adv)
            assert not torch.equal(x_adv, torch.from_numpy(x))
            found = recorder.terms[step]
            assert found.keys() == terms.keys()
            for name, value in terms.items():
                assert torch.equal(found[name], value), name
            assert trainer.history.loss[step] == pytest.approx(terms["loss"].item(), rel=1e-6)
            for own, theirs in zip(recorder.gradients[step], gradients, strict=True):
                for a, b in zip(own, theirs, strict=True):
                    assert torch.equal(a, b)
        for classifier, model in zip((student, *guides), models, strict=True):
            assert states_equal(classifier.model.state_dict(), model.state_dict())


def _mart(adversarial, natural, y):
    from tests.test_losses import published

    return published(adversarial, natural, y, 5.0)


def _kl(adversarial, natural):
    return F.kl_div(F.log_softmax(adversarial, dim=1), F.softmax(natural, dim=1), reduction="sum") / len(adversarial)


BASELINES = {
    "madry": (lambda c, a, **k: MadryTrainer(c, a, **k), PGDAttack, False, lambda a, n, y: F.cross_entropy(a, y)),
    "fast-at": (lambda c, a, **k: FastATTrainer(c, a, **k), PGDAttack, False, lambda a, n, y: F.cross_entropy(a, y)),
    "alp": (
        lambda c, a, **k: ALPTrainer(c, a, alp_weight=0.5, **k), PGDAttack, True,
        lambda a, n, y: F.cross_entropy(a, y) + 0.5 * ((a - n) ** 2).mean()),
    "trades": (
        lambda c, a, **k: TRADESTrainer(c, a, beta=6.0, **k), TRADESAttack, True,
        lambda a, n, y: F.cross_entropy(n, y) + 6.0 * _kl(a, n)),
    "mart": (lambda c, a, **k: MARTTrainer(c, a, mart_weight=5.0, **k), PGDAttack, True, _mart),
}  # fmt: skip


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("awp_gamma", [None, 0.05])
@pytest.mark.parametrize("name", BASELINES)
def test_baselines_take_the_step_of_their_equation(name, awp_gamma, norm):
    """Bitwise, but for MART, whose authors sum the runner-up's term in another order."""
    build, kind, needs_natural, equation = BASELINES[name]
    x, y = make_data(N)
    student = make_classifier()
    model = copy.deepcopy(student.model)
    eps, step = (EPS, STEP) if norm == "inf" else (0.5, STEP * 15)
    attack = kind(student, norm=norm, eps=eps, eps_step=step, max_iter=1 if name == "fast-at" else K)
    build(student, attack, seed=SEED, verbose=False, awp_gamma=awp_gamma, awp_start_epoch=1).fit(
        x, y, batch_size=N, nb_epochs=1
    )

    xb, yb, x_adv = reference_examples(model, x, y, attack, Key(SEED, 1, 1), norm, kind is TRADESAttack)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    optimizer.zero_grad()
    model.train()

    def loss(net):
        adversarial = net(x_adv)
        return equation(adversarial, net(xb) if needs_natural else None, yb)

    moves = {} if awp_gamma is None else reference.awp(model, loss, awp_gamma)
    reference.move(model, moves, +1)
    loss(model).backward()
    optimizer.step()
    reference.move(model, moves, -1)
    for key, value in student.model.state_dict().items():
        if name == "mart":
            torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, model.state_dict()[key]), key


def test_a_zero_moves_batch_norm_twice_and_plain_lbgat_once():
    x, y = make_data(N)
    moved = {}
    for regularizer in REGULARIZERS:
        trainer, student, _, _ = build("lbgat", "mse", regularizer, "inf", 1.0)
        trainer.fit(x, y, batch_size=N, nb_epochs=1)
        moved[regularizer] = int(student.model[1].num_batches_tracked)
    assert moved == {"none": 1, "alp": 2, "trades0": 2, "trades6": 2}
