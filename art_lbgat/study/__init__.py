"""Studies: recipes x seeds on one data set, each trained and judged alike, resumable, as one table with intervals."""

from art_lbgat.study.options import StudyOptions
from art_lbgat.study.page import study_content
from art_lbgat.study.plan import run_study
from art_lbgat.study.table import summarize

__all__ = ["StudyOptions", "run_study", "study_content", "summarize"]
