"""Torch-native ART attacks: the inner loop stays on tensors, only input gradients are computed.

Two complete uses::

    x_adv = PGDAttack(classifier, eps=8 / 255, eps_step=2 / 255, max_iter=20).generate(x, y)      # numpy, as in ART
    x_adv = TRADESAttack(classifier).perturb(x_tensor)                                            # tensors

Inventory: :class:`PGDAttack` (cross-entropy, or any loss of :data:`ATTACK_LOSSES`) and :class:`TRADESAttack` (KL to the
fixed natural prediction), both in Linf and L2; :class:`NFGSMAttack`, to train with; :class:`TensorAttack`, the base of
an attack of your own; :func:`read_attack`, which runs an ART PGD or FGSM object in the same loop where that is exact.
"""

from art_lbgat.attacks.from_art import read_attack
from art_lbgat.attacks.pgd import ATTACK_LOSSES, Ascent, AttackLoss, NFGSMAttack, PGDAttack, TensorAttack, TRADESAttack

__all__ = [
    "ATTACK_LOSSES",
    "Ascent",
    "AttackLoss",
    "NFGSMAttack",
    "PGDAttack",
    "TRADESAttack",
    "TensorAttack",
    "read_attack",
]
