"""Diagnostics: what the guide gave the robust model.

Every function takes ART classifiers (one, or several by name) and arrays, and gives a DataFrame; every plot takes such
a table and an ``Axes``::

    table = agreement(guide, {"LBGAT": robust, "PGD-AT": baseline}, x, y, x_adv)
    plot_slices(decision_slices({"guide": guide, "LBGAT": robust, "PGD-AT": baseline}, x[:3]))

Classifiers are looked at in eval mode, as ``predict`` sees them but without postprocessing defences: all of this is
about logits. Modes, ``requires_grad`` and the global random generators are unchanged.
"""

from art_lbgat.diagnostics.agreement import agreement, calibration, margins, reliability
from art_lbgat.diagnostics.boundary import boundary_distance, boundary_gap, boundary_shift, decision_slices, directions
from art_lbgat.diagnostics.discrepancy import penultimate_features, transferred_discrepancy
from art_lbgat.diagnostics.plots import (
    plot_agreement,
    plot_boundary_distance,
    plot_boundary_shift,
    plot_calibration,
    plot_discrepancy,
    plot_margins,
    plot_slice,
    plot_slices,
)

__all__ = [
    "agreement",
    "boundary_distance",
    "boundary_gap",
    "boundary_shift",
    "calibration",
    "decision_slices",
    "directions",
    "margins",
    "penultimate_features",
    "plot_agreement",
    "plot_boundary_distance",
    "plot_boundary_shift",
    "plot_calibration",
    "plot_discrepancy",
    "plot_margins",
    "plot_slice",
    "plot_slices",
    "reliability",
    "transferred_discrepancy",
]
