"""The environment that a state dict's network needs, for conda. It installs nothing."""

from collections.abc import Sequence
from typing import Any

import yaml


def conda_environment(names: Sequence[str]) -> str:
    """A conda environment for a state dict whose network needs libraries, with the versions of here."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    import torch

    pip: list[str] = []
    for library in set(names) - {"torch"}:
        try:
            pip.append(f"{library}=={version(library)}")
        except PackageNotFoundError:  # its distribution has another name; looking through all of them is slow
            found = packages_distributions().get(library, [])
            pip += [f"{distribution}=={version(distribution)}" for distribution in found]
    content: dict[str, Any] = {
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": ["python>=3.11", f"pytorch=={torch.__version__.split('+')[0]}", "pip"],
    }
    if pip:
        content["dependencies"].append({"pip": sorted(set(pip))})
    return yaml.safe_dump(content, sort_keys=False)
