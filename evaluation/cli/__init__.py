"""The programs that look at detections: refineloc-eval, refineloc-report, refineloc-convert."""
