"""What the guide gave: a natural model, PGD-AT and LBGAT on the digits, looked at with every diagnostic; seconds.

Usage: python examples/boundary_tour.py [epochs] [output.png]
"""

import sys

import matplotlib as mpl
from art.attacks.evasion import ProjectedGradientDescent

from art_lbgat.diagnostics import (
    agreement,
    boundary_distance,
    boundary_gap,
    boundary_shift,
    calibration,
    decision_slices,
    directions,
    plot_slices,
    transferred_discrepancy,
)
from art_lbgat.recipes import RECIPES

mpl.use("Agg")
EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 25
OUTPUT = sys.argv[2] if len(sys.argv) > 2 else "boundary_tour.png"
EPS = 0.2


def trained(name):
    experiment = RECIPES[name].scaled(EPOCHS).build(seed=0, verbose=False)
    experiment.fit()
    return experiment


lbgat = trained("digits-lbgat")
natural, baseline = (trained(name).classifier for name in ("digits-natural", "digits-madry"))
guide, robust = lbgat.guides[0], lbgat.classifier
models = {"guide": guide, "LBGAT": robust, "PGD-AT": baseline, "natural": natural}
x, y = lbgat.data.test


def attacked(classifier):
    return ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 10, max_iter=20, verbose=False).generate(x, y)


x_adv = {name: attacked(classifier) for name, classifier in models.items()}


def show(title, table):
    print(f"\n{title}\n{table.round(3).to_string(index=False)}")


pupils = {name: models[name] for name in ("LBGAT", "PGD-AT")}
seen = agreement(guide, pupils, x, y, {name: x_adv[name] for name in pupils})
show("Agreement with LBGAT's guide", seen.drop(columns=["low", "high", "both_wrong"]))
show("Calibration", calibration(models, x, y, x_adv))

tasks = {"digit": (x, y), "even": (x, y % 2), "above four": (x, (y > 4).astype(int))}
pairs = transferred_discrepancy({name: models[name] for name in ("guide", "LBGAT", "PGD-AT")}, tasks)
show("Transferred discrepancy of the penultimate features", pairs)

ways = directions(x, y, x_adv["LBGAT"])
distances = boundary_distance(models, x, ways, max_distance=1.0)
show("Boundaries apart along the same ray (Linf)", boundary_gap(distances))
shift = boundary_shift(guide, natural, x, ways, max_distance=1.0)
quartiles = shift.groupby("direction")["shift"].quantile([0.25, 0.5, 0.75]).unstack().reset_index()
show("How far the guide's boundary moved, quartiles (Linf)", quartiles)

anchors = [int((y == digit).argmax()) for digit in (3, 8, 5)]
regions = decision_slices(models, x[anchors], names=["a 3", "an 8", "a 5"], resolution=200)
plot_slices(regions)[0].figure.savefig(OUTPUT, dpi=120)
print(f"\n{OUTPUT}: the decision regions on the plane through three test images")
