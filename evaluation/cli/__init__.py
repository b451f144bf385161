"""The programs that look at detections: refineloc-eval, refineloc-convert."""
