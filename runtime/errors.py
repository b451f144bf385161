"""Every error that refineloc raises on purpose.

    RefineLocError
    ├── InputError (ValueError)      something the user gave is wrong; the message is one line
    │   ├── FeatureError             a feature file, or one video in it
    │   ├── AnnotationError          a label or annotation file
    │   ├── DetectionError           a detections file
    │   ├── ModelError               an ONNX file, a checkpoint or a run
    │   └── ConfigError              a setting, preset or option
    ├── OutputError (OSError)        an output cannot be written; nothing half-written remains
    ├── EngineError (RuntimeError)   ONNX Runtime, or the provider asked for, cannot run
    └── MissingExtraError (ImportError)   an optional dependency is absent; the message has the install line

Messages name, in this order: the file, the video, what is wrong (expected, got) and what to do.
The command-line programs print them as one line and exit with code 2.
"""

__all__ = [
    "AnnotationError",
    "ConfigError",
    "DetectionError",
    "EngineError",
    "FeatureError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "RefineLocError",
]


class RefineLocError(Exception):
    """Base of all errors that refineloc raises on purpose."""


class InputError(RefineLocError, ValueError):
    """Something the user gave is wrong."""


class FeatureError(InputError):
    """A feature file, or one video in it, cannot be used."""


class AnnotationError(InputError):
    """A label or annotation file cannot be used."""


class DetectionError(InputError):
    """A detections file cannot be used."""


class ModelError(InputError):
    """An ONNX file, a checkpoint or a run cannot be used."""


class ConfigError(InputError):
    """A setting, preset or option is not valid."""


class OutputError(RefineLocError, OSError):
    """An output cannot be written; nothing half-written remains."""


class EngineError(RefineLocError, RuntimeError):
    """ONNX Runtime, or the execution provider that was asked for, cannot run here."""


class MissingExtraError(RefineLocError, ImportError):
    """An optional dependency is not installed; the message gives the install line."""
