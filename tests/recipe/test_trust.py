"""Whatever public attribute of a trusted package a recipe names: only what computes is taken without consent."""

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.transforms.transform import Transform
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.recipe.components import resolve_component
from im2im_zoo.recipe.trust import TRUSTED, leaves_run_folder

KINDS = (nn.Module, Optimizer, LRScheduler, Transform, Callback, Logger, Precision, Profiler, Strategy)
FUNCTIONS = {"linear_decay", "group", "timed_unet_ddim"}
ROOMS = (
    "im2im_zoo.frameworks", "im2im_zoo.losses", "im2im_zoo.networks", "im2im_zoo.training", "im2im_zoo.packaging", "im2im_zoo.runtime",
    "monai.losses", "monai.networks", "monai.optimizers", "monai.transforms", "monai.data", "monai.apps", "monai.bundle", "monai.handlers",
    "pytorch_lightning", "torch.nn", "torch.optim", "torch.utils.data", "torch.distributed.optim", "torchmetrics",
)  # fmt: skip
# What a class does that is more than to compute. `\w*` takes all names that end so.
MORE = re.compile(
    r"\bopen\(|torch\.(load|save)\(|hub\.\w*load|\bdownload\w*\(|load_url\(|load_state_dict_from_url\(|urlopen|requests\.|"
    r"\bPopen\(|subprocess\.\w+\(|(?<!def )\beval\([^)]|\bexec\(|pickle\.|os\.(system|remove|unlink|popen|makedirs)|rmtree\(|mkdirs?\(|"
    r"import_module\(|optional_import\([^\"'()]*,|\blocate\(|getattr\(models|(?<!def )from_pretrained\(|np\.(save|load)\w*\("
)
# Modules with such words whose classes were read: what they do, and what keeps a recipe from it.
READ = {
    "monai.networks.nets.densenet": "downloads if `pretrained`",
    "monai.networks.nets.efficientnet": "downloads if `pretrained`",
    "monai.networks.nets.flexible_unet": "looks names up in a function that no class calls with a recipe's text",
    "monai.networks.nets.hovernet": "downloads `pretrained_url`",
    "monai.networks.nets.resnet": "downloads if `pretrained`",
    "monai.networks.nets.senet": "downloads if `pretrained`",
    "monai.networks.nets.swin_unetr": "downloads in a function for tests",
    "monai.networks.blocks.text_embedding": "downloads if `pretrained`",
    "lightning_fabric.loggers.csv_logs": "writes into the run folder: `save_dir` is checked",
    "lightning_fabric.loggers.tensorboard": "writes into the run folder: `save_dir` is checked",
    "pytorch_lightning.callbacks.model_checkpoint": "writes into the run folder: `dirpath` and `filename` are checked",
    "pytorch_lightning.callbacks.prediction_writer": "is abstract",
    "pytorch_lightning.core.module": "writes in methods that no recipe calls",
    "pytorch_lightning.loggers.csv_logs": "writes into the run folder: `save_dir` is checked",
    "pytorch_lightning.profilers.advanced": "writes into the run folder: `dirpath` and `filename` are checked",
    "pytorch_lightning.profilers.profiler": "writes into the run folder: `dirpath` and `filename` are checked",
    "pytorch_lightning.strategies.fsdp": "writes checkpoints where training tells it to",
    "pytorch_lightning.strategies.model_parallel": "writes checkpoints where training tells it to",
    "pytorch_lightning.strategies.xla": "sends tensors between the processes of one training",
}


def loaded_modules() -> None:
    """Import what imports of the trusted packages."""
    for name in ROOMS:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}.", onerror=lambda name: None):
            if not found.name.endswith("__main__"):
                try:
                    importlib.import_module(found.name)
                except (ImportError, RuntimeError, SyntaxError, OSError, AttributeError):
                    continue


def allowed() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each public attribute of a trusted module that a recipe may name without consent."""
    modules = [n for n, m in sys.modules.items() if m is not None and n.split(".")[0] in TRUSTED]
    for module in sorted(modules):
        for name in sorted(vars(sys.modules[module])):
            if not name.startswith("_"):
                try:
                    yield f"{module}.{name}", resolve_component(f"{module}.{name}", "recipe")
                except ComponentError:
                    continue


@pytest.fixture(scope="module")
def everything_allowed() -> dict[str, Callable[..., Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that are deprecated, or lack a library
        loaded_modules()
        return dict(allowed())


def test_only_what_computes_is_taken_without_consent(
    everything_allowed: dict[str, Callable[..., Any]],
) -> None:
    assert len(everything_allowed) > 1000
    for path, found in everything_allowed.items():
        if inspect.isclass(found):
            assert issubclass(found, KINDS), path
        else:
            assert found.__name__ in FUNCTIONS, path
            assert found.__module__.startswith(
                ("im2im_zoo.frameworks", "im2im_zoo.instances", "im2im_zoo.networks")
            ), path


def test_no_class_that_is_taken_without_consent_downloads_runs_or_opens_more_than_was_read(
    everything_allowed: dict[str, Callable[..., Any]],
) -> None:
    classes = [f for f in everything_allowed.values() if inspect.isclass(f)]
    modules = {base.__module__ for one in classes for base in inspect.getmro(one)}
    found = {}
    for module in sorted(modules - READ.keys() - sys.stdlib_module_names):
        source = inspect.getsource(sys.modules[module])
        code = re.sub(r'"""(?:.|\n)*?"""|#[^\n]*', "", source)  # without docstrings and comments
        if words := {m[0] for m in MORE.finditer(code)}:
            found[module] = words
    assert found == {}


@pytest.mark.parametrize(
    "text",
    ["/etc/x", "../x", "a/../../x", "~/x", "s3://bucket/x", "simplecache::x", "$HOME/x", "C:\\x", "\\\\host\\x", "a\\..\\..\\x"],
)  # fmt: skip
def test_a_path_that_leads_out_is_found(text: str) -> None:
    assert leaves_run_folder(text)


@pytest.mark.parametrize(
    "text", ["logs", "a/b", "{epoch}-{val_loss:.2f}", "min", "..x", "x..", Path("a").name]
)
def test_a_path_within_is_none(text: str) -> None:
    assert not leaves_run_folder(text)
