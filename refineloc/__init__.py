"""RefineLoc: weakly-supervised temporal action localization (WACV 2021).

The parts are imported by name: `refineloc.runtime` (detection and evaluation, no torch), `refineloc.training`
and `refineloc.export` (both need the `train` extra).
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
