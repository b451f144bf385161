"""Evaluation: detections and ground truth in, scores and their reasons out; NumPy alone, no engine, no torch.

    from refineloc.evaluation import evaluate
    from refineloc.runtime import read_annotations, read_detections

    evaluation = evaluate(read_detections("detections.json"), read_annotations("val.csv"))
    print(evaluation.average_mAP)

The way of the data: detections -> matching -> average precision, bootstrap, recall -> diagnosis, pictures, report.
`formats/` reads and writes what other tools have. The runtime never imports this package: a deployed detector does
not need it.
"""

from refineloc.evaluation.average_precision import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
