"""Torch-native ART attacks: the inner loop stays on tensors, only input gradients are computed.

Two complete uses::

    x_adv = PGDAttack(classifier, eps=8 / 255, eps_step=2 / 255, max_iter=20).generate(x, y)      # numpy, as in ART
    x_adv = TRADESAttack(classifier).perturb(x_tensor)                                            # tensors

Inventory: :class:`PGDAttack` (cross-entropy), :class:`TRADESAttack` (KL to the fixed natural prediction), both in
Linf and L2; :func:`read_attack`, which runs an ART PGD or FGSM object in the same loop where that is exact.
"""

from art_lbgat.attacks.loop import Ascent
from art_lbgat.attacks.pgd import PGDAttack
from art_lbgat.attacks.reader import read_attack
from art_lbgat.attacks.trades import TRADESAttack

__all__ = ["Ascent", "PGDAttack", "TRADESAttack", "read_attack"]
