"""The table of every public function: a call that is right, and what would be wrong for each argument."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

from qa.faults import calls_data, calls_judging, calls_studies, calls_training
from qa.faults.call import Call

CALLS: list[Call] = [
    call for each in (calls_training, calls_data, calls_judging, calls_studies) for call in each.calls()
]

# Arguments that art_lbgat.engine does not check yet, with what happens; they are not tried.
AWAITING: dict[str, str] = {}

# Public names that take nothing that could be wrong, with the reason.
EXCEPTIONS: dict[str, str] = {
    "art_lbgat.__version__": "a text",
    "art_lbgat.losses.Term": "a record, checked by total",
    "art_lbgat.losses.on_probabilities": "a question about any loss",
    "art_lbgat.losses.weighted_mse": "a part of IKL, which checks what it is given",
    "art_lbgat.attacks.ATTACK_LOSSES": "a dictionary",
    "art_lbgat.attacks.AttackLoss": "a record",
    "art_lbgat.attacks.TensorAttack": "a base, which checks what its subclasses are given",
    "art_lbgat.evaluation.PAPER_SUITE": "a tuple",
    "art_lbgat.evaluation.Accuracy": "a record that is returned",
    "art_lbgat.evaluation.AutoAttackResult": "a record that is returned",
    "art_lbgat.evaluation.Difference": "a record that is returned",
    "art_lbgat.robustbench.Comparison": "a record that is returned",
    "art_lbgat.robustbench.Submission": "a record that is returned",
    "art_lbgat.robustbench.import_robustbench": "takes no argument",
    "art_lbgat.data.Augmentation": "a protocol",
    "art_lbgat.data.LabelAugmentation": "a protocol",
    "art_lbgat.data.Stream": "a protocol",
    "art_lbgat.data.Batch": "a record that is returned",
    "art_lbgat.data.DataSet": "a record that is returned",
    "art_lbgat.trainers.METHODS": "a dictionary",
    "art_lbgat.recipes.ABLATIONS": "a dictionary",
    "art_lbgat.recipes.PUBLISHED": "a tuple",
    "art_lbgat.recipes.RECIPES": "a dictionary",
    "art_lbgat.recipes.SMALL": "a tuple",
    "art_lbgat.recipes.Experiment": "a record that is returned",
    "art_lbgat.models.list_models": "takes no argument",
    "art_lbgat.models.GlobalAverage": "a layer of create_model",
    "art_lbgat.weights.copied_tensors": "what save_weights writes",
}

_PACKAGES = ("", ".attacks", ".evaluation", ".robustbench", ".data", ".recipes", ".study", ".trainers")
_MODULES = (".losses", ".models", ".weights")  # without an __all__


def public_names() -> dict[str, str]:
    """Every public name, and the name that it has in the table."""
    found = {}
    for package in _PACKAGES:
        module = importlib.import_module(f"art_lbgat{package}")
        found |= {f"{module.__name__}.{name}": name for name in module.__all__}
    for name in _MODULES:
        module = importlib.import_module(f"art_lbgat{name}")
        found |= {f"{module.__name__}.{each}": each for each in _own(module)}
    return found


def _own(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]
