"""RefineLoc: weakly-supervised temporal action localization (WACV 2021).

The parts are imported by name: `refineloc.runtime` (detection and evaluation, no torch), `refineloc.training`
and `refineloc.export` (both need the `train` extra).
"""

import os

__all__ = ["__version__"]

# ONNX Runtime from 1.29 on sends usage data to Microsoft and writes into the home folder, from its import on, unless
# this is set before. Here, as every part of refineloc passes here. A value of the user's stays ("0" is on).
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.2.0"
