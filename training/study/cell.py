"""One run of a study: `refineloc-train`, that ends when the study that started it is gone.

The study holds the other end of this process's standard input and writes nothing there; the end of it means that the
study was killed. A run may be killed at any moment, so it simply stops, and nobody writes to its folder any more.
"""

import os
import threading

from refineloc.training.cli import main


def _end_with_the_study() -> None:
    # Not sys.stdin, whose lock a waiting reader would hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    main()
