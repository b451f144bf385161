"""One HTML file that shows what a detector does: scores, diagnosis, every video's time line; it opens offline.

    matched detections, one set or several (iterations)   data     plain values for the script
    page.html, page.css, page.js, figures as SVG          page     one file

What comes from outside (labels, video names, file names) reaches the script as JSON, and the script shows it as text.
The policy of the page lets no other script run.
"""

from refineloc.evaluation.report.data import report_data
from refineloc.evaluation.report.page import write_report

__all__ = ["report_data", "write_report"]
