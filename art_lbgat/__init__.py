"""art-lbgat: boundary guided adversarial training for the Adversarial Robustness Toolbox."""

from art_lbgat.engine.options import RunOptions
from art_lbgat.engine.schedule import StepSchedule
from art_lbgat.trainers import (
    ALPTrainer,
    BGATTrainer,
    FastATTrainer,
    LBGATTrainer,
    MadryTrainer,
    MARTTrainer,
    NaturalTrainer,
    TRADESTrainer,
)

__version__ = "0.1.0"

__all__ = [
    "ALPTrainer",
    "BGATTrainer",
    "FastATTrainer",
    "LBGATTrainer",
    "MARTTrainer",
    "MadryTrainer",
    "NaturalTrainer",
    "RunOptions",
    "StepSchedule",
    "TRADESTrainer",
    "__version__",
]
