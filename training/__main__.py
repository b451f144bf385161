"""`python -m refineloc.training`, for torchrun (training/machine/parallel.py)."""

from refineloc.training.cli import main

if __name__ == "__main__":
    main()
