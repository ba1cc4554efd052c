"""AutoAttack in our loop: the published package's result, whatever happens on the way, and no silent high number."""

import logging
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pyautoattack
import pytest
import torch
from pyautoattack import checks
from torch import nn

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import evaluate
from art_lbgat.evaluation.autoattack import auto_attack, published_package
from art_lbgat.evaluation.record import Record
from art_lbgat.preserve import preserved_randomness, seed_everything
from tests.conftest import make_classifier, make_data
from tests.evaluation.nets import Wrapped
from tests.evaluation.sharded import nan_beyond

X, Y = make_data(24)
FAST = ("apgd-ce", "square")
TINY = {"eps": 0.1, "attacks": FAST, "batch_size": 8}


def tensors(n=24, classes=4, seed=0):
    return tuple(torch.from_numpy(a) for a in make_data(n, classes=classes, seed=seed))


def fitted(model=None, classes=4, epochs=6, **kwargs):
    classifier = make_classifier(model, classes=classes, lr=0.02, **kwargs)
    with preserved_randomness():  # the same whichever test asks first
        seed_everything(0)
        classifier.fit(*make_data(96, classes=classes, seed=5), batch_size=16, nb_epochs=epochs, verbose=False)
    return classifier


@pytest.fixture(scope="module")
def trained():
    return fitted()


def attack(classifier, x, y, **options):
    return auto_attack(TensorView(classifier), x, y, **{**TINY, **options})


def same(first, second):
    for name in ("x_adv", "right", "robust"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert (first.accuracies, first.flags) == (second.accuracies, second.flags)


MODELS = {
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), math.inf, 0.1),
    "convolutions with BatchNorm": (lambda: None, math.inf, 0.1),
    "tanh": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)), 2.0, 0.6),
}


@pytest.mark.parametrize(("build", "norm", "eps"), MODELS.values(), ids=MODELS)
def test_equals_the_published_run_on_200_images(build, norm, eps):
    torch.manual_seed(0)
    classifier = fitted(build(), classes=10, epochs=12)
    x, y = tensors(200, classes=10, seed=1)
    ours = attack(classifier, x, y, eps=eps, norm=norm, attacks="standard", batch_size=64, seed=3)
    classifier.model.eval()
    name = "Linf" if norm == math.inf else "L2"
    upstream = pyautoattack.AutoAttack(classifier.model, norm=name, eps=eps, seed=3, device="cpu", version="standard")
    with ThreadPoolExecutor(max_workers=1) as thread:  # it ends with sys.settrace(None)
        x_adv, y_adv = thread.submit(upstream.run_standard_evaluation, x, y, batch_size=64).result()
    assert torch.equal(ours.robust, y_adv == y)
    assert torch.equal(ours.x_adv, x_adv)
    assert 0 < ours.robust.sum() < ours.right.sum()
    assert list(ours.accuracies) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert ours.accuracies["square"] == ours.robust.double().mean()


def test_accuracy_does_not_depend_on_batch_size_or_mode(trained, few_queries):
    x, y = tensors(16)
    for norm, eps in ((math.inf, 0.14), (2.0, 0.8)):
        accuracies = []
        for batch_size in (1, 7, 64):
            trained.model.train(batch_size == 7)
            found = attack(trained, x, y, eps=eps, norm=norm, batch_size=batch_size)
            assert trained.model.training == (batch_size == 7)
            accuracies.append(float(found.robust.double().mean()))
        assert len(set(accuracies)) == 1
        assert 0 < accuracies[0] < 1
    trained.model.eval()


def test_stopped_after_each_batch_it_goes_on_and_does_nothing_twice(trained, few_queries, tmp_path, monkeypatch):
    x, y = tensors()
    whole = attack(trained, x, y)
    add, path, written = Record.add, tmp_path / "state", []

    def stop_after(self, part, entry, place=0):
        written.append((part, place))
        add(self, part, entry, place)
        raise KeyboardInterrupt

    monkeypatch.setattr(Record, "add", stop_after)
    while True:
        try:
            resumed = attack(trained, x, y, state_path=path)
            break
        except KeyboardInterrupt:
            torch.manual_seed(len(written))
    same(whole, resumed)
    assert len(written) == len(set(written)) > 4
    assert written[0] == ("natural", 0)


def test_a_record_of_another_run_is_refused_and_kept(trained, few_queries, tmp_path):
    x, y = tensors()
    path = tmp_path / "state"
    whole = attack(trained, x, y, state_path=path)
    before = {file: file.read_bytes() for file in path.glob("*/*")}
    shifted = make_classifier(trained.model, preprocessing=(0.1, 1.0))
    for change, match in (
        ({"classifier": fitted(epochs=1)}, "weights: recorded '"),
        ({"classifier": shifted}, "layers and preprocessing"),
        ({"y": y.flip(0)}, "data: recorded '"),
        ({"eps": 0.11, "batch_size": 9}, "eps: recorded 0.1, now 0.11; batch_size: recorded 8, now 9"),
        ({"seed": 1, "attacks": ["apgd-ce"]}, "seed: recorded 0, now 1; attacks: recorded"),
    ):
        with pytest.raises(ValueError, match=match) as error:
            attack(**{"classifier": trained, "x": x, "y": y, "state_path": path, **change})
        assert f"state_path: {path} belongs to another run" in str(error.value)
        assert {file: file.read_bytes() for file in path.glob("*/*")} == before
    same(whole, attack(trained, x, y, state_path=path))


def changed(trained, function):
    return make_classifier(Wrapped(trained.model, after=function))


UNRELIABLE = {
    "quantised logits": (lambda z: (4 * z).round() / 4, ("apgd-ce", "apgd-t", "square"), {"zero gradients", "square stronger"}),
    "randomised": (lambda z: z + 0.3 * torch.randn_like(z), FAST, {"randomised"}),
    "softmax": (lambda z: z.softmax(dim=1), FAST, {"softmax"}),
    "NaN under attack": (lambda z: nan_beyond(z, 0.5), FAST, {"non-finite logits"}),
}  # fmt: skip


@pytest.mark.parametrize(("function", "attacks", "expected"), UNRELIABLE.values(), ids=UNRELIABLE)
def test_what_makes_a_number_unreliable_is_flagged(function, attacks, expected, trained, few_queries, tmp_path):
    x, y = tensors()
    classifier = changed(trained, function)
    found = attack(classifier, x, y, attacks=attacks, eps=0.15, state_path=tmp_path / "state")
    assert expected <= set(found.flags)
    assert all(found.flags.values())
    assert "few classes" in found.flags if "apgd-t" in attacks else "few classes" not in found.flags
    again = attack(classifier, x, y, attacks=attacks, eps=0.15, state_path=tmp_path / "state")
    assert again.flags == found.flags
    honest = attack(trained, x, y, attacks=["apgd-ce"], eps=0.15)
    assert not honest.flags


def test_natural_logits_that_are_not_finite_are_refused(trained):
    broken = changed(trained, lambda logits: logits.index_fill(1, torch.tensor([2]), math.nan))
    with pytest.raises(ValueError, match="its logits for natural images hold NaN or Inf"):
        attack(broken, *tensors())


@pytest.mark.parametrize(
    ("classes", "attacks"),
    [(2, ["apgd-ce", "fab-t", "square"]), (3, ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
     (4, ["apgd-ce", "apgd-t", "fab-t", "square"]), (9, ["apgd-ce", "apgd-t", "fab-t", "square"])],
)  # fmt: skip
def test_fewer_than_ten_classes_work_and_are_flagged(classes, attacks, few_queries):
    classifier = fitted(nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), classes=classes)
    found = attack(classifier, *tensors(12, classes), attacks="standard", eps=0.02)
    assert list(found.accuracies) == attacks
    assert 0 < found.accuracies["square"] <= found.right.double().mean()
    assert str(classes - 1) in found.flags["few classes"] or str(classes) in found.flags["few classes"]


def test_the_authors_package_is_preferred_and_gives_the_same(trained, few_queries, monkeypatch):
    class AutoAttack(pyautoattack.AutoAttack):
        """With the argument names and the logger of the package ``autoattack``."""

        def __init__(self, model, norm, eps, seed, attacks_to_run=None, version="standard", device="cuda"):
            options = {"device": device, "eps": eps, "norm": norm, "seed": seed, "version": version}
            super().__init__(model, attacks=attacks_to_run, **options)

    def check_range_output(model, x, alpha=1e-5, logger=None):
        logger.log("using standard version")
        logger.log("Warning: it seems that the output is a probability distribution. See flags_doc.md for details.")

    x, y = tensors(8)
    expected = attack(trained, x, y)
    package, module = ModuleType("autoattack"), ModuleType("autoattack.checks")
    vars(module).update({n: v for n, v in vars(checks).items() if not n.startswith("__")})
    package.AutoAttack, module.check_range_output = AutoAttack, check_range_output
    monkeypatch.setitem(sys.modules, "autoattack", package)
    monkeypatch.setitem(sys.modules, "autoattack.checks", module)
    assert published_package() is package
    found = attack(trained, x, y)
    assert found.flags == {"softmax": "it seems that the output is a probability distribution."}
    same(found._replace(flags={}), expected._replace(flags={}))


def test_without_any_package_there_is_one_error(monkeypatch):
    for name in ("autoattack", "pyautoattack"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pyautoattack"):
        published_package()


def test_progress_is_shown_only_where_wanted(trained, few_queries, capsys):
    attack(trained, *tensors(8), verbose=True)
    shown = capsys.readouterr().err
    assert "apgd-ce" in shown
    assert "robust at most" in shown
    attack(trained, *tensors(8))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("low", "high", "mean", "std"), [(-1.0, 1.0, 0.0, 2.0), (0.0, 255.0, 0, 255)])
def test_autoattack_in_other_ranges_equals_the_unit_range(low, high, mean, std):
    unit = fitted(epochs=5)
    model = Wrapped(unit.model, before=lambda x: (x * std + mean - low) / (high - low))
    other = make_classifier(model, clip_values=(low, high), preprocessing=(mean, std))
    options = {"attacks": ["natural", "pgd-5", "autoattack"], "autoattack": ["apgd-ce", "apgd-t"]}
    expected = evaluate(unit, X, Y, eps=0.1, **options).accuracy
    found = evaluate(other, X * (high - low) + low, Y, eps=0.1 * (high - low), **options).accuracy
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1.5 / 24)
    assert found[2] < found[0]


def test_autoattack_on_inputs_that_are_no_images_and_in_l2():
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    classifier = make_classifier(model, shape=(12,))
    x, y = make_data(12, shape=(12,))
    for norm, attacks in ((math.inf, ["apgd-ce", "square"]), (2, ["apgd-ce", "fab-t"])):
        table = evaluate(classifier, x, y, eps=0.5, norm=norm, attacks=["natural", "autoattack"], autoattack=attacks)
        assert table.accuracy[1] <= table.accuracy[0]
    with pytest.raises(ValueError, match=r"Square in L2 needs images of at least 5x5 values, got \(3, 4\)"):
        evaluate(classifier, x, y, eps=0.2, norm=2, attacks=["autoattack"])


def test_a_dynamic_defence_is_flagged_and_the_next_model_is_not():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 4)

        def forward(self, x):
            if not x.requires_grad:
                with torch.enable_grad():
                    leaf = x.detach().clone().requires_grad_(True)
                    torch.autograd.grad(self.linear(leaf.flatten(1)).sum(), leaf)
            return self.linear(x.flatten(1))

    models = {"dynamic": make_classifier(Dynamic()), "static": make_classifier()}
    table = evaluate(models, X[:4], Y[:4], eps=0.1, attacks="autoattack", autoattack="apgd-ce")
    assert "dynamic" in table["flags"][0]
    assert table["flags"][1] == ""
    assert logging.getLogger("auto-attack").handlers == []


def test_the_trace_function_survives():
    def trace(frame, event, arg):
        return None

    def traced():
        sys.settrace(trace)
        evaluate(make_classifier(), X[:4], Y[:4], eps=0.1, attacks="autoattack", autoattack="apgd-ce")
        return sys.gettrace()

    with ThreadPoolExecutor(max_workers=1) as thread:  # so that the trace function of a coverage run is left alone
        assert thread.submit(traced).result() is trace
