"""RobustBench for ART classifiers: its models, its standard numbers, its leaderboard.

Two complete uses::

    result = benchmark(classifier, "cifar10", "Linf", state_path="run.sqlite")       # kill it: it goes on
    print(result, compare(result))

    guide = load_classifier("Rice2020Overfitting", "cifar10", "Linf")                # an ART classifier

Inventory: :func:`benchmark` and its :class:`BenchmarkResult`; :func:`load_classifier` and :func:`list_models` (the
zoo); :func:`leaderboard` and :func:`compare`, which gives a :class:`Comparison`; :func:`check_submission` and
:func:`export_submission`, with a :class:`Paper`; :func:`import_robustbench`, the published package where it cannot be
imported by itself.
"""

from art_lbgat.robustbench.benchmark import benchmark
from art_lbgat.robustbench.leaderboard import Comparison, compare, leaderboard
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.submission import Paper, Submission, check_submission, export_submission
from art_lbgat.robustbench.zoo import list_models, load_classifier
from art_lbgat.robustbench_import import import_architecture, import_robustbench

__all__ = [
    "BenchmarkResult",
    "Comparison",
    "Paper",
    "Submission",
    "benchmark",
    "check_submission",
    "compare",
    "export_submission",
    "import_architecture",
    "import_robustbench",
    "leaderboard",
    "list_models",
    "load_classifier",
]
