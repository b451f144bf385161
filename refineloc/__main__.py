"""`refineloc PROGRAM ...`, and each program by itself, `refineloc-PROGRAM ...`.

`python -m refineloc PROGRAM ...` where the scripts are not on the PATH. Packages are imported by name, and only those
of the program that runs: it starts as quickly by either name.
"""

# Nothing that takes time to import: before `run`, Python answers Ctrl-C with a traceback.
import gc
import os
import sys

# A program's name after `refineloc-`, the module that has its `main`, and what it does.
PROGRAMS = {
    "extract": ("refineloc.runtime.cli.extract", "films and a backbone -> features"),
    "train": ("refineloc.training.cli", "features and video labels -> a run of trained models"),
    "export": ("refineloc.export.cli.export", "an iteration of a run -> one ONNX file"),
    "tune": (
        "refineloc.export.cli.tune",
        "a model, or a run, and a few annotated videos -> a rule of detection that suits",
    ),
    "detect": ("refineloc.runtime.cli.detect", "features and a model -> detections"),
    "eval": ("refineloc.evaluation.cli.evaluate", "detections and ground truth -> mAP"),
    "report": ("refineloc.evaluation.cli.report", "detections, with or without ground truth -> an HTML page, pictures"),
    "convert": ("refineloc.evaluation.cli.convert", "detections and annotations <-> formats of other tools"),
    "doctor": ("refineloc.runtime.cli.doctor", "what runs here, and how to repair what does not"),
    "synth": ("refineloc.training.sample.cli", "sample data"),
}


def run(name: str) -> None:
    """Run a program. A Ctrl-C while its packages are imported ends in the line that it ends in later."""
    try:
        from importlib import import_module

        # Modules stay to the end. To look through them for garbage takes a tenth of the time of loading them, and then
        # a part of each look later.
        gc.disable()
        program = import_module(PROGRAMS[name][0])
        gc.freeze()
        gc.enable()
        program.main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


# What the scripts call.


def extract() -> None:
    run("extract")


def train() -> None:
    run("train")


def export() -> None:
    run("export")


def tune() -> None:
    run("tune")


def detect() -> None:
    run("detect")


def eval_() -> None:
    run("eval")


def report() -> None:
    run("report")


def convert() -> None:
    run("convert")


def doctor() -> None:
    run("doctor")


def synth() -> None:
    run("synth")


def main() -> None:
    """Run the program that the first argument names. The list of programs is the help, and the end of a wrong call."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROGRAMS:
        sys.argv = [f"refineloc-{name}", *sys.argv[2:]]
        run(name)
    from importlib import import_module

    common = import_module("refineloc.runtime.cli.common")
    if "_REFINELOC_COMPLETE" in os.environ or name in ("--install-completion", "--show-completion"):
        common.run_main(_complete)
    if name == "--version":
        common.run_main(_version)
    common.run_main(_list if name in ("--help", "-h") else _refuse)


def _complete() -> None:
    """Answer a shell that completes a line, with every program as a command of one application."""
    from importlib import import_module

    app = import_module("typer").Typer(name="refineloc", rich_markup_mode=None)
    for name, (module, what) in PROGRAMS.items():
        (declared,) = import_module(module).app.registered_commands
        app.command(name, help=what)(declared.callback)
    app(prog_name="refineloc")


def _version() -> None:
    from refineloc import __version__

    print(f"refineloc {__version__}")


def _list() -> None:
    print("Usage: refineloc PROGRAM ...   (refineloc PROGRAM --help says more)\n\nPrograms:")
    for name, (_, what) in PROGRAMS.items():
        print(f"  {name:<9}{what}")
    print("\nOptions:\n  -h, --help            This list.\n  --version             Show the version.")
    print("  --install-completion  Complete the command lines of refineloc in this shell with Tab.")
    print("  --show-completion     Print what does so, to be copied.")


def _refuse() -> None:
    from importlib import import_module

    given = f"no program {sys.argv[1]!r}" if len(sys.argv) > 1 else "no program named"
    import_module("refineloc.runtime.cli.common").fail(f"{given}; there are {', '.join(PROGRAMS)}")


if __name__ == "__main__":
    main()
