"""Print the lowest version of each package that refineloc builds and runs with, as constraints of pip.

pip has no option for it. What pyproject.toml declares for development alone is not among them.
"""

import re
import tomllib
from pathlib import Path

declared = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
project = declared["project"]
extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
for requirement in sorted({*declared["build-system"]["requires"], *project["dependencies"], *extras}):
    name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)(?:,<[\d.]+)?", requirement).groups()
    print(f"{name}=={lowest}")
