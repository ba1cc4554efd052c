"""The paper's evaluation, a robustness curve and the sanity checks, on two small nets, about half a minute.

Usage: python examples/evaluate.py [epochs] [samples]
"""

import sys

from art_lbgat.evaluation import PAPER_SUITE, evaluate, masking_report, robustness_curve, sanity_checks
from art_lbgat.recipes import RECIPES

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
N = int(sys.argv[2]) if len(sys.argv) > 2 else 200
EPS = 0.2  # of images in [0, 1]; on CIFAR it is 0.031, with steps of 0.003

trained = {}
for title, name in {"LBGAT": "digits-lbgat", "PGD-AT": "digits-madry", "natural": "digits-natural"}.items():
    experiment = RECIPES[name].scaled(EPOCHS).build(seed=0, verbose=False)
    experiment.fit()
    trained[title] = experiment.classifier
x, y = (part[:N] for part in experiment.data.test)
source = trained.pop("natural")

# Any ART attack can stand in this list too; one that takes minutes here is left out.
attacks = [name for name in PAPER_SUITE if name not in ("pgd-1000", "cw-1000")]
sources = {"natural": source, "robust": trained["PGD-AT"]}
table = evaluate(trained, x, y, eps=EPS, attacks=attacks, sources=sources)
print(table.drop(columns=["norm", "eps", "n"]).round(3).to_string(index=False))

curve = robustness_curve(trained, x, y, [0, 0.1, 0.2, 0.3, 0.5, 1])
print(curve.pivot_table(index="eps", columns="model", values="accuracy").round(3).to_string())

checks = sanity_checks(trained["LBGAT"], x[:100], y[:100], eps=EPS, source=source)
print(checks[["check", "passed", "observed", "expected"]].to_string(index=False))
print(masking_report(checks))
