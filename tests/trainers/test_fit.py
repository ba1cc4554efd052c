"""What ``fit`` does beyond the step: schedules, selection, warm-up, batches, history."""

import logging

import numpy as np
import pytest
import torch
from art.attacks.evasion import DeepFool, ProjectedGradientDescent
from torch.optim import lr_scheduler

from art_lbgat import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer
from art_lbgat.classifier import TensorView
from art_lbgat.data import RandomCropFlip
from art_lbgat.engine.adversary import Adversary, validation_adversary
from art_lbgat.engine.validation import Validation
from art_lbgat.losses import Term
from art_lbgat.preserve import Key, Modes, preserved_randomness
from art_lbgat.processes import Processes
from tests.conftest import copied_state, make_classifier, make_data, mlp, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, another, pgd

EVERY = pytest.mark.parametrize("build", TRAINERS.values(), ids=TRAINERS)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR(o, 1, gamma=0.5),
        lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.5**e),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 1.0, 1), lr_scheduler.StepLR(o, 1, gamma=0.5)], milestones=[100]
        ),
    ],
)
def test_torch_schedulers_step_once_per_epoch(make):
    classifier = make_classifier()
    trainer = NaturalTrainer(classifier, **OPTIONS)
    scheduler = make(classifier.optimizer)
    constant = isinstance(scheduler, lr_scheduler.SequentialLR)
    trainer.fit(*make_data(32), nb_epochs=3, batch_size=8, scheduler=scheduler)
    expected = [0.1] * 3 if constant else [0.1, 0.05, 0.025]
    assert trainer.history.learning_rate.tolist() == pytest.approx(expected)


def test_a_plateau_scheduler_sees_the_robust_validation_error_of_validated_epochs_or_else_the_loss():
    class Plateau(lr_scheduler.ReduceLROnPlateau):
        seen = ()

        def step(self, metrics, *args):
            self.seen = (*self.seen, metrics)
            super().step(metrics, *args)

    for validated in (True, False):
        classifier = make_classifier()
        scheduler = Plateau(classifier.optimizer)
        trainer = MadryTrainer(classifier, pgd(classifier), validate_every=2, **OPTIONS)
        data = {"validation_data": make_data(8, seed=1)} if validated else {}
        trainer.fit(*make_data(16), nb_epochs=5, scheduler=scheduler, **data)
        history = trainer.history
        errors = 1 - history.validation_robust_accuracy.dropna() if validated else history.loss
        assert scheduler.seen == tuple(errors)
        assert len(scheduler.seen) == (3 if validated else 5)


def test_lists_of_schedulers_drive_both_models():
    classifier, guide = make_classifier(), make_classifier(seed=1)
    schedulers = [lr_scheduler.StepLR(c.optimizer, 1, gamma=g) for c, g in ((classifier, 0.5), (guide, 0.1))]
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=2, scheduler=schedulers)
    assert trainer.history.learning_rate.tolist() == pytest.approx([0.1, 0.05])
    assert trainer.history.guide_learning_rate.tolist() == pytest.approx([0.1, 0.01])


def test_eps_warm_up_scales_ball_and_step_and_leaves_the_attack_alone():
    classifier, reach = make_classifier(), []
    attack = pgd(classifier, eps=0.2, eps_step=0.1)
    options = {"eps_warmup_epochs": 4, "on_step": lambda step: reach.append(float((step.x_adv - step.x).abs().max()))}
    trainer = MadryTrainer(classifier, attack, **options, **OPTIONS)
    x, y = make_data(16)
    trainer.fit(np.clip(x, 0.3, 0.7), y, nb_epochs=5, batch_size=16)
    assert trainer.history.eps.tolist() == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert reach == pytest.approx(trainer.history.eps.tolist(), rel=1e-4)
    assert (attack.eps, attack.eps_step) == (0.2, 0.1)


def test_max_grad_norm_clips_both_models_jointly():
    classifier, guide = make_classifier(), make_classifier(seed=1)
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), max_grad_norm=0.01, **OPTIONS)
    norms = []
    classifier.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.cat([p.grad.flatten() for c in (classifier, guide) for p in c.model.parameters()]).norm().item()
        )
    )
    trainer.fit(*make_data(16), nb_epochs=1, batch_size=8)
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("build", [TRAINERS[name] for name in TRAINERS if name != "adr"])  # which keeps its average
def test_weights_of_the_kept_epoch_are_in_the_classifier(build, keep):
    x, y = make_data(32)
    held_out = make_data(16, seed=1)
    classifier = make_classifier(lr=0.15)  # so large that accuracy goes up and down
    guide = another(classifier)
    trainer = build(classifier, guide=guide, keep=keep)
    states, guides = [], []

    class Spy:
        def step(self):
            states.append(copied_state(classifier.model))
            guides.append(copied_state(guide.model))

    trainer.fit(x, y, nb_epochs=6, batch_size=8, validation_data=held_out, scheduler=Spy())
    history = trainer.history
    columns = [c for c in ("validation_robust_accuracy", "validation_natural_accuracy") if c in history]
    best = max(range(6), key=lambda i: (tuple(history[columns].iloc[i]), -i))
    expected = best if keep == "best" else 5
    assert history.kept.tolist() == [i == expected for i in range(6)]
    assert (history.kept_because != "").tolist() == history.kept.tolist()
    assert states_equal(states[expected], classifier.model.state_dict())
    if trainer.title == "LBGAT":
        assert states_equal(guides[expected], guide.model.state_dict())
    shown = (classifier.predict(held_out[0]).argmax(axis=1) == held_out[1]).mean()
    assert history.validation_natural_accuracy[expected] == pytest.approx(shown)


def test_validation_preprocesses_once_and_does_not_depend_on_batch_size():
    held_out = make_data(21, seed=1)
    classifier = make_classifier(preprocessing=(0.4, 0.2))
    trainer = MadryTrainer(classifier, pgd(classifier, eps=0.15), **OPTIONS)
    trainer.fit(*make_data(32), nb_epochs=3, batch_size=16, validation_data=held_out)
    accuracy = (classifier.predict(held_out[0]).argmax(axis=1) == held_out[1]).mean()
    kept = trainer.history[trainer.history.kept].iloc[0]
    assert kept.validation_natural_accuracy == pytest.approx(accuracy)
    view = TensorView(classifier)
    judge = validation_adversary(Adversary(trainer.attack, view), view)
    results = [
        Validation(*held_out, view, batch_size).accuracies(
            Modes(classifier.model), judge, 3, Processes(), before_batch=lambda: None
        )
        for batch_size in (1, 7, 16, 21)
    ]
    assert results == [results[0]] * 4
    assert results[0]["validation_robust_accuracy"] == kept.validation_robust_accuracy < accuracy


def test_validation_through_generate_starts_alike_every_time():
    """ART draws its starts from numpy's global generator, which is keyed for each batch."""
    classifier = make_classifier()
    attack = ProjectedGradientDescent(
        classifier, eps=0.2, eps_step=0.2, max_iter=1, num_random_init=2, batch_size=64, verbose=False
    )
    view = TensorView(classifier)
    adversary = Adversary(attack, view)
    x, y = (torch.from_numpy(a) for a in make_data(16))
    with preserved_randomness():
        first = adversary.examples(x, y, Key(0), [])
        np.random.rand(5)
        assert torch.equal(first, adversary.examples(x, y, Key(0), []))
        assert not torch.equal(first, adversary.examples(x, y, Key(1), []))


def test_validation_through_generate_and_without_an_attack():
    held_out = make_data(8, seed=1)
    classifier = make_classifier()
    trainer = MadryTrainer(classifier, DeepFool(classifier, max_iter=2, verbose=False), **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=1, validation_data=held_out)
    assert trainer.history.validation_robust_accuracy.between(0, 1).all()
    natural = NaturalTrainer(make_classifier(), **OPTIONS)
    natural.fit(*make_data(16), nb_epochs=1, validation_data=held_out)
    assert "validation_robust_accuracy" not in natural.history


def test_validate_every_and_always_after_the_last():
    trainer = NaturalTrainer(make_classifier(), validate_every=2, **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=5, validation_data=make_data(8, seed=1))
    assert trainer.history.validation_natural_accuracy.notna().tolist() == [False, True, False, True, True]


@EVERY
@pytest.mark.parametrize("n", [17, 16, 15, 2])
def test_a_last_batch_of_one_is_trained_with_the_batch_before_it(build, n):
    sizes = []
    classifier = make_classifier(mlp(), shape=(12,))
    guide = make_classifier(mlp(), shape=(12,))
    trainer = build(classifier, guide=guide, on_step=lambda step: sizes.append(len(step.x)))
    x, y = make_data(n, shape=(12,))
    trainer.fit(x, y, nb_epochs=1, batch_size=8)
    assert sizes == {17: [8, 9], 16: [8, 8], 15: [8, 7], 2: [2]}[n]
    if n == 17:
        dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        sizes.clear()
        trainer.fit(torch.utils.data.DataLoader(dataset, batch_size=8), nb_epochs=1)
        assert sizes == [8, 9]


def test_a_last_batch_of_one_is_kept_where_nothing_forbids_it():
    sizes = []
    classifier = make_classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)))
    trainer = NaturalTrainer(classifier, on_step=lambda step: sizes.append(len(step.x)), **OPTIONS)
    trainer.fit(*make_data(9), nb_epochs=1, batch_size=4)
    assert sizes == [4, 4, 1]


def test_augmentation_comes_before_the_attack_and_feeds_guide_and_student_alike():
    classifier, guide, steps, guided = make_classifier(), make_classifier(seed=1), [], []
    guide.model.register_forward_pre_hook(lambda _, args: guided.append(args[0]))
    trainer = LBGATTrainer(classifier, guide, pgd(classifier), on_step=steps.append, **OPTIONS)
    x, y = make_data(16)
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for source in ((x, y), (torch.utils.data.DataLoader(data, batch_size=16),)):
        trainer.fit(*source, nb_epochs=1, batch_size=16, augmentation=RandomCropFlip(padding=2))
        assert torch.equal(guided[-1], steps[-1].x)
        assert (steps[-1].x_adv - steps[-1].x).abs().max() <= 0.03 + 1e-6
        assert sum(torch.equal(torch.from_numpy(image), other) for image in x for other in steps[-1].x) < 4


def test_history_has_a_row_per_epoch_with_every_promised_column():
    classifier = make_classifier()
    trainer = LBGATTrainer(classifier, another(classifier), preset="paper", regularizer="trades", **OPTIONS)
    assert trainer.history.empty
    trainer.fit(*make_data(16), nb_epochs=2, validation_data=make_data(8, seed=1))
    row = trainer.history.iloc[0]
    expected = row.guidance_mse + row.guide_ce + 6 * row.trades_kl
    assert row.loss == pytest.approx(expected, rel=1e-5)
    for column in (
        "train_natural_accuracy", "train_robust_accuracy", "guide_accuracy", "validation_natural_accuracy",
        "validation_robust_accuracy",
    ):  # fmt: skip
        assert 0 <= row[column] <= 1
    assert row.seconds > 0
    assert row.images_per_second == pytest.approx(16 / row.seconds)
    assert row.eps == 0.031


def test_the_way_of_the_attack_is_logged_once(caplog):
    classifier = make_classifier()
    with caplog.at_level(logging.INFO, logger="art_lbgat"):
        MadryTrainer(classifier, pgd(classifier), **OPTIONS).fit(*make_data(16), nb_epochs=2)
    assert sum("runs in the tensor loop" in r.message for r in caplog.records) == 1
    caplog.clear()
    attack = ProjectedGradientDescent(classifier, eps=0.03, eps_step=0.01, max_iter=1, decay=0.5, verbose=False)
    with caplog.at_level(logging.INFO, logger="art_lbgat"):
        MadryTrainer(classifier, attack, **OPTIONS).fit(*make_data(16), nb_epochs=2)
    (message,) = (r.message for r in caplog.records if "attack.generate" in r.message)
    assert "decay (momentum) is set" in message


def test_a_foreign_loss_is_said(caplog):
    classifier = make_classifier(loss=torch.nn.MultiMarginLoss())
    with caplog.at_level(logging.WARNING, logger="art_lbgat"):
        NaturalTrainer(classifier, **OPTIONS).fit(*make_data(16), nb_epochs=1)
    assert any("does not use the loss of the classifier" in r.message for r in caplog.records)


def test_attack_parameters_are_read_anew_at_each_fit():
    classifier = make_classifier()
    attack = pgd(classifier)
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=1)
    attack.set_params(eps=0.01, max_iter=5)
    trainer.fit(*make_data(16), nb_epochs=1)
    assert trainer.history.eps.tolist() == [0.03, 0.01]
    assert trainer.cost.student_forwards == 6


def test_one_optimizer_over_both_nets_steps_once_and_two_over_one_parameter_are_refused():
    """The authors' set-up: one SGD over student and guide."""
    x, y = make_data(8)
    states = []
    for shared in (False, True):
        classifier, guide = make_classifier(), make_classifier(seed=1)
        if shared:
            both = [*classifier.model.parameters(), *guide.model.parameters()]
            one = torch.optim.SGD(both, lr=0.1, momentum=0.9, weight_decay=2e-4)
            classifier, guide = (make_classifier(c.model, optimizer=one) for c in (classifier, guide))
        LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS).fit(x, y, nb_epochs=2, batch_size=8)
        states.append({**copied_state(classifier.model), **{"g." + k: v for k, v in copied_state(guide.model).items()}})
    assert states_equal(*states)
    classifier, guide = make_classifier(), make_classifier(seed=1)
    both = [*classifier.model.parameters(), *guide.model.parameters()]
    guide = make_classifier(guide.model, optimizer=torch.optim.SGD(both, lr=0.1))
    with pytest.raises(ValueError, match="two that hold the same parameter"):
        LBGATTrainer(classifier, guide, pgd(classifier), **OPTIONS).fit(x, y, nb_epochs=1)


def test_gradients_of_parameters_that_nobody_steps_do_not_pile_up():
    classifier = make_classifier()
    head = make_classifier(classifier.model, optimizer=torch.optim.SGD(classifier.model[7].parameters(), lr=0.1))
    norms = []
    head.optimizer.register_step_pre_hook(lambda *_: norms.append(float(head.model[0].weight.grad.norm())))
    NaturalTrainer(head, **OPTIONS).fit(*make_data(8), nb_epochs=6, batch_size=8)
    assert max(norms) < 3 * min(norms)
    assert all(p.grad is None for p in head.model.parameters())


def test_best_weights_with_extra_state():
    class Extra(torch.nn.Flatten):
        def get_extra_state(self):
            return {"kept": [1, 2]}

        def set_extra_state(self, state):
            self.seen = state

    classifier = make_classifier(torch.nn.Sequential(Extra(), torch.nn.Linear(64, 4)))
    NaturalTrainer(classifier, **OPTIONS).fit(*make_data(16), nb_epochs=2, validation_data=make_data(8, seed=1))
    assert classifier.model[0].seen == {"kept": [1, 2]}


def test_preprocessing_set_later_is_followed():
    classifier = make_classifier()
    attack = pgd(classifier, num_random_init=0)
    trainer = MadryTrainer(classifier, attack, **OPTIONS)
    classifier.set_params(preprocessing=(0.4, 0.3))
    x, y = make_data(8)
    fresh = pgd(classifier, num_random_init=0)
    assert np.array_equal(attack.generate(x, y), fresh.generate(x, y))
    seen = []
    classifier.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    trainer.fit(x, y, nb_epochs=1)
    assert all(inputs.min() < -0.5 for inputs in seen)


def test_bgat_learns_from_a_trained_guide():
    x, y = make_data(64)
    guide, classifier = make_classifier(seed=1, lr=0.02), make_classifier(lr=0.02)
    NaturalTrainer(guide, **OPTIONS).fit(x, y, nb_epochs=8, batch_size=16)
    BGATTrainer(classifier, guide, pgd(classifier), **OPTIONS).fit(x, y, nb_epochs=8, batch_size=16)
    x_test, y_test = make_data(32, seed=1)
    assert (classifier.predict(x_test).argmax(axis=1) == y_test).mean() > 0.9


def test_a_guidance_of_ones_own_is_trained():
    classifier = make_classifier()
    own = {"guidance": lambda adversarial, guide, y: {"l1": Term((adversarial - guide).abs().mean())}}
    trainer = LBGATTrainer(classifier, another(classifier), pgd(classifier), **own, **OPTIONS)
    trainer.fit(*make_data(16), nb_epochs=1)
    assert trainer.history.l1[0] + trainer.history.guide_ce[0] == pytest.approx(trainer.history.loss[0])
