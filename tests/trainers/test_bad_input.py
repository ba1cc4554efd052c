"""Bad input: one clear error each, naming the argument, what came and what was expected; nothing is changed."""

import re

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.data_generators import PyTorchDataGenerator
from art.estimators.certification.deep_z.pytorch import PytorchDeepZ
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lbgat import (
    ALPTrainer,
    BGATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    RunOptions,
    TRADESTrainer,
)
from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.evaluation import evaluate
from art_lbgat.losses import Term
from tests.conftest import conv_net, copied_state, make_classifier, make_data, mlp, states_equal
from tests.trainers.cases import OPTIONS, TRAINERS, another, pgd

X, Y = make_data(16)


def bad(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def bgat_with(guidance):
    return BGATTrainer(make_classifier(), make_classifier(seed=1), guidance=guidance, **OPTIONS)


def fit_with(attack):
    MadryTrainer(attack.estimator, attack, **OPTIONS).fit(X, Y, nb_epochs=1)


class Overridden(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


class Doubled(PyTorchClassifier):
    def predict(self, x, **kwargs):
        return 2 * super().predict(x, **kwargs)


def patched():
    model = conv_net()
    model.forward = lambda x: nn.Sequential.forward(model, x) * 2
    return model


class Tuple(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, x):
        return self.net(x), x


def smoothed():
    model = conv_net()
    return PyTorchRandomizedSmoothing(
        model,
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        4,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        device_type="cpu",
    )


def with_amp():
    classifier = make_classifier()
    classifier._use_amp = True  # the constructor would import apex
    return classifier


def replaced():
    classifier = make_classifier()
    classifier.set_params(model=conv_net())
    return classifier


def sharing():
    classifier = make_classifier()
    return classifier, make_classifier(nn.Sequential(classifier.model, nn.Identity()))


FIT = {
    "NaN in x": (bad(X, (3, 0, 1, 1), np.nan), Y, {}, ValueError, r"x: expected finite values, got NaN or Inf in sample 3"),
    "Inf in x": (bad(X, (0, 0, 1, 1), np.inf), Y, {}, ValueError, r"x: expected finite values"),
    "x outside clip_values": (X * 255, Y, {}, ValueError, r"x: values lie in \[.*\], outside clip_values \[0, 1\]"),
    "x of another shape": (X[:, :, :4], Y, {}, ValueError, r"x: expected shape \(N, 1, 8, 8\), got \(16, 1, 4, 8\)"),
    "x not numeric": (np.array(["a"] * 16), Y, {}, TypeError, r"x: expected an array of numbers"),
    "x ragged": ([[1, 2], [3]], Y, {}, TypeError, r"x: expected an array of numbers"),
    "empty": (X[:0], Y[:0], {}, ValueError, r"x: expected at least one sample"),
    "y None": (X, None, {}, ValueError, r"y: expected labels, got None"),
    "lengths differ": (X, Y[:-1], {}, ValueError, r"y: expected 16 labels, one per sample of x, got 15"),
    "label too large": (X, bad(Y, 2, 4), {}, ValueError, r"y: expected class indices in \[0, 3\], got values in \[0, 4\]"),
    "label negative": (X, bad(Y, 2, -1), {}, ValueError, r"y: expected class indices in \[0, 3\]"),
    "label not whole": (X, Y + 0.5, {}, ValueError, r"y: expected whole class indices, got 0.5"),
    "label NaN": (X, bad(Y.astype(float), 0, np.nan), {}, ValueError, r"y: expected finite values"),
    "one-hot too wide": (X, np.eye(5)[Y], {}, ValueError, r"y: expected indices \(N,\) or rows \(N, 4\), got shape \(16, 5\)"),
    "rows that are no probabilities": (X, np.eye(4)[Y] * 2, {}, ValueError, r"y: expected rows that are one-hot or prob"),
    "labels 3-D": (X, Y[:, None, None], {}, ValueError, r"y: expected indices"),
    "batch_size 0": (X, Y, {"batch_size": 0}, ValueError, r"batch_size: expected a whole number >= 1, got 0"),
    "batch_size float": (X, Y, {"batch_size": 2.0}, TypeError, r"batch_size: expected a whole number >= 1, got 2.0"),
    "nb_epochs 0": (X, Y, {"nb_epochs": 0}, ValueError, r"nb_epochs: expected a whole number >= 1, got 0"),
    "misspelt keyword": (X, Y, {"nb_epoch": 2}, TypeError, r"unexpected keyword: .*'nb_epoch'; did you mean 'nb_epochs'"),
    "scheduler": (X, Y, {"scheduler": 0.1}, TypeError, r"scheduler: expected an object with a step\(\) method, got float"),
    "augmentation": (X, Y, {"augmentation": 3}, TypeError, r"augmentation: expected a callable"),
    "augmentation name": (X, Y, {"augmentation": "flipp"}, ValueError, r"augmentation: .*did you mean 'flip'"),
    "validation no pair": (X, Y, {"validation_data": X}, ValueError, r"validation_data: expected a pair"),
    "validation NaN": (
        X, Y, {"validation_data": (bad(X, 0, np.nan), Y)}, ValueError, r"validation_data\[0\]: expected finite",
    ),
    "batches of one": (X, Y, {"batch_size": 1}, ValueError, r"batch_size: batches of one sample"),
    "one sample": (X[:1], Y[:1], {}, ValueError, r"batch_size: batches of one sample"),
}  # fmt: skip


@pytest.mark.parametrize(("x", "y", "kwargs", "error", "match"), FIT.values(), ids=FIT)
@pytest.mark.parametrize("build", [TRAINERS["natural"], TRAINERS["lbgat"]], ids=["natural", "lbgat"])
def test_fit_refuses(build, x, y, kwargs, error, match):
    classifier = make_classifier()
    before = copied_state(classifier.model)
    with pytest.raises(error, match=match):
        build(classifier).fit(x, y, **{"nb_epochs": 1, **kwargs})
    assert states_equal(before, classifier.model.state_dict())


CONSTRUCT = {
    "classifier of another kind": (lambda: NaturalTrainer(conv_net()), TypeError, "classifier: expected an ART PyTorchCl"),
    "smoothing classifier": (lambda: NaturalTrainer(smoothed()), TypeError, "ART's PyTorchRandomizedSmoothing has a forward"),
    "certified classifier": (
        lambda: NaturalTrainer(
            PytorchDeepZ(
                nn.Sequential(nn.Linear(12, 4)), nn.CrossEntropyLoss(), (12,), 4, clip_values=(0, 1),
                device_type="cpu",
            )
        ),
        TypeError, "ART's PytorchDeepZ has a forward pass or gradient of its own",
    ),
    "own subclass that changes the forward": (
        lambda: NaturalTrainer(Doubled(conv_net(), nn.CrossEntropyLoss(), (1, 8, 8), 4, device_type="cpu")), TypeError,
        "Doubled changes predict",
    ),
    "sequential with a forward set on it": (
        lambda: NaturalTrainer(make_classifier(patched())), ValueError, "Sequential is an nn.Sequential with",
    ),
    "use_amp": (lambda: NaturalTrainer(with_amp()), ValueError, "classifier: use_amp=True"),
    "wrapper replaced": (lambda: NaturalTrainer(replaced()), ValueError, "classifier: its model was replaced"),
    "sequential with its own forward": (
        lambda: NaturalTrainer(make_classifier(Overridden(*conv_net()))), ValueError, "Overridden is an nn.Sequential with",
    ),
    "guide missing": (lambda: LBGATTrainer(make_classifier(), None), TypeError, "guide: expected an ART PyTorchClassifier"),
    "guides missing": (lambda: BGATTrainer(make_classifier(), []), ValueError, "guide: expected one classifier or several"),
    "guide is the classifier": (
        lambda: (lambda c: LBGATTrainer(c, c))(make_classifier()), ValueError, "guide: it is, or shares parameters with",
    ),
    "guide shares parameters": (lambda: BGATTrainer(*sharing()), ValueError, "guide: it is, or shares parameters with"),
    "second of the ensemble": (
        lambda: BGATTrainer(make_classifier(), [make_classifier(seed=1), conv_net()]), TypeError, r"guide\[1\]: expected",
    ),
    "nb_classes differ": (
        lambda: BGATTrainer(make_classifier(), make_classifier(conv_net(classes=5), classes=5)), ValueError,
        "guide: its nb_classes is 5, the classifier's 4",
    ),
    "input_shape differs": (
        lambda: BGATTrainer(make_classifier(), make_classifier(mlp(), shape=(12,))), ValueError, "guide: its input_shape is",
    ),
    "clip_values differ": (
        lambda: BGATTrainer(make_classifier(), make_classifier(seed=1, clip_values=(-1, 1))), ValueError,
        r"guide: its clip_values is \[-1.*\], the classifier's \[0",
    ),
    "clip_values missing": (
        lambda: BGATTrainer(make_classifier(), make_classifier(seed=1, clip_values=None)), ValueError,
        "guide: its clip_values is None",
    ),
    "attack of another kind": (
        lambda: MadryTrainer(make_classifier(), "pgd"), TypeError, "attack: expected an ART EvasionAttack, got str",
    ),
    "attack on another model": (
        lambda: MadryTrainer(make_classifier(), pgd(make_classifier())), ValueError, "attack: it is bound to another model",
    ),
    "targeted attack": (
        lambda: (lambda c: MadryTrainer(c, ProjectedGradientDescent(c, targeted=True)))(make_classifier()), ValueError,
        "attack: ProjectedGradientDescent is targeted",
    ),
    "guidance": (
        lambda: LBGATTrainer(make_classifier(), make_classifier(seed=1), guidance="msa"), ValueError,
        "guidance: expected one of .*, got 'msa'; did you mean 'mse'",
    ),
    "regularizer": (
        lambda: LBGATTrainer(make_classifier(), make_classifier(seed=1), regularizer="trade"), ValueError,
        "regularizer: .*did you mean 'trades'",
    ),
    "weight without regularizer": (
        lambda: LBGATTrainer(make_classifier(), make_classifier(seed=1), regularizer_weight=6.0), ValueError,
        "regularizer_weight: expected None without a regularizer, got 6.0",
    ),
    "unknown option": (
        lambda: NaturalTrainer(make_classifier(), verbos=False), TypeError, "unexpected keyword: .*did you mean 'verbose'",
    ),
    "options and keywords": (
        lambda: NaturalTrainer(make_classifier(), options=RunOptions(), seed=1), TypeError, "options: expected either",
    ),
    "options of another type": (
        lambda: NaturalTrainer(make_classifier(), options={"seed": 1}), TypeError, "options: expected a RunOptions, got dict",
    ),
    "guidance that raises": (
        lambda: bgat_with(lambda a, b: {}), TypeError, r"guidance: expected a callable .* it raised TypeError"),
    "guidance without terms": (lambda: bgat_with(lambda a, g, y: a.sum()), TypeError, "guidance: .* got Tensor"),
    "guidance of tensors": (
        lambda: bgat_with(lambda a, g, y: {"a": a.sum()}), TypeError, "guidance: .* got {'a': 'Tensor'}"),
    "guidance per sample": (
        lambda: bgat_with(lambda a, g, y: {"a": Term((a - g).sum(dim=1))}), ValueError, "guidance: expected finite scalar"),
    "guidance with a reserved name": (
        lambda: bgat_with(lambda a, g, y: {"loss": Term((a - g).sum())}), ValueError, r"guidance: a term must not be named"),
    "guidance without a graph": (
        lambda: bgat_with(lambda a, g, y: {"a": Term(a.detach().sum())}), ValueError, "guidance: none of its terms"),
    "kl without start": (
        lambda: PGDAttack(make_classifier(), objective="kl", num_random_init=0), ValueError, "num_random_init: expected >= 1"),
    "eps per feature": (
        lambda: PGDAttack(make_classifier(), eps=np.full((1, 8, 8), 0.1)), ValueError, r"eps: expected one number, or one per"),
    "eps per sample in training": (
        lambda: fit_with(PGDAttack(make_classifier(), eps=np.full(16, 0.1))), ValueError, "attack: its eps is given per sample"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "match"), CONSTRUCT.values(), ids=CONSTRUCT)
def test_construction_refuses(make, error, match):
    with pytest.raises(error, match=match):
        make()


WRONG_NUMBERS = [
    (RunOptions, "seed", -1), (RunOptions, "awp_gamma", 0), (RunOptions, "awp_gamma", -1),
    (RunOptions, "awp_start_epoch", 0), (RunOptions, "ema_decay", 1.0), (RunOptions, "ema_decay", 0.0),
    (RunOptions, "patience", 0), (RunOptions, "on_collapse", "halt"), (RunOptions, "selection", "tset"),
    (RunOptions, "keep", "bset"), (RunOptions, "verbose", "no"), (RunOptions, "max_grad_norm", 0),
    (RunOptions, "eps_warmup", 1.5), (RunOptions, "ema_start", 1.0), (RunOptions, "ema_warmup", 1),
    (RunOptions, "max_iter_schedule", "ab"), (RunOptions, "max_iter_schedule", (0.5, 3)),
    (RunOptions, "eps_warmup_epochs", -1), (RunOptions, "validate_every", 0), (RunOptions, "precision", "half"),
    (RunOptions, "attack_precision", "fp8"), (RunOptions, "compile", 1), (RunOptions, "channels_last", "auto"),
    (RunOptions, "on_step", 3), (RunOptions, "checkpoint_dir", 3), (RunOptions, "resume", 3),
    (PGDAttack, "eps", -0.1), (PGDAttack, "eps", "8/255"), (TRADESAttack, "eps", float("nan")),
    (PGDAttack, "eps_step", 0.0), (PGDAttack, "max_iter", -1), (PGDAttack, "norm", 3), (PGDAttack, "verbose", 1),
    (PGDAttack, "objective", "cv"), (TRADESAttack, "start_std", -1), (TRADESAttack, "num_random_init", 0),
    (TRADESTrainer, "beta", -1), (ALPTrainer, "alp_weight", True), (MARTTrainer, "mart_weight", 0),
    (LBGATTrainer, "guide_ce_weight", float("inf")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "value"), WRONG_NUMBERS)
def test_one_wrong_number_or_name_is_refused(kind, name, value):
    models = {RunOptions: [], LBGATTrainer: [make_classifier(), make_classifier(seed=1)]}.get(kind, [make_classifier()])
    with pytest.raises((ValueError, TypeError), match=rf"^{name}: expected .*got {re.escape(repr(value))}"):
        kind(*models, **{name: value})


@pytest.mark.parametrize(
    "rows", [((0.5, 2),), ((0.0, 2), (1.0, 3)), ((0.0, 2), (0.0, 3)), ((0.0, 2), (0.6, 3), (0.5, 3))]
)
def test_shares_of_the_run_rise_from_0(rows):
    with pytest.raises(ValueError, match="max_iter_schedule: expected shares of the run that rise from 0"):
        RunOptions(max_iter_schedule=rows)
    for row in ((0.0, 0), (0.0, 2, 0.0), (0.0, 1.5), (-0.1, 2)):
        with pytest.raises((ValueError, TypeError), match=r"^max_iter_schedule: expected a"):
            RunOptions(max_iter_schedule=(row,))


def test_options_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="eps_warmup: expected 0 with eps_warmup_epochs=3"):
        RunOptions(eps_warmup=0.5, eps_warmup_epochs=3)
    with pytest.raises(ValueError, match="resume: expected checkpoint_dir with resume='must', got None"):
        RunOptions(resume="must")
    with pytest.raises(ValueError, match="resume, checkpoint_dir: expected a path"):
        RunOptions(checkpoint_dir="")


def test_no_optimizer_and_a_stale_one_are_refused():
    for build in TRAINERS.values():
        with pytest.raises(ValueError, match=r"classifier: it has no optimizer"):
            build(make_classifier(optimizer=None)).fit(X, Y, nb_epochs=1)
    stale = make_classifier(optimizer=torch.optim.SGD(conv_net().parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"classifier: its optimizer holds no trainable parameter"):
        NaturalTrainer(stale, **OPTIONS).fit(X, Y, nb_epochs=1)
    classifier = make_classifier()
    with pytest.raises(ValueError, match=r"guide: it has no optimizer"):
        LBGATTrainer(classifier, make_classifier(seed=1, optimizer=None), **OPTIONS).fit(X, Y, nb_epochs=1)
    BGATTrainer(classifier, make_classifier(seed=1, optimizer=None), **OPTIONS).fit(X, Y, nb_epochs=1)  # needs none


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), r"its model must return logits of shape \(N, 4\)"),
        (Tuple(), "its model must return one tensor of logits.*got tuple"),
        (conv_net(classes=5), r"its model must return logits of shape \(N, 4\) for nb_classes=4, got \(16, 5\)"),
    ],
    ids=["one output", "tuple", "width"],
)
def test_outputs_that_are_no_logits_are_refused(model, match):
    for build in TRAINERS.values():
        with pytest.raises(ValueError, match=match):
            build(make_classifier(model)).fit(X, Y, nb_epochs=1)


def test_eps_in_0_255_units_is_refused():
    classifier = make_classifier()
    with pytest.raises(ValueError, match=r"eps: 8 is larger than the whole range of inputs \(1 .*divide .* by 255"):
        PGDAttack(classifier, eps=8, eps_step=2)
    with pytest.raises(ValueError, match=r"eps: 20 is larger than the whole range of inputs \(8 "):
        PGDAttack(classifier, norm=2, eps=20, eps_step=2)
    with pytest.raises(ValueError, match=r"eps: 8 is larger"):
        MadryTrainer(classifier, ProjectedGradientDescent(classifier, eps=8, eps_step=2, verbose=False), **OPTIONS).fit(
            X, Y, nb_epochs=1
        )
    with pytest.raises(ValueError, match=r"eps: 8 is larger"):
        evaluate(classifier, X, Y, eps=8, attacks=["pgd-2"])
    assert PGDAttack(make_classifier(clip_values=(0, 255)), eps=8, eps_step=2).eps == 8


class Shrinking(FastGradientMethod):
    def generate(self, x, y=None, **kwargs):
        return super().generate(x, y)[:-1]


def loader(*tensors, **kwargs):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), **{"batch_size": 8, **kwargs})


def test_generators_and_loaders_are_checked():
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    trainer = NaturalTrainer(make_classifier(), **OPTIONS)
    with pytest.raises(TypeError, match=r"generator: expected an ART DataGenerator, got DataLoader"):
        trainer.fit_generator(loader(x, y))
    generator = PyTorchDataGenerator(loader(x, y), size=16, batch_size=8)
    generator._size = None
    with pytest.raises(ValueError, match=r"generator: its size is None"):
        trainer.fit_generator(generator)
    with pytest.raises(TypeError, match=r"unexpected keyword: .*'nb_epochss'"):
        trainer.fit_generator(PyTorchDataGenerator(loader(x, y), size=16, batch_size=8), nb_epochss=1)
    with pytest.raises(ValueError, match=r"y: expected None, since DataLoader brings its own labels"):
        trainer.fit(loader(x, y), Y)
    with pytest.raises(ValueError, match=r"x: every batch must be a pair \(x, y\), got 3"):
        trainer.fit(loader(x, y, y), nb_epochs=1)
    with pytest.raises(ValueError, match=r"x: every batch must be a pair \(x, y\), got Tensor"):
        trainer.fit(torch.utils.data.DataLoader(x, batch_size=8), nb_epochs=1)
    with pytest.raises(ValueError, match=r"NaN or Inf in epoch 1, step 1: x \(rows 0, 1, 2"):
        trainer.fit(loader(x * float("nan"), y), nb_epochs=1)
    with pytest.raises(ValueError, match=r"x: got a batch of one sample"):
        trainer.fit(loader(x[:1], y[:1]), nb_epochs=1)
    for batches in ([[0], [1, 2, 3, 4]], [[0, 1], [2], [3, 4]], [[i] for i in range(8)]):
        with pytest.raises(ValueError, match=r"x: got a batch of one sample"):
            trainer.fit(torch.utils.data.DataLoader(loader(x, y).dataset, batch_sampler=batches), nb_epochs=1)
    with pytest.raises(ValueError, match=r"x: no batch came in epoch 1"):
        trainer.fit(loader(x[:4], y[:4], drop_last=True), nb_epochs=1)


def test_a_guidance_that_hides_another_term_is_refused():
    from art_lbgat.losses import guide_cross_entropy

    classifier = make_classifier()
    trainer = LBGATTrainer(
        classifier, another(classifier), guidance=lambda a, g, y: guide_cross_entropy(a, y), **OPTIONS
    )
    with pytest.raises(ValueError, match=r"guidance: its terms \['guide_ce'\] must not be named like"):
        trainer.fit(X, Y, nb_epochs=1)


def test_input_shapes_are_compared_as_tuples():
    classifier = make_classifier(shape=(1, 8, 8))
    trainer = BGATTrainer(classifier, make_classifier(seed=1, shape=[1, 8, 8]), **OPTIONS)
    trainer.fit(X, Y, nb_epochs=1)
    assert len(trainer.history) == 1


RUNS = {
    "patience alone": ({"patience": 2}, {}, "patience: expected validation_data with patience=2"),
    "stop alone": ({"on_collapse": "stop"}, {}, "on_collapse: expected validation_data"),
    "split of all": ({}, {"validation_split": 1.0}, r"validation_split: expected a number in \(0, 1\), got 1.0"),
    "split below 0": ({}, {"validation_split": -0.5}, "validation_split: expected a finite number >= 0"),
    "split and data": ({}, {"validation_split": 0.5, "validation_data": (X, Y)}, "validation_split: expected either"),
    "split of too few": ({}, {"validation_split": 0.01}, "validation_split"),
    "split of a loader": ({}, {"x": loader(torch.from_numpy(X), torch.from_numpy(Y)), "y": None, "validation_split": 0.5},
                          r"validation_split: expected arrays .* got DataLoader"),
    "scheduler of another": ({}, {"scheduler": torch.optim.lr_scheduler.StepLR(make_classifier().optimizer, 1)},
                             "scheduler: StepLR drives an optimizer that no trained classifier holds"),
    "eps warm-up of an attack through generate": (
        {"attack": lambda c: FastGradientMethod(c, norm=2, eps=0.1), "eps_warmup_epochs": 2}, {},
        "eps_warmup_epochs: expected 0 for an attack that runs through attack.generate"),
    "an eps ramp of such an attack": (
        {"attack": lambda c: FastGradientMethod(c, norm=2, eps=0.1), "eps_warmup": 0.5}, {},
        "eps_warmup: expected 0 for an attack that runs through attack.generate"),
    "other steps of such an attack": (
        {"attack": lambda c: FastGradientMethod(c, norm=2, eps=0.1), "max_iter_schedule": ((0.0, 2),)}, {},
        r"max_iter_schedule: expected \(\) for an attack that runs through attack.generate"),
    "attack that returns another shape": (
        {"attack": lambda c: Shrinking(c, eps=0.1)}, {}, "attack: Shrinking.generate returned shape"),
    "attack made targeted later": (
        {"attack": lambda c: ProjectedGradientDescent(c, eps=0.1, verbose=False)}, {"targeted": True},
        "attack: ProjectedGradientDescent is targeted"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "kwargs", "match"), RUNS.values(), ids=RUNS)
def test_what_does_not_fit_the_run_is_refused(options, kwargs, match):
    classifier = make_classifier()
    attack = options.pop("attack", pgd)(classifier)
    trainer = MadryTrainer(classifier, attack, **options, **OPTIONS)
    if kwargs.pop("targeted", False):
        attack.set_params(targeted=True)
    with pytest.raises(ValueError, match=match):
        trainer.fit(**{"x": X, "y": Y, "nb_epochs": 1, **kwargs})
