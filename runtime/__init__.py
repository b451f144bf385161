"""The runtime: features in, detections out; no torch, no onnx.

    from refineloc.runtime import Detector

    detector = Detector("model.onnx")
    detections = detector.detect(features, fps=25.0)

The way of the data: features -> model -> segments -> detections. Names load on first use, so that
reading detections does not start ONNX Runtime and embedding does not load HDF5.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from refineloc.runtime import errors

if TYPE_CHECKING:
    from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
    from refineloc.runtime.detections import Detection, Detections, read_detections, write_detections
    from refineloc.runtime.detector import Detector
    from refineloc.runtime.errors import (
        AnnotationError,
        ConfigError,
        DetectionError,
        EngineError,
        FeatureError,
        InputError,
        InputWarning,
        MissingExtraError,
        ModelError,
        OutputError,
        RefineLocError,
        StoreError,
        VideoError,
    )
    from refineloc.runtime.features.opening import open_features
    from refineloc.runtime.features.store import FeatureStore
    from refineloc.runtime.model.metadata import ModelMetadata
    from refineloc.runtime.model.session import EngineWarning
    from refineloc.runtime.segments.grid import SnippetGrid
    from refineloc.runtime.segments.rules import ManyThresholds, OneThreshold
    from refineloc.runtime.segments.values import Scores, Segments
    from refineloc.runtime.streaming import StreamingDetector

_HOMES = {
    "annotations": ("Annotations", "VideoAnnotation", "read_annotations"),
    "detections": ("Detection", "Detections", "read_detections", "write_detections"),
    "detector": ("Detector",),
    "errors": tuple(errors.__all__),
    "features.opening": ("open_features",),
    "features.store": ("FeatureStore",),
    "segments.grid": ("SnippetGrid",),
    "model.metadata": ("ModelMetadata",),
    "segments.rules": ("Boundaries", "ManyThresholds", "OneThreshold"),
    "segments.values": ("Points", "Scores", "Segments"),
    "model.session": ("EngineWarning",),
    "streaming": ("StreamingDetector",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AnnotationError",
    "Annotations",
    "Boundaries",
    "ConfigError",
    "Detection",
    "DetectionError",
    "Detections",
    "Detector",
    "EngineError",
    "EngineWarning",
    "FeatureError",
    "FeatureStore",
    "InputError",
    "InputWarning",
    "ManyThresholds",
    "MissingExtraError",
    "ModelError",
    "ModelMetadata",
    "OneThreshold",
    "OutputError",
    "Points",
    "RefineLocError",
    "Scores",
    "Segments",
    "SnippetGrid",
    "StoreError",
    "StreamingDetector",
    "VideoAnnotation",
    "VideoError",
    "open_features",
    "read_annotations",
    "read_detections",
    "write_detections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
