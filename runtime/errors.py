"""Every error that refineloc raises on purpose.

    RefineLocError
    ├── InputError (ValueError)      something the user gave is wrong; the message is one line
    │   ├── FeatureError             a feature file, or one video in it
    │   ├── VideoError               a film
    │   ├── AnnotationError          a label or annotation file
    │   ├── DetectionError           a detections file
    │   ├── ModelError               an ONNX file, a checkpoint or a run
    │   └── ConfigError              a setting, preset or option
    ├── OutputError (OSError)        an output cannot be written; nothing half-written remains
    ├── StoreError (OSError)         a store of objects does not answer, or refuses
    ├── EngineError (RuntimeError)   ONNX Runtime, or the provider asked for, cannot run
    └── MissingExtraError (ImportError)   an optional dependency is absent; the message has the install line

Messages name, in this order: the file, the video, what is wrong (expected, got) and what to do. They speak of
parameters, never of command-line options: the library does not know which program, if any, called it. An error that a
parameter would cure carries its name, and each program appends its own option for it. The command-line programs print
errors as one line and exit with code 2 (`refineloc.runtime.cli.common.run_app`).

`InputWarning` (UserWarning) is what going on is right after; the programs print it as one line.
"""

__all__ = [
    "AnnotationError",
    "ConfigError",
    "DetectionError",
    "EngineError",
    "FeatureError",
    "InputError",
    "InputWarning",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "RefineLocError",
    "StoreError",
    "VideoError",
]


class RefineLocError(Exception):
    """Base of all errors that refineloc raises on purpose.

    Args:
        message: what is wrong, as one line; line ends, such as of an array in it, become spaces.
        parameter: the name of the parameter that would cure it, where there is one.
    """

    def __init__(self, message: object = "", *, parameter: str = "") -> None:
        lines = str(message).splitlines()
        super().__init__(" ".join(line.strip() for line in lines) if len(lines) > 1 else message)
        # An instance attribute, which pickle keeps: errors cross from one process to another.
        self.parameter = parameter


class InputError(RefineLocError, ValueError):
    """Something the user gave is wrong."""


class InputWarning(UserWarning):
    """Something the user gave was taken in a way that may not be meant."""


class FeatureError(InputError):
    """A feature file, or one video in it, cannot be used."""


class VideoError(InputError):
    """A film cannot be decoded."""


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


class StoreError(RefineLocError, OSError):
    """A store of objects does not answer, or refuses what is asked; no fault of what is in it.

    Args:
        message: see `RefineLocError`.
        parameter: see `RefineLocError`.
        why: the message without the address.
    """

    def __init__(self, message: object = "", *, parameter: str = "", why: str = "") -> None:
        super().__init__(message, parameter=parameter)
        self.why = why or str(self)


class EngineError(RefineLocError, RuntimeError):
    """ONNX Runtime, or the execution provider that was asked for, cannot run here."""


class MissingExtraError(RefineLocError, ImportError):
    """An optional dependency is not installed; the message gives the install line."""


def first_line(error: BaseException) -> str:
    """What a library's error says, as one line for a message of ours."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "'\""  # a KeyError's
    return line[1:-1] if quoted else line


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things for a message: "1 video", "2,000 classes", "2 videos are".

    Args:
        count: how many.
        one: what one is called.
        many: what several are called; `one` with an s or es if left out.
    """
    return f"{count:,} {one if count == 1 else many or one + ('es' if one.endswith('s') else 's')}"


def counted_of(count: int, total: int, noun: str, one: str, many: str) -> str:
    """How many of a number of things do what: "1 of 12 videos has", "2 of 12 videos have"."""
    return f"{count:,} of {counted(total, noun)} {one if count == 1 else many}"
