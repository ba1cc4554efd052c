"""One self-contained HTML page about models: what was found, how, and whether it can be believed.

Two complete uses::

    table = evaluate({"ours": classifier, "PGD-AT": other}, x, y, eps=0.2)
    write_report("report.html", ReportContent("Digits", results=table, ours=["ours"]))

    write_report("report.html", evaluate_for_report(classifier, x, y, eps=0.2, baselines={"PGD-AT": other}))
"""

from art_lbgat.report.content import Pictures, ReportContent, as_results, evaluate_for_report
from art_lbgat.report.page import render_report, write_report

__all__ = ["Pictures", "ReportContent", "as_results", "evaluate_for_report", "render_report", "write_report"]
