"""Components: what may be built, what is checked before, and what the messages say."""

from pathlib import Path

import pytest
import torch
from torch import nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.recipe.components import Component, build_component, check_component, resolve_component


def component(path: str, **kwargs: object) -> Component:
    return Component(callable=path, kwargs=kwargs)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("monai.networks.nets.BasicUNt", r"did you mean 'monai\.networks\.nets\.BasicUNet'"),
        ("monai.networks.nets", r"is a module; choose one of its classes: .*BasicUNet"),
        ("monai.networks.nets.", r"network\.callable"),
        ("torch", r"is a module"),
        ("torch.nn.functional.__name__", r"str, not a class"),
        ("os.system", r"--allow-code os"),
        ("builtins.eval", r"--allow-code builtins"),
        ("torch.load", r"is not in torch\.nn or torch\.optim, .*--allow-code torch"),
        ("torch.hub.load", r"is not in"),
        ("torch.nn.Module.load_state_dict", r"is the function"),
        ("torch.nn.modules.module.torch.hub.load", r"is the function torch\.hub\.load"),
        ("torch.nn.functional.importlib.import_module", r"is defined in importlib"),
        ("torch.utils.collect_env.subprocess.Popen", r"is not in"),
        ("im2im_zoo.__main__.main", r"is not in"),
        ("im2im_zoo.training.run.subprocess.run", r"is not in"),
        ("im2im_zoo.frameworks.base.inspect.os.system", r"is defined in posix|is defined in nt"),
        ("im2im_zoo.frameworks.base.torch.load", r"is the function torch\.serialization\.load"),
        ("pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree", r"is defined in shutil"),
        ("torch.utils.data.DataLoader", r"is not in"),
        ("torch.nn.modules.module.torch.utils.data.DataLoader", r"is the class .*may read or write files"),
        ("torch.nn.modules.module.torch.jit.ScriptModule", r"may read or write files"),
        ("torch.nn.modules.module.torch.fx.GraphModule", r"may read or write files"),
        ("torch.package.PackageImporter", r"is not in"),
        ("torch.nn.Parameter", r"no network"),
        ("monai.transforms.SaveImage", r"may read or write files"),
        ("monai.transforms.SaveClassificationd", r"may read or write files"),
        ("monai.transforms.TorchVision", r"may read or write files, download, or run code"),
        ("monai.transforms.RandTorchIOd", r"may read or write files"),
        ("monai.networks.nets.torchvision_fc.models", r"of a library that is not installed"),
        ("monai.losses.PerceptualLoss", r"download"),
        ("monai.bundle.ConfigParser", r"is not in"),
        ("torchmetrics.image.fid.FrechetInceptionDistance", r"download"),
        ("torchmetrics.text.ROUGEScore", r"download"),
        ("pytorch_lightning.loggers.WandbLogger", r"download"),
        ("pytorch_lightning.callbacks.SpikeDetection", r"may read or write files"),
        ("pytorch_lightning.Trainer", r"is not in"),
        (
            "pytorch_lightning.LightningModule.load_from_checkpoint",
            r"is not in",
        ),
    ],
)
def test_a_wrong_or_untrusted_path_is_refused(path: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        check_component(component(path), "network")


@pytest.mark.parametrize(
    "path",
    [
        "monai.networks.nets.BasicUNet",
        "monai.losses.DiceCELoss",
        "monai.transforms.RandAffined",
        "torch.nn.MSELoss",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "torchmetrics.PearsonCorrCoef",
        "pytorch_lightning.callbacks.EMAWeightAveraging",
        "pytorch_lightning.loggers.CSVLogger",
        "pytorch_lightning.strategies.FSDPStrategy",
        "im2im_zoo.frameworks.fcn.FCN",
        "im2im_zoo.frameworks.adversarial.linear_decay",
        "im2im_zoo.instances.methods.embedseg.group",
        "im2im_zoo.networks.ddim.timed_unet_ddim",
    ],
)
def test_what_recipes_build_needs_no_consent(path: str) -> None:
    assert callable(resolve_component(path, "recipe"))


def test_untrusted_code_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_package.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Net: pass\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ComponentError, match="--allow-code foreign_package"):
        check_component(component("foreign_package.Net"), "network")
    assert not (tmp_path / "ran").exists()
    check_component(component("foreign_package.Net"), "network", allow_code=("foreign_package",))
    assert (tmp_path / "ran").exists()


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ComponentError, match="install 'not_there'"):
        resolve_component("not_there.Thing", "network.callable", ("not_there",))


def test_an_unknown_argument_names_the_nearest() -> None:
    with pytest.raises(ComponentError, match=r"network\.kwargs\.featres: .*did you mean 'features'"):
        check_component(component("monai.networks.nets.BasicUNet", featres=1), "network")


def test_an_argument_of_a_nested_component_is_checked_with_its_full_key() -> None:
    inner = {"a": [{"callable": "torch.nn.MSELoss", "kwargs": {"reductio": "sum"}}]}
    with pytest.raises(ComponentError, match=r"framework\.kwargs\.loss\.a\.0\.kwargs\.reductio"):
        check_component(
            component("im2im_zoo.frameworks.fcn.FCN", loss=inner), "framework", given=("network",)
        )


def test_a_missing_argument_is_named_and_an_uncalled_component_needs_none() -> None:
    with pytest.raises(ComponentError, match=r"needs params.*call: false"):
        check_component(component("torch.optim.AdamW", lr=1), "x")
    check_component(Component(callable="torch.optim.AdamW", kwargs={"lr": 1}, call=False), "x")


def test_a_network_that_is_no_module_is_refused() -> None:
    with pytest.raises(ComponentError, match="is not a Module"):
        check_component(component("torch.optim.AdamW"), "network", kind=nn.Module)


@pytest.mark.parametrize(
    ("path", "kwargs", "message"),
    [
        ("monai.networks.nets.EfficientNetBN", {"model_name": "efficientnet-b0"}, r"kwargs\.pretrained: .*set it to false"),
        ("monai.networks.nets.DenseNet121", {"spatial_dims": 2, "in_channels": 3, "out_channels": 1, "pretrained": 1}, r"pretrained"),
        ("monai.networks.nets.HoVerNet", {"pretrained_url": "https://127.0.0.1/x"}, r"pretrained_url: .*set it to null"),
        ("monai.networks.nets.FlexibleUNet", {"in_channels": 1, "out_channels": 1, "backbone": "resnet18", "pretrained": True}, r"pretrained"),
        ("pytorch_lightning.callbacks.ModelCheckpoint", {"dirpath": "x"}, r"kwargs\.dirpath: with 'x'"),
    ],
)  # fmt: skip
def test_arguments_that_download_or_name_a_file_need_consent(
    path: str, kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        check_component(component(path, **kwargs), "network")
    check_component(component(path, **kwargs), "network", allow_code=(path.split(".")[0],))


def test_a_component_of_another_kind_is_refused_in_a_network() -> None:
    inner = {"callable": "torch.optim.AdamW", "call": False}
    with pytest.raises(ComponentError, match=r"network\.kwargs\.act\.callable: .*is not a Module"):
        check_component(
            component("monai.networks.nets.BasicUNet", act=inner), "network", inner_kind=nn.Module
        )


def test_components_nest_and_are_built() -> None:
    built = build_component(component("torch.nn.Sequential"), "network", nn.Conv2d(1, 2, 3), nn.ReLU())
    assert built(torch.zeros(1, 1, 5, 5)).shape == (1, 2, 3, 3)
    optimizer = build_component(Component(callable="torch.optim.AdamW", kwargs={"lr": 0.25}, call=False), "o")
    assert optimizer(built.parameters()).param_groups[0]["lr"] == 0.25


def test_a_refused_value_names_the_component_and_keeps_its_message() -> None:
    with pytest.raises(ComponentError, match=r"network: torch\.nn\.Conv2d rejects its arguments: .*groups"):
        build_component(
            component("torch.nn.Conv2d", in_channels=3, out_channels=4, kernel_size=3, groups=2), "network"
        )
