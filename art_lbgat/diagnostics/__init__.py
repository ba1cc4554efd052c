"""Diagnostics: what the guide gave the robust model.

Every function takes ART classifiers (one, or several by name) and arrays, and gives a DataFrame; every plot takes such
a table and an ``Axes``::

    table = agreement(guide, {"LBGAT": robust, "PGD-AT": baseline}, x, y, x_adv)
    plot_slices(decision_slices({"guide": guide, "LBGAT": robust, "PGD-AT": baseline}, x[:3]))

Inventory: :func:`agreement`; :func:`margins`; :func:`decision_slices`; :func:`boundary_distance`, :func:`boundary_gap`,
:func:`boundary_shift` along :func:`directions`; :func:`transferred_discrepancy`; :func:`calibration` and
:func:`reliability`; a ``plot_`` function for each. Classifiers are looked at in eval mode, as ``predict`` sees them
but for postprocessing defences, which are left out: all of this is about logits. Modes, ``requires_grad`` and the
global random generators are left as found.
"""

from art_lbgat.diagnostics.agreement import agreement
from art_lbgat.diagnostics.boundary import boundary_distance, boundary_gap, boundary_shift
from art_lbgat.diagnostics.calibration import calibration, reliability
from art_lbgat.diagnostics.discrepancy import transferred_discrepancy
from art_lbgat.diagnostics.features import penultimate_features
from art_lbgat.diagnostics.margins import margins
from art_lbgat.diagnostics.plots import (
    plot_agreement,
    plot_boundary_distance,
    plot_boundary_shift,
    plot_calibration,
    plot_discrepancy,
    plot_margins,
)
from art_lbgat.diagnostics.rays import directions
from art_lbgat.diagnostics.slice_plots import plot_slice, plot_slices
from art_lbgat.diagnostics.slices import decision_slices

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
