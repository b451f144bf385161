"""`python -m refineloc PROGRAM ...`: the programs, where their scripts are not on the PATH."""

import sys
from importlib import import_module

# A program's name after `refineloc-`, the module that has its `main`, and what it does.
PROGRAMS = {
    "train": ("refineloc.training.cli", "features and video labels -> a run of trained models"),
    "export": ("refineloc.export.cli", "an iteration of a run -> one ONNX file"),
    "detect": ("refineloc.runtime.cli.detect", "features and a model -> detections"),
    "eval": ("refineloc.evaluation.cli.evaluate", "detections and ground truth -> mAP"),
    "report": ("refineloc.evaluation.cli.report", "detections, with or without ground truth -> an HTML page, pictures"),
    "convert": ("refineloc.evaluation.cli.convert", "detections and annotations <-> formats of other tools"),
    "doctor": ("refineloc.runtime.cli.doctor", "what runs here, and how to repair what does not"),
    "synth": ("refineloc.training.sample.cli", "sample data"),
}


def main() -> None:
    """Run the program that the first argument names. The list of programs is the help, and the end of a wrong call."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROGRAMS:
        sys.argv = [f"refineloc-{name}", *sys.argv[2:]]
        import_module(PROGRAMS[name][0]).main()
    # By name, as the package imports nothing of its parts.
    import_module("refineloc.runtime.cli.common").run_main(_list if name in ("--help", "-h") else _refuse)


def _list() -> None:
    print("Usage: python -m refineloc PROGRAM ...   (PROGRAM --help says more)\n")
    for name, (_, what) in PROGRAMS.items():
        print(f"  {name:<9}{what}")


def _refuse() -> None:
    given = f"no program {sys.argv[1]!r}" if len(sys.argv) > 1 else "no program named"
    import_module("refineloc.runtime.cli.common").fail(f"{given}; there are {', '.join(PROGRAMS)}")


if __name__ == "__main__":
    main()
