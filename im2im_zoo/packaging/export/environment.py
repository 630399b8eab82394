"""Conda environment of a state dict's network."""

from collections.abc import Sequence

import yaml


def conda_environment(names: Sequence[str]) -> str:
    """Return the `environment.yaml` of a network that needs libraries, with the versions installed here.

    Args:
        names: modules that the network's code imports.
    """
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    import torch
    from bioimageio.spec.conda_env import CondaEnv, PipDeps

    pip: list[str] = []
    for library in set(names) - {"torch"}:
        try:
            pip.append(f"{library}=={version(library)}")
        except PackageNotFoundError:  # its distribution has another name; looking through all of them is slow
            found = packages_distributions().get(library, [])
            pip += [f"{distribution}=={version(distribution)}" for distribution in found]
    dependencies = ["python>=3.11", f"pytorch=={torch.__version__.split('+')[0]}", "pip"]
    environment = CondaEnv(
        channels=["conda-forge", "nodefaults"],
        dependencies=[*dependencies, *([PipDeps(pip=sorted(set(pip)))] if pip else [])],
    )
    return yaml.safe_dump(environment.model_dump(exclude_none=True), sort_keys=False)
