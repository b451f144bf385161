"""Plain twin of `refineloc.evaluation.diagnosis`: DETAD's analyses, a detection at a time."""

from collections.abc import Callable, Sequence

import numpy as np

Row = tuple[str, float, float, str, float]  # video, start, end, class, score
Span = tuple[str, float, float, str]  # video, start, end, class
TYPES = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")


def tiou(a: Sequence[object], b: Sequence[object]) -> float:
    """Of two rows (video, start, end, ...), 0 in different videos."""
    if a[0] != b[0]:
        return 0.0
    (s, e), (ts, te) = (float(str(a[1])), float(str(a[2]))), (float(str(b[1])), float(str(b[2])))
    inside = max(min(e, te) - max(s, ts), 0.0)
    return inside / ((te - ts) + (e - s) - inside)


class Twin:
    """The analyses of one set of detections. Truth: in the order of its (video, class) groups, no zero lengths."""

    def __init__(self, rows: list[Row], truth: list[Span], thresholds: Sequence[float]) -> None:
        self.truth, self.thresholds = truth, thresholds
        self.classes = sorted({span[3] for span in truth})
        self.ranked = {
            label: [
                rows[i]
                for i in sorted((i for i in range(len(rows)) if rows[i][3] == label), key=lambda i: (-rows[i][4], -i))
            ]
            for label in self.classes
        }
        self.count = {label: sum(span[3] == label for span in truth) for label in self.classes}
        self.mean_count = len(truth) / len(self.classes)
        self.taken = {
            (label, threshold): self._match(label, threshold) for label in self.classes for threshold in thresholds
        }

    def _match(self, label: str, threshold: float) -> list[int | None]:
        """The annotation that each ranked detection takes."""
        free = {j for j, span in enumerate(self.truth) if span[3] == label}
        found: list[int | None] = []
        for row in self.ranked[label]:
            candidates = [(tiou(row, self.truth[j]), j) for j in free if tiou(row, self.truth[j]) >= threshold]
            best = max(candidates)[1] if candidates else None
            free -= {best}
            found.append(best)
        return found

    def kind(self, row: Row, taken: int | None, threshold: float) -> str:
        """The type of one detection."""
        if taken is not None:
            return "true positive"
        overlaps = [(tiou(row, span), span[3] == row[3]) for span in self.truth if span[0] == row[0]]
        largest, own = max(overlaps, default=(0.0, False))
        if largest >= threshold:
            return "double detection" if own else "wrong label"
        if largest >= 0.1:
            return "localization" if own else "confusion"
        return "background"

    def average_precision(self, true: list[bool | None], positives: int) -> float:
        """AP_N of one class; None: the detection does not count."""
        found = wrong = 0
        points = []
        for hit in true:
            found += hit is True
            wrong += hit is False
            recall = found / positives
            scaled = recall * self.mean_count
            points.append((recall, scaled / (scaled + wrong) if found + wrong else 0.0))
        recalls = sorted({recall for recall, _ in points if recall > 0})
        return sum(max(p for r, p in points if r >= recall) / positives for recall in recalls)

    def average(self, flag: Callable[[str, float, int], bool | None], positives: dict[str, int]) -> float:
        """Mean over thresholds and classes with instances; flag(class, threshold, rank)."""
        values = [
            self.average_precision(
                [flag(label, threshold, rank) for rank in range(len(self.ranked[label]))], positives[label]
            )
            for threshold in self.thresholds
            for label in self.classes
            if positives[label]
        ]
        return float(np.mean(values)) if values else float("nan")

    def false_positives(self) -> tuple[np.ndarray, float, list[float]]:
        """Share [10, 6], average mAP_N of ten groups, gain of the five types."""
        share = np.full((10, 6), np.nan)
        kinds = {
            (label, threshold, rank): self.kind(row, self.taken[label, threshold][rank], threshold)
            for label in self.classes
            for threshold in self.thresholds
            for rank, row in enumerate(self.ranked[label])
            if rank < 10 * self.count[label]
        }
        for group in range(10):
            own = [kind for (label, _, rank), kind in kinds.items() if rank // self.count[label] == group]
            if own:
                share[group] = [own.count(kind) / len(own) for kind in TYPES]

        def average(removed: str) -> float:
            def flag(label: str, threshold: float, rank: int) -> bool | None:
                kind = kinds.get((label, threshold, rank))
                return None if kind in (None, removed) else kind == "true positive"

            return self.average(flag, self.count)

        base = average("")
        return share, base, [average(kind) - base for kind in TYPES[1:]]

    def sensitivity(self, wanted: set[int]) -> float:
        """Average mAP_N on some of the annotations."""

        def flag(label: str, threshold: float, rank: int) -> bool | None:
            every = [self.taken[label, other][rank] for other in self.thresholds]
            if any(j is not None and j not in wanted for j in every):
                return None
            return self.taken[label, threshold][rank] is not None

        positives = {label: sum(self.truth[j][3] == label for j in wanted) for label in self.classes}
        return self.average(flag, positives)

    def false_negative_rate(self, wanted: set[int]) -> float:
        """The share of some of the annotations that nothing finds while precision_N is above 0.05."""
        rates = []
        for threshold in self.thresholds:
            found = set()
            for label in self.classes:
                hits = 0
                for rank, j in enumerate(self.taken[label, threshold]):
                    hits += j is not None
                    scaled = hits / self.count[label] * self.mean_count
                    if j is not None and scaled / (scaled + (rank + 1 - hits)) > 0.05:
                        found.add(j)
            rates.append(len(wanted - found) / len(wanted))
        return float(np.mean(rates)) if wanted else float("nan")
