"""Trust in components: what a recipe may name without the user's consent.

Importing and calling run code. A dotted path is trusted by where its object is defined and by what it is, never by the path that
leads to it: `im2im_zoo.training.run.subprocess.run` is a function of `subprocess`.
"""

import inspect
from collections.abc import Callable
from typing import Any

TRUSTED = frozenset({"im2im_zoo", "monai", "pytorch_lightning", "torch", "torchmetrics"})

# Base classes of what a recipe builds. A class of a trusted package that inherits from none of them needs consent.
_KINDS = frozenset(
    {
        "torch.nn.modules.module.Module",
        "torch.optim.optimizer.Optimizer",
        "torch.optim.lr_scheduler.LRScheduler",
        "monai.transforms.transform.Transform",
        "pytorch_lightning.callbacks.callback.Callback",
        "lightning_fabric.loggers.logger.Logger",
        "lightning_fabric.plugins.environments.cluster_environment.ClusterEnvironment",
        "lightning_fabric.plugins.precision.precision.Precision",
        "pytorch_lightning.strategies.strategy.Strategy",
        "pytorch_lightning.profilers.profiler.Profiler",
    }
)
# Modules whose classes read or write files, or run code that they are given as text.
_EXCLUDED = ("monai.transforms.io", "monai.bundle", "monai.apps", "torch.fx", "torch.jit", "torch.package")
_FUNCTIONS = frozenset(
    {
        "im2im_zoo.frameworks.adversarial.linear_decay",
        "im2im_zoo.instances.methods.components.group",
        "im2im_zoo.instances.methods.embedseg.group",
        "im2im_zoo.instances.methods.watershed.group",
        "im2im_zoo.networks.ddim.timed_unet_ddim",
    }
)


def reason_to_refuse(found: Callable[..., Any]) -> str | None:
    """Return why an object of a trusted path needs consent, as the end of a sentence; None if it does not.

    Args:
        found: the object that the dotted path leads to.

    Example:
        >>> import subprocess
        >>> reason_to_refuse(subprocess.run)
        'is defined in subprocess, which is not trusted'
    """
    module = str(getattr(found, "__module__", None) or "an unknown module")
    name = f"{module}.{getattr(found, '__qualname__', '')}"
    if module.split(".")[0] not in TRUSTED:
        return f"is defined in {module.split('.')[0]}, which is not trusted"
    if not inspect.isclass(found):
        return (
            None
            if name in _FUNCTIONS
            else f"is the function {name}, and only classes are used without consent"
        )
    if any(module == excluded or module.startswith(f"{excluded}.") for excluded in _EXCLUDED):
        return f"is the class {name}, which may read or write files"
    if not any(f"{base.__module__}.{base.__qualname__}" in _KINDS for base in found.__mro__):
        return f"is the class {name}, which is no network, loss, metric, optimizer, schedule, transform, callback or logger"
    return None
