"""Trust in components: what a recipe may name without the user's consent.

Importing and calling run code. A dotted path is trusted by where its object is defined and by what it is, never by the path that
leads to it: `im2im_zoo.networks.fnet.subprocess.run` would be a function of `subprocess`. Whatever is not listed here needs consent.
"""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from im2im_zoo.core.inner_path import leads_out

TRUSTED = frozenset({"im2im_zoo", "monai", "pytorch_lightning", "torch", "torchmetrics"})

# Modules of what recipes build. Only these, their packages and the modules below them are imported.
_MODULES = (
    "im2im_zoo.frameworks",
    "im2im_zoo.instances.methods",
    "im2im_zoo.losses",
    "im2im_zoo.networks",
    "monai.losses",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.networks.nets",
    "monai.optimizers",
    "monai.transforms",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.plugins",
    "pytorch_lightning.profilers",
    "pytorch_lightning.strategies",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
)
# Modules and classes among them that download, read or write files of any place, or call a function that they get as text.
_EXCLUDED = (
    "monai.losses.perceptual",
    "monai.networks.nets.cell_sam_wrapper",
    "monai.networks.nets.milmodel",
    "monai.networks.nets.torchvision_fc",
    "monai.networks.nets.transchex",
    "monai.transforms.io",
    *(
        f"monai.transforms.utility.{module}.{word}{name}{end}"
        for module, end in (("array", ""), ("dictionary", "d"))
        for word in ("", "Rand")
        for name in ("CuCIM", "TorchIO", "TorchVision")
    ),
    "monai.transforms.post.dictionary.SaveClassificationd",
    "pytorch_lightning.callbacks.spike",
    "pytorch_lightning.loggers.comet",
    "pytorch_lightning.loggers.litlogger",
    "pytorch_lightning.loggers.mlflow",
    "pytorch_lightning.loggers.neptune",
    "pytorch_lightning.loggers.wandb",
    "pytorch_lightning.profilers.xla",
    "pytorch_lightning.strategies.deepspeed",
    "pytorch_lightning.strategies.launchers",
    "torchmetrics.audio",
    "torchmetrics.detection",
    "torchmetrics.functional",
    "torchmetrics.image.arniqa",
    "torchmetrics.image.dists",
    "torchmetrics.image.fid",
    "torchmetrics.image.inception",
    "torchmetrics.image.kid",
    "torchmetrics.image.lpip",
    "torchmetrics.image.mifid",
    "torchmetrics.image.perceptual_path_length",
    "torchmetrics.multimodal",
    "torchmetrics.text",
    "torchmetrics.video",
)
# Base classes of what a recipe builds. A class of a trusted package that inherits from none of them needs consent.
_KINDS = frozenset(
    {
        "torch.nn.modules.module.Module",
        "torch.optim.optimizer.Optimizer",
        "torch.optim.lr_scheduler.LRScheduler",
        "monai.transforms.transform.Transform",
        "pytorch_lightning.callbacks.callback.Callback",
        "lightning_fabric.loggers.logger.Logger",
        "lightning_fabric.plugins.precision.precision.Precision",
        "pytorch_lightning.strategies.strategy.Strategy",
        "pytorch_lightning.profilers.profiler.Profiler",
    }
)
_FUNCTIONS = frozenset(
    {
        "im2im_zoo.frameworks.adversarial.linear_decay",
        "im2im_zoo.instances.methods.components.group",
        "im2im_zoo.instances.methods.embedseg.group",
        "im2im_zoo.instances.methods.watershed.group",
        "im2im_zoo.networks.ddim.timed_unet_ddim",
    }
)
# Arguments that make a network download its weights, and arguments that name a file, a folder or an address.
_DOWNLOADS = re.compile(r"pretrained|download|(^|_)load_weights$")
_PLACES = re.compile(
    r"(^|_)(path|dir|file|url|uri|checkpoint|ckpt|folder|weights)$|dirpath|filename|filepath|url$"
)


def reason_not_to_import(path: str) -> str | None:
    """Return why a dotted path of a trusted package needs consent before anything of it is imported; None if it does not.

    Example:
        >>> reason_not_to_import("torch.hub.load")
        'is not in torch.nn or torch.optim, from which recipes take components'
    """
    if _is_below(path, _MODULES):
        return None
    *others, last = [m for m in _MODULES if m.split(".")[0] == path.split(".")[0]]
    return (
        f"is not in {', '.join(others)}{' or ' if others else ''}{last}, from which recipes take components"
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
    try:
        module = str(getattr(found, "__module__", None) or "an unknown module")
        name = f"{module}.{getattr(found, '__qualname__', '')}"
    except ImportError:  # raised by objects that MONAI puts in the place of libraries that are not installed
        return "is of a library that is not installed"
    if module.split(".")[0] not in TRUSTED:
        return f"is defined in {module.split('.')[0]}, which is not trusted"
    if not inspect.isclass(found):
        return (
            None
            if name in _FUNCTIONS
            else f"is the function {name}, and only classes are used without consent"
        )
    if not _is_below(name, _MODULES) or _is_below(name, _EXCLUDED):
        return f"is the class {name}, which may read or write files, download, or run code"
    if not any(f"{base.__module__}.{base.__qualname__}" in _KINDS for base in found.__mro__):
        return f"is the class {name}, which is no network, loss, metric, optimizer, schedule, transform, callback or logger"
    return None


def find_download(
    found: Callable[..., Any], kwargs: Mapping[str, Any], places: Collection[str] = ()
) -> tuple[str, object] | None:
    """Return an argument with which a trusted object would download, or read or write a file of the recipe's choice; else None.

    Args:
        found: the object.
        kwargs: arguments that the recipe gives; the others have their defaults.
        places: names of arguments that may name a file or folder all the same.

    Returns:
        The dotted key of the argument, and its value.
    """
    try:
        parameters = inspect.signature(found).parameters.items()
    except (TypeError, ValueError):
        parameters = {}.items()
    defaults = {n: p.default for n, p in parameters if p.default is not inspect.Parameter.empty}
    for key, value in _walk({**defaults, **kwargs}):
        name = key.rpartition(".")[2]
        place = _PLACES.search(name) and isinstance(value, str) and name not in places
        if value and (place or _DOWNLOADS.search(name)):
            return key, value
    return None


def leaves_run_folder(text: str) -> bool:
    """Return whether a text that Lightning uses as a path, or a part of one, could lead out of the folder that it is put into.

    Example:
        >>> [leaves_run_folder(text) for text in ("logs/{epoch}", "../logs", "~/logs", "s3://bucket")]
        [False, True, True, True]
    """
    return leads_out(text) or text.startswith("~") or "$" in text


def _is_below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _walk(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings and lists with their dotted keys; components nested in them are checked themselves."""
    if isinstance(value, Mapping):
        for name, inner in value.items() if "callable" not in value else ():
            yield from _walk(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(inner, key)
    else:
        yield key, value
