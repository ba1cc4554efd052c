"""One self-contained HTML page about models: what was found, how, and whether it can be believed.

Two complete uses::

    table = evaluate({"ours": classifier, "PGD-AT": other}, x, y, eps=0.2)
    write_report("report.html", ReportContent("Digits", results=table, ours=["ours"]))

    write_report("report.html", evaluate_for_report(classifier, x, y, eps=0.2, baselines={"PGD-AT": other}))

Inventory: :class:`ReportContent`, with :class:`Pictures`; :func:`evaluate_for_report`, which computes all of it;
:func:`write_report` and :func:`render_report`; :func:`as_results`, which reads natural and robust accuracy out of the
tables of evaluations, benchmarks and studies.
"""

from art_lbgat.report.collect import evaluate_for_report
from art_lbgat.report.content import Pictures, ReportContent
from art_lbgat.report.page import render_report, write_report
from art_lbgat.report.results import as_results

__all__ = ["Pictures", "ReportContent", "as_results", "evaluate_for_report", "render_report", "write_report"]
