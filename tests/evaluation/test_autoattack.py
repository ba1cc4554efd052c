"""AutoAttack in our loop: the published package's result, whatever happens on the way, and no silent high number."""

import math
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import auto_attack, autoattack
from art_lbgat.evaluation.identity import weights_sha256
from art_lbgat.evaluation.record import Entry, Record
from tests.conftest import make_classifier, make_data

FAST = ("apgd-ce", "square")
TINY = {"eps": 0.1, "attacks": FAST, "batch_size": 8}


def tensors(n=24, classes=4, seed=0):
    return tuple(torch.from_numpy(a) for a in make_data(n, classes=classes, seed=seed))


def fitted(model=None, classes=4, epochs=6, **kwargs):
    classifier = make_classifier(model, classes=classes, lr=0.02, **kwargs)
    classifier.fit(*make_data(96, classes=classes, seed=5), batch_size=16, nb_epochs=epochs, verbose=False)
    return classifier


@pytest.fixture(scope="module")
def trained():
    return fitted()


def attack(classifier, x, y, **options):
    return auto_attack(TensorView(classifier), x, y, **{**TINY, **options})


def same(first, second):
    assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(first.right, second.right)
    assert torch.equal(first.robust, second.robust)
    assert first.accuracies == second.accuracies
    assert first.flags == second.flags


MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    "convolutions with BatchNorm": lambda: None,
    "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_equals_the_published_run_on_200_images(build):
    from pyautoattack import AutoAttack

    torch.manual_seed(0)
    classifier = fitted(build(), classes=10, epochs=12)
    x, y = tensors(200, classes=10, seed=1)
    for norm, name, eps in ((math.inf, "Linf", 0.1), (2.0, "L2", 0.6)):
        ours = attack(classifier, x, y, eps=eps, norm=norm, attacks="standard", batch_size=64, seed=3)
        classifier.model.eval()
        upstream = AutoAttack(classifier.model, norm=name, eps=eps, seed=3, device="cpu", version="standard")
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
        for batch_size in (1, 7, 64, 16):
            trained.model.train(batch_size == 7)
            found = attack(trained, x, y, eps=eps, norm=norm, batch_size=batch_size)
            assert trained.model.training == (batch_size == 7)
            accuracies.append(float(found.robust.double().mean()))
        assert len(set(accuracies)) == 1
        assert 0 < accuracies[0] < 1
    trained.model.eval()


def test_channels_last_images_with_several_channels(few_queries):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    classifier = make_classifier(model, shape=(3, 8, 8))
    x, y = (torch.from_numpy(a) for a in make_data(12, shape=(3, 8, 8)))
    strided = x.to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    for norm in (math.inf, 2.0):
        options = {"norm": norm, "attacks": ["apgd-t", "square"], "eps": 0.02}
        same(attack(classifier, strided, y, **options), attack(classifier, x, y, **options))


KILLED = """
    import json, os, random, signal, sys, time
    import torch
    from art_lbgat.classifier import TensorView
    from art_lbgat.evaluation import auto_attack, autoattack
    from tests.conftest import conv_net, make_classifier, make_data

    torch.set_num_threads(1)
    made = autoattack._runner

    def runner(*args):
        found = made(*args)
        found.apgd.n_iter = found.apgd.n_iter_orig = 20
        found.apgd_targeted.n_iter = found.apgd_targeted.n_iter_orig = 20
        found.fab.n_iter, found.square.n_queries = 10, 40
        return found

    autoattack._runner = runner
    folder = sys.argv[1]
    x, y = (torch.from_numpy(a) for a in make_data(20))

    def run(path):
        view = TensorView(make_classifier())
        found = auto_attack(view, x, y, 0.05, attacks="standard", batch_size=4, state_path=path)
        torch.save((found.x_adv, found.right, found.robust, found.accuracies, found.flags), path + ".pt")

    def child(path):
        pid = os.fork()
        if not pid:
            run(path)
            os._exit(0)
        return pid

    start = time.monotonic()
    assert os.waitpid(child(folder + "/whole"), 0)[1] == 0
    length = time.monotonic() - start
    random.seed(0)
    partial = 0
    for number in range(20):
        path = f"{folder}/killed{number}"
        pid = child(path)
        time.sleep(random.uniform(0.02, 0.9) * length)
        os.kill(pid, signal.SIGKILL)
        partial += os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert os.waitpid(child(path), 0)[1] == 0
        whole, resumed = (torch.load(f + ".pt", weights_only=True) for f in (folder + "/whole", path))
        assert all(torch.equal(a, b) for a, b in zip(whole[:3], resumed[:3])), number
        assert whole[3:] == resumed[3:], number
    print(partial)
"""


def test_killed_at_20_random_moments_it_ends_in_the_same_bits(tmp_path):
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n" + textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True,
                          cwd=root, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5  # so many were truly killed before their end


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


CHANGES = {
    "weights": (lambda c, x, y: (fitted(epochs=1), x, y), {}, "weights: recorded '"),
    "images": (lambda c, x, y: (c, x.flip(0), y), {}, "data: recorded '"),
    "labels": (lambda c, x, y: (c, x, y.flip(0)), {}, "data: recorded '"),
    "eps": (lambda c, x, y: (c, x, y), {"eps": 0.11}, "eps: recorded 0.1, now 0.11"),
    "seed": (lambda c, x, y: (c, x, y), {"seed": 1}, "seed: recorded 0, now 1"),
    "batch size": (lambda c, x, y: (c, x, y), {"batch_size": 9}, "batch_size: recorded 8, now 9"),
    "attacks": (lambda c, x, y: (c, x, y), {"attacks": ["apgd-ce"]}, "attacks: recorded"),
    "preprocessing": (
        lambda c, x, y: (make_classifier(c.model, preprocessing=(0.1, 1.0)), x, y), {}, "layers and preprocessing",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "options", "match"), CHANGES.values(), ids=CHANGES)
def test_a_record_of_another_run_is_refused_and_kept(change, options, match, trained, few_queries, tmp_path):
    x, y = tensors()
    path = tmp_path / "state"
    whole = attack(trained, x, y, state_path=path)
    before = path.read_bytes()
    classifier, x_other, y_other = change(trained, x, y)
    with pytest.raises(ValueError, match=match) as error:
        attack(classifier, x_other, y_other, state_path=path, **options)
    assert f"state_path: {path} belongs to another run" in str(error.value)
    assert path.read_bytes() == before
    same(whole, attack(trained, x, y, state_path=path))


def make_record(path):
    entry = Entry(torch.arange(3), torch.rand(3, 1, 4, 4), {"softmax": "is one"}, 0.5)
    with Record(path, {"eps": 0.1}) as kept:
        kept.add("apgd-ce", entry, 8)
    return entry


def test_a_record_gives_back_what_was_added(tmp_path):
    entry = make_record(tmp_path / "state")
    with Record(tmp_path / "state", {"eps": 0.1}) as kept:
        found = kept.get("apgd-ce", 8)
        assert kept.get("apgd-ce", 0) is None
        assert kept.get("square", 8) is None
    assert torch.equal(found.rows, entry.rows)
    assert torch.equal(found.x_adv, entry.x_adv)
    assert (found.flags, found.seconds) == (entry.flags, entry.seconds)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT x_adv FROM entry").fetchone()[0]
        database.execute("UPDATE entry SET x_adv = ?", [bytes([rows[0] ^ 1]) + rows[1:]])


def newer(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (a)")


DAMAGE = {
    "truncated": (truncate, "is damaged or no record"),
    "text": (lambda path: path.write_text("not a database" * 100), "is damaged or no record"),
    "a flipped bit": (flip, "is damaged at apgd-ce 8; delete it"),
    "newer format": (newer, "has format 2, this version reads format 1"),
    "another program's": (foreign, "is a database of something else"),
}


@pytest.mark.parametrize(("damage", "match"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_record_is_named_and_left_alone(damage, match, tmp_path):
    path = tmp_path / "state"
    make_record(path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=match) as error, Record(path, {"eps": 0.1}) as kept:
        kept.get("apgd-ce", 8)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before


def test_a_record_that_is_in_use_is_locked_and_free_afterwards(tmp_path):
    path = tmp_path / "state"
    make_record(path)
    for _ in range(2):  # the second time nothing is written, only read
        with Record(path, {"eps": 0.1}), pytest.raises(BlockingIOError, match=r"another run has .*state open"):
            Record(path, {"eps": 0.1})
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        Record(tmp_path / "none" / "state", {})
    with pytest.raises(OSError, match="cannot be used"):
        Record(tmp_path, {})


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path):
    path = tmp_path / "state"
    entry = make_record(path)
    with Record(path, {"eps": 0.1}) as kept:
        pages = kept._database.execute("PRAGMA page_count").fetchone()[0]
        kept._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match=r"cannot be written .*full"):
            kept.add("apgd-t", entry._replace(x_adv=torch.rand(3, 100, 100)))
    with Record(path, {"eps": 0.1}) as kept:
        assert torch.equal(kept.get("apgd-ce", 8).x_adv, entry.x_adv)
        assert kept.get("apgd-t") is None


class Changed(nn.Module):
    """A model whose logits go through a function."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(self.model(x))


def changed(trained, function):
    return make_classifier(Changed(trained.model, function))


def nan_beyond(logits):
    """NaN where an attack has brought the logits close together."""
    gap = logits.topk(2, dim=1).values
    return torch.where((gap[:, :1] - gap[:, 1:]) < 0.5, torch.nan, logits)


UNRELIABLE = {
    "quantised logits": (lambda z: (4 * z).round() / 4, ("apgd-ce", "apgd-t", "square"), {"zero gradients", "square stronger"}),
    "randomised": (lambda z: z + 0.3 * torch.randn_like(z), FAST, {"randomised"}),
    "softmax": (lambda z: z.softmax(dim=1), FAST, {"softmax"}),
    "NaN under attack": (nan_beyond, FAST, {"non-finite logits"}),
}  # fmt: skip


@pytest.mark.parametrize(("function", "attacks", "expected"), UNRELIABLE.values(), ids=UNRELIABLE)
def test_what_makes_a_number_unreliable_is_flagged(function, attacks, expected, trained, tmp_path):
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


def test_saturated_logits_gain_nothing(trained):
    """Cross-entropy has no gradient left there; the DLR loss does not notice the factor."""
    x, y = tensors()
    options = {"attacks": ["apgd-ce", "apgd-t"], "eps": 0.15}
    plain, saturated = (attack(c, x, y, **options) for c in (trained, changed(trained, lambda z: 1e5 * z)))
    assert saturated.accuracies["apgd-ce"] > plain.accuracies["apgd-ce"]
    assert saturated.robust.sum() <= plain.robust.sum() + 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_natural_logits_that_are_not_finite_are_refused(value, trained):
    def function(logits):
        return logits.index_fill(1, torch.tensor([2]), value)

    with pytest.raises(ValueError, match="its logits for natural images hold NaN or Inf"):
        attack(changed(trained, function), *tensors())


def test_a_model_left_in_train_mode_is_judged_in_eval_mode(few_queries):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    classifier = fitted(model)
    expected = attack(classifier, *tensors())
    classifier.model.train()
    same(expected, attack(classifier, *tensors()))
    assert classifier.model.training
    assert not expected.flags


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
    import pyautoattack
    from pyautoattack import checks

    class AutoAttack(pyautoattack.AutoAttack):
        """With the argument names and the logger of the package ``autoattack``."""

        def __init__(
            self, model, norm, eps, seed, attacks_to_run=None, version="standard", device="cuda", log_path=None
        ):
            super().__init__(
                model, attacks=attacks_to_run, device=device, eps=eps, norm=norm, seed=seed, version=version
            )

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
    assert autoattack.published_package() is package
    found = attack(trained, x, y)
    assert found.flags == {"softmax": "it seems that the output is a probability distribution."}
    same(found._replace(flags={}), expected._replace(flags={}))


def test_without_any_package_there_is_one_error(monkeypatch):
    for name in ("autoattack", "pyautoattack"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pyautoattack"):
        autoattack.published_package()


def test_weights_hash_sees_values_names_and_types_only():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    digest = weights_sha256(model)
    assert digest == weights_sha256(model.train()) == weights_sha256(model.eval())
    assert len(digest) == 64
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-7
    assert weights_sha256(model) != digest
    seen = [weights_sha256(module) for module in (model, model[0])]
    seen += [weights_sha256(model.to(dtype)) for dtype in (torch.float64, torch.bfloat16)]  # in place
    assert len(set(seen)) == 4


def test_progress_is_shown_only_where_wanted(trained, few_queries, capsys):
    attack(trained, *tensors(8), verbose=True)
    shown = capsys.readouterr().err
    assert "apgd-ce" in shown
    assert "robust at most" in shown
    attack(trained, *tensors(8))
    assert capsys.readouterr().err == ""
