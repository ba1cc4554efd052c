"""art-lbgat: boundary guided adversarial training for the Adversarial Robustness Toolbox."""

from art_lbgat.engine.options import RunOptions
from art_lbgat.trainers import ALPTrainer, BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer

__version__ = "0.1.0"

__all__ = [
    "ALPTrainer",
    "BGATTrainer",
    "LBGATTrainer",
    "MadryTrainer",
    "NaturalTrainer",
    "RunOptions",
    "TRADESTrainer",
    "__version__",
]
