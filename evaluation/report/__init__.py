"""One HTML file that shows what a detector does: scores, diagnosis, every video's time line; it opens offline.

    figures of one run or several (iterations)   data     numbers in, plain values out
    page.html, page.css, page.js                 page     plain values in, one file out

Everything that comes from outside (labels, video names, file names) reaches the page as JSON and is shown as text: the
page never builds markup from strings, and its policy lets no script run but its own.
"""

from refineloc.evaluation.report.data import report_data
from refineloc.evaluation.report.page import write_report

__all__ = ["report_data", "write_report"]
