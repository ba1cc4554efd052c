"""art-lbgat: boundary guided adversarial training for the Adversarial Robustness Toolbox."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from art_lbgat.engine.options import RunOptions
    from art_lbgat.engine.schedule import Cosine, OneCycle, StepSchedule
    from art_lbgat.runs import load
    from art_lbgat.trainers import (
        ADRTrainer,
        ALPTrainer,
        BGATTrainer,
        FastATTrainer,
        HATTrainer,
        LBGATTrainer,
        MadryTrainer,
        MARTTrainer,
        NaturalTrainer,
        NFGSMTrainer,
        TRADESTrainer,
    )

__version__ = "0.1.0"

__all__ = [
    "ADRTrainer",
    "ALPTrainer",
    "BGATTrainer",
    "Cosine",
    "FastATTrainer",
    "HATTrainer",
    "LBGATTrainer",
    "MARTTrainer",
    "MadryTrainer",
    "NFGSMTrainer",
    "NaturalTrainer",
    "OneCycle",
    "RunOptions",
    "StepSchedule",
    "TRADESTrainer",
    "__version__",
    "load",
]

_OTHERS = {
    **dict.fromkeys(("Cosine", "OneCycle", "StepSchedule"), "art_lbgat.engine.schedule"),
    "RunOptions": "art_lbgat.engine.options",
    "load": "art_lbgat.runs",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: torch and ART take seconds that ``--help`` need not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_OTHERS.get(name, "art_lbgat.trainers")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
