"""robustbench is imported whatever is missing, and nothing of the stand-ins stays behind."""

import copy
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyautoattack
import pytest
import torch
from torch import nn

from art_lbgat import robustbench_import as compat
from art_lbgat.robustbench import import_architecture, import_robustbench

HIDE = """
import sys

class Hide:
    def __init__(self, *names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def hide(*names):
    sys.meta_path.insert(0, Hide(*names))

def left():
    return [n for n in ("pkg_resources", "autoattack", "autoattack.state") if n in sys.modules]
"""
REAL = {
    "autoattack/__init__.py": "class AutoAttack: real = True\n",
    "autoattack/state.py": "class EvaluationState: real = True\n",
}


def python(code, folder, files=()):
    """Run in a new interpreter in which the folder comes first, as for a script in it."""
    for name, text in dict(files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    root = Path(compat.__file__).parents[1]
    start = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(root)!r}]\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", start + HIDE + textwrap.dedent(code)],
                          capture_output=True, text=True, cwd=folder, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_missing_after_an_import_that_failed_halfway(tmp_path):
    out = python(
        """
        hide("pkg_resources", "autoattack")
        try:
            import robustbench
        except ModuleNotFoundError as error:
            print(error.name)
        assert "robustbench" not in sys.modules and "robustbench.model_zoo" in sys.modules
        import torch
        from art_lbgat.robustbench import import_architecture, import_robustbench
        package = import_robustbench()
        import robustbench
        assert robustbench is package is import_robustbench()
        assert robustbench.benchmark is robustbench.eval.benchmark
        assert robustbench.model_zoo.model_dicts is robustbench.utils.all_models
        assert robustbench.data.PREPROCESSINGS and not left()
        print(import_architecture("wide_resnet").WideResNet.__module__)
        """,
        tmp_path,
    )
    assert out.split() == ["pkg_resources", "robustbench.model_zoo.architectures.wide_resnet"]


def test_what_can_be_imported_is_used_as_it_is(tmp_path):
    files = {**REAL, "pkg_resources.py": "def resource_filename(*a): return 'real'\n"}
    out = python(
        """
        from art_lbgat.robustbench import import_robustbench
        package = import_robustbench()
        import autoattack, autoattack.state, pkg_resources
        assert package.eval.AutoAttack is autoattack.AutoAttack and autoattack.AutoAttack.real
        assert package.eval.EvaluationState is autoattack.state.EvaluationState
        assert package.loaders.pkg_resources is pkg_resources
        print(pkg_resources.resource_filename())
        """,
        tmp_path,
        files,
    )
    assert out.split() == ["real"]


@pytest.mark.parametrize("files", [{"autoattack.py": "mine = True\n"}, {"autoattack/__init__.py": REAL["autoattack/__init__.py"] + "mine = True\n"}], ids=["other module", "without state"])  # fmt: skip
def test_an_autoattack_of_the_user_is_neither_used_nor_lost(files, tmp_path):
    """Beside a ``pkg_resources`` that fails as the old ones do on Python 3.12, which counts as missing."""
    out = python(
        """
        import autoattack as before
        from art_lbgat import robustbench_import as compat
        from art_lbgat.robustbench import import_robustbench
        package = import_robustbench()
        import autoattack
        assert autoattack is before and autoattack.mine and "autoattack.state" not in sys.modules
        assert package.eval.AutoAttack is compat.AutoAttack and package.loaders and "pkg_resources" not in sys.modules
        print(autoattack.mine)
        """,
        tmp_path,
        {**files, "pkg_resources.py": "import pkgutil; pkgutil.ImpImporterGone"},
    )
    assert out.split() == ["True"]


def test_failed_imports_leave_nothing_and_can_be_mended(tmp_path):
    out = python(
        """
        import random
        import numpy as np
        import torch
        from art_lbgat.robustbench import import_robustbench

        def seed():
            torch.manual_seed(1), np.random.seed(1), random.seed(1)

        def drawn():
            return torch.rand(2).tolist(), np.random.random(), random.random()

        hide("pkg_resources", "autoattack", "pyautoattack")
        try:
            import_robustbench()
        except ImportError as error:
            print(error)
        assert not left() and not [n for n in sys.modules if n.startswith("robustbench")]
        sys.meta_path.pop(0)

        hide("gdown")
        try:
            import_robustbench()
        except ModuleNotFoundError as error:
            print(error.name)
        assert not left() and "robustbench" not in sys.modules
        sys.meta_path.pop(0)

        seed()
        expected = drawn()
        seed()
        with torch.device("meta"):
            package = import_robustbench()
            assert torch.zeros(1).is_meta
        assert package.benchmark and package.data and not left()
        assert drawn() == expected
        modules = [m for n, m in sys.modules.items() if n.startswith(("robustbench", "timm"))]
        assert not any(v.is_meta for m in modules for v in vars(m).values() if isinstance(v, torch.Tensor))
        """,
        tmp_path,
    )
    error, name = out.splitlines()
    assert error.startswith(
        "robustbench needs AutoAttack: expected the package 'pyautoattack' or 'autoattack', neither"
    )
    assert "pip install pyautoattack" in error
    assert name == "gdown"


def test_threads_get_one_package():
    with ThreadPoolExecutor(max_workers=4) as threads:
        found = list(threads.map(lambda _: import_robustbench(), range(4)))
    assert found == [sys.modules["robustbench"]] * 4
    with pytest.raises(ModuleNotFoundError, match="no_such_architecture"):
        import_architecture("no_such_architecture")


@pytest.fixture
def images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)).eval()
    x = torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def test_attack_takes_the_arguments_robustbench_passes(images, tmp_path):
    model, x, y = images
    log, state_path = tmp_path / "log.txt", tmp_path / "state.json"
    options = {"norm": "Linf", "eps": 0.01, "seed": 0, "device": torch.device("cpu")}
    attack = compat.AutoAttack(model, attacks_to_run=["apgd-ce"], version="custom", log_path=log, **options)
    last = x.to(memory_format=torch.channels_last)
    x_adv, y_adv = attack.run_standard_evaluation(last, y, bs=4, state_path=str(state_path), return_labels=True)
    published = pyautoattack.AutoAttack(model, attacks=["apgd-ce"], version="custom", **options)
    with ThreadPoolExecutor(max_workers=1) as thread:  # it ends with sys.settrace(None), which would blind coverage
        expected = thread.submit(published.run_standard_evaluation, x, y, batch_size=4).result()
    assert torch.equal(x_adv, expected[0])
    assert torch.equal(y_adv, expected[1])
    assert "robust accuracy" in log.read_text()
    assert attack.attacks_to_run == ["apgd-ce"]
    assert copy.copy(attack).seed == 0
    assert 0 < (y_adv == y).double().mean().item() < 1


def test_the_log_is_appended_to_and_its_logger_restored(images, tmp_path, monkeypatch):
    model, x, y = images
    attack = compat.AutoAttack(model, device="cpu", log_path=tmp_path / "log.txt")
    calls, logger = [], compat.logging.getLogger("auto-attack")
    monkeypatch.setattr(logger, "level", compat.logging.ERROR)
    handlers = list(logger.handlers)

    def run(_, x, y, **options):
        calls.append(options)
        logger.debug("at %s", len(calls))
        if len(calls) == 2:
            raise RuntimeError
        return x + 1, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", run)
    assert torch.equal(attack.run_standard_evaluation(x, y, bs=5), x + 1)
    with pytest.raises(RuntimeError):
        attack.run_standard_evaluation(x, y)
    assert calls == [{"batch_size": size, "state_path": None} for size in (5, 250)]
    assert (tmp_path / "log.txt").read_text().split("\n") == ["at 1", "at 2", ""]
    assert (logger.level, logger.handlers) == (compat.logging.ERROR, handlers)


def test_what_follows_the_lines_of_a_program_is_left_there(images):
    model, x, y = images
    attack = compat.AutoAttack(model, eps=0.01, attacks_to_run=["apgd-ce"], version="custom", seed=0, device="cpu")
    trace, found = lambda *_: None, sys.gettrace()
    sys.settrace(trace)
    try:
        attack.run_standard_evaluation(x, y)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(found)


def test_a_function_finds_something_else_under_a_name_and_its_module_nothing():
    utils = import_robustbench().utils
    changed = compat.with_globals(utils.clean_accuracy, math=SimpleNamespace(ceil=lambda _: 1))
    x, y = torch.eye(2), torch.tensor([0, 1])
    assert changed(nn.Identity(), x, y, batch_size=1) == 0.5
    assert utils.clean_accuracy(nn.Identity(), x, y) == 1
    for function in (subprocess.run, len):
        message = r"has the names \['no_such_name'\], got .*; this version of robustbench is not"
        with pytest.raises(RuntimeError, match=message):
            compat.with_globals(function, no_such_name=1)
