"""One HTML file that shows what a detector does: scores, diagnosis, every video's time line; it opens offline.

    detections, one set or several (iterations),
    matched with a ground truth or alone                  data     plain values for the script
    page.html, page.css, page.js, figures as SVG          page     one file
    shared.css, shared.js: what examples/app.py takes, too

What comes from outside (labels, video names, file names) reaches the script as JSON, and the script shows it as text.
The policy of the page lets no other script run.
"""

from refineloc.evaluation.report.data import detections_data, film_addresses, report_data
from refineloc.evaluation.report.page import write_report

__all__ = ["detections_data", "film_addresses", "report_data", "write_report"]
