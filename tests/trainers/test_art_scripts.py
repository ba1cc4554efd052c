"""Scripts written for ART's trainers: they run after a change of the class's name, or are told what to write."""

import re

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.data_generators import NumpyDataGenerator

from art_lbgat import ALPTrainer, FastATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer
from tests.conftest import make_classifier, make_data, states_equal
from tests.trainers.cases import another, pgd

X, Y = make_data(16)
HELD = make_data(8, seed=1)


def art_pgd(classifier):
    return ProjectedGradientDescent(classifier, eps=0.03, eps_step=0.015, max_iter=2, verbose=False)


def schedule(classifier):
    return torch.optim.lr_scheduler.StepLR(classifier.optimizer, 1, gamma=0.1)


def generator():
    return NumpyDataGenerator(X, Y, batch_size=8, shuffle=False)


def trained(build, run):
    """Weights and history of a script, from a seed drawn of torch's global generator."""
    classifier = make_classifier(lr=0.02)
    torch.manual_seed(0)
    trainer = build(classifier)
    run(trainer, classifier)
    return classifier.model.state_dict(), trainer.history.drop(columns=["seconds", "images_per_second"])


def fit(**kwargs):
    return lambda t, c: t.fit(X, Y, nb_epochs=2, batch_size=8, **kwargs)


def from_generator(*args, **kwargs):
    return lambda t, c: t.fit_generator(generator(), *(a(c) if callable(a) else a for a in args), **kwargs)


def madry(classifier):
    return MadryTrainer(classifier, art_pgd(classifier))


def trades(classifier):
    return TRADESTrainer(classifier, art_pgd(classifier), beta=2.0)


# name: (the script as it was written for ART, and as it is written here, each how it builds and how it runs)
SCRIPTS = {
    "AdversarialTrainer": (
        lambda c: MadryTrainer(c, [art_pgd(c)], 1.0), fit(), madry, fit()),
    "its ratio by name": (lambda c: MadryTrainer(c, art_pgd(c), ratio=1), fit(), madry, fit()),
    "MadryPGD.fit by position": (
        madry, lambda t, c: t.fit(X, Y, HELD, 8, 2), madry, fit(validation_data=HELD)),
    "TRADES": (lambda c: TRADESTrainer(c, art_pgd(c), 2.0), fit(), trades, fit()),
    "TRADES.fit by position": (
        trades, lambda t, c: t.fit(X, Y, HELD, 8, 2, schedule(c)),
        trades, lambda t, c: fit(validation_data=HELD, scheduler=schedule(c))(t, c)),
    "TRADES.fit_generator": (
        trades, from_generator(2, schedule), trades,
        lambda t, c: t.fit_generator(generator(), nb_epochs=2, scheduler=schedule(c))),
    "AWP.fit_generator": (
        trades, from_generator(HELD, 2, schedule), trades,
        lambda t, c: t.fit_generator(generator(), nb_epochs=2, validation_data=HELD, scheduler=schedule(c))),
    "AWP.fit_generator without data": (
        madry, from_generator(None, 2), madry, from_generator(nb_epochs=2)),
    "AWP.fit_generator without epochs": (
        madry, from_generator(HELD), madry, from_generator(nb_epochs=20, validation_data=HELD)),
    "AdversarialTrainer.fit by position": (
        lambda c: MadryTrainer(c, [art_pgd(c)]), lambda t, c: t.fit(X, Y, 8, 2), madry, fit()),
    "AdversarialTrainer.fit by position and name": (
        trades, lambda t, c: t.fit(X, Y, np.int64(8), nb_epochs=2), trades, fit()),
    "AdversarialTrainer.fit without epochs": (
        trades, lambda t, c: t.fit(X, Y, 8), trades, lambda t, c: t.fit(X, Y, batch_size=8, nb_epochs=20)),
    "keywords of PyTorchClassifier.fit": (
        madry, fit(drop_last=False, update_batchnorm=True, verbose=False), madry, fit()),
}  # fmt: skip


@pytest.mark.parametrize(("build", "run", "build_here", "run_here"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_for_art_gives_what_it_gives_by_our_names(build, run, build_here, run_here):
    (weights, history), (expected, expected_history) = trained(build, run), trained(build_here, run_here)
    assert states_equal(weights, expected)
    assert history.equals(expected_history)


@pytest.mark.parametrize("name", ["verbose", "display_progress_bar"])
@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_of_one_fit(name, shown, capsys):
    trainer = MadryTrainer(*(lambda c: (c, pgd(c)))(make_classifier()), verbose=not shown)
    trainer.fit(X, Y, nb_epochs=1, **{name: shown})
    assert ("PGD-AT" in capsys.readouterr().err) == shown
    assert trainer.options.verbose is not shown
    trainer.fit(X, Y, nb_epochs=1)
    assert ("PGD-AT" in capsys.readouterr().err) != shown


def made(kind, *args, **kwargs):
    return lambda c: kind(c, *args, **kwargs)


def fitted(*args, **kwargs):
    return lambda c: madry(c).fit(X, Y, *args, **kwargs)


TOLD = {
    "MadryPGD": (made(MadryTrainer, nb_epochs=10, eps=0.1), TypeError, r"^nb_epochs: .* fit\(.*; eps: .* attack=PGDAttack\("),
    "MadryPGD's attack": (made(MadryTrainer, eps_step=2, max_iter=7, num_random_init=1), TypeError, "eps_step: .*max_iter: .*num_"),
    "MadryPGD by position": (made(MadryTrainer, 10), TypeError, r"attack: .*got int; as nb_epochs of .* fit\(x, y, nb_epochs"),
    "FBF by position": (made(FastATTrainer, 0.1), TypeError, r"attack: .*got float; as eps of .* attack=PGDAttack\("),
    "FBF": (made(FastATTrainer, eps=8, use_amp=False), TypeError, "eps: .*use_amp: write precision="),
    "AWP": (made(MadryTrainer, mode="PGD", gamma=0.01, beta=6.0, warmup=2), TypeError,
            r"mode: take .*gamma: write awp_gamma.*beta: only TRADESTrainer.*warmup: write awp_start_epoch=warmup \+ 1"),
    "AWP's proxy": (lambda c: TRADESTrainer(c, another(c)), TypeError, "attack: .*got PyTorchClassifier; .*awp_gamma=... turns"),
    "AWP's proxy by name": (lambda c: TRADESTrainer(c, proxy_classifier=another(c)), TypeError, "proxy_classifier: AWP needs none"),
    "attacks": (lambda c: MadryTrainer(c, attacks=[art_pgd(c)]), TypeError, "attacks: write attack="),
    "two attacks": (lambda c: MadryTrainer(c, [art_pgd(c), pgd(c)]), TypeError, "attack: .*got list; .*which is one attack"),
    "ratio": (lambda c: MadryTrainer(c, art_pgd(c), 0.5), ValueError, "ratio: expected 1.0, since every sample .*got 0.5"),
    "a method of ours": (lambda c: LBGATTrainer(c, another(c), ratio=0.5), TypeError, "ratio: every sample is attacked"),
    "no attack at all": (made(NaturalTrainer, nb_epochs=3), TypeError, r"nb_epochs: it belongs to fit\("),
    "three numbers": (fitted(8, 2, 2), ValueError, "validation_data: expected a pair .*got int"),
    "no epochs": (fitted(8, 0), ValueError, "nb_epochs: expected a whole number >= 1, got 0"),
    "all of MadryPGD by position": (
        made(MadryTrainer, 10, 64, 8, 2, 7, 1), TypeError, r"^nb_epochs: .*; batch_size: .*; eps: .*; num_random_init: "),
    "all of AWP by position": (
        lambda c: TRADESTrainer(c, another(c), art_pgd(c), "TRADES", 0.01, 6.0, 2), TypeError,
        "^proxy_classifier: AWP needs none.*; mode: take .*; gamma: .*; warmup: "),
    "all of MadryPGD, of a method of ours": (
        made(ALPTrainer, 10, 64, 8), TypeError, r"^nb_epochs: .*; batch_size: .*; eps: "),
    "drop_last": (fitted(drop_last=True), TypeError, r"drop_last: .*DataLoader\(..., drop_last=True\)"),
    "update_batchnorm": (fitted(update_batchnorm=False), TypeError, "update_batchnorm: BatchNorm layers"),
    "bar": (fitted(verbose="yes"), TypeError, "verbose: expected a bool"),
    "misspelt": (fitted(nb_epoch=2), TypeError, "did you mean 'nb_epochs'"),
    "unknown and None": (fitted(epochs=None), TypeError, "unexpected keyword: .*'epochs'"),
    "generator": (lambda c: madry(c).fit_generator(generator(), drop_last=True), TypeError, "drop_last: "),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), TOLD.values(), ids=TOLD)
def test_what_has_no_place_here_is_told_in_one_sentence(call, error, match):
    with pytest.raises(error, match=match) as found:
        call(make_classifier())
    assert "\n" not in str(found.value)
    assert not re.search("checkpoint_every", str(found.value))  # no list of run options


SAYS = {
    "an attack of ART": (lambda c: MadryTrainer(c, art_pgd(c)), True),
    "in a list": (lambda c: MadryTrainer(c, [art_pgd(c)]), True),
    "ratio said": (lambda c: MadryTrainer(c, art_pgd(c), 1.0), False),
    "an attack of ours": (lambda c: MadryTrainer(c, pgd(c)), False),
    "no attack": (lambda c: MadryTrainer(c), False),
    "a trainer without ratio in ART": (trades, False),
    "FBF, without ratio in ART": (lambda c: FastATTrainer(c, art_pgd(c)), False),
}


@pytest.mark.parametrize(("build", "told"), SAYS.values(), ids=SAYS)
def test_the_first_fit_says_that_every_sample_is_attacked_where_art_attacks_half(build, told, caplog):
    trainer = build(make_classifier(lr=0.02))
    for times in (1, 1):
        trainer.fit(X, Y, nb_epochs=1, batch_size=8)
        assert (
            caplog.text.count("Every sample is attacked, while ART's AdversarialTrainer has ratio=0.5") == told * times
        )


def test_a_method_of_ones_own_may_take_as_many_as_it_likes():
    class Own(ALPTrainer):
        def __init__(self, classifier, attack, *more, **kwargs):
            super().__init__(classifier, attack, **kwargs)
            self.more = more

    classifier = make_classifier()
    assert Own(classifier, pgd(classifier), 1, 2, 3, 4).more == (1, 2, 3, 4)
    with pytest.raises(TypeError, match="positional arguments"):  # Python's own message
        LBGATTrainer(classifier, another(classifier), pgd(classifier), "mse")


def test_an_order_of_art_is_named(caplog):
    madry(make_classifier()).fit(X, Y, 8, 1)
    assert "fit: 8 is read as batch_size, in the order of ART's AdversarialTrainer" in caplog.text
    caplog.clear()
    madry(make_classifier()).fit(X, Y, None, 8, 1)
    assert "is read as" not in caplog.text


def test_numpy_integers_of_scripts_are_numbers():
    trainer = madry(make_classifier())
    trainer.fit_generator(generator(), None, np.int64(1))
    assert len(trainer.history) == 1
