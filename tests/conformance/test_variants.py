"""The variants that the README of `labelfree_3d` lists: each line of it trains, and what it trained becomes a package."""

import shlex
from pathlib import Path

import pytest
from commands import command

from im2im_zoo.core.resources import model_sources
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import open_package

pytestmark = pytest.mark.slow
NAME = "labelfree_3d"
FEW = (
    "--data.patches_per_image=2",
    "--data.batch_size=2",
    "--trainer.max_epochs=1",
    "--trainer.limit_val_batches=1",
)
# Only the normalisation differs from the recipe, whose own network is FNet.
NARROW = ("--network.kwargs.features=6",)


def lines() -> list[list[str]]:
    """The arguments of each `im2im-zoo train` of the README."""
    text = (model_sources() / NAME / "README.md").read_text(encoding="utf-8")
    found = [shlex.split(line) for line in text.splitlines() if line.startswith("im2im-zoo train")]
    return [arguments[1:] for arguments in found]


def named(arguments: list[str]) -> str:
    return arguments[arguments.index("--output") + 1]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample volumes, mirrored at their ends to what every variant takes."""
    folder = tmp_path_factory.mktemp("stacks") / "images"
    command("samples", NAME, "--output", folder)
    for file in sorted(folder.rglob("*.ome.tif")):
        image = open_image(file).load()
        missing = {a: (0, max(0, n - image.sizes[a])) for a, n in {"z": 34, "y": 66, "x": 68}.items()}
        larger = image.pad(missing, mode="reflect")
        larger.attrs = dict(image.attrs)
        file.unlink()
        write_image(larger, file)
    return folder


def test_the_readme_lists_the_networks_and_normalisations_of_the_paper() -> None:
    assert {named(arguments) for arguments in lines()} == {
        *("residual", "attention", "unetr", "swin_unetr", "percentile", "standard")
    }


@pytest.mark.parametrize("arguments", lines(), ids=named)
def test_it_trains_and_its_package_has_all_weight_formats_or_says_why_not(
    arguments: list[str], stacks: Path, tmp_path: Path
) -> None:
    at = arguments.index("--output")
    given = arguments[:at] + arguments[at + 2 :]
    narrow = NARROW if named(arguments) in ("percentile", "standard") else ()
    command(*given, f"--data.path={stacks}", *FEW, *narrow, "--output", tmp_path / "run")
    command("export", tmp_path / "run", "--output", tmp_path / "package")
    image = next((stacks / "val" / "images").iterdir())
    # In the format that all of them have, so that engines are not compared.
    command("predict", tmp_path / "package", image, tmp_path / "out.ome.zarr", "--weights", "torchscript")
    predicted, raw = open_image(tmp_path / "out.ome.zarr"), open_image(image)
    assert all(predicted.sizes[axis] == raw.sizes[axis] for axis in "zyx")
    with open_package(tmp_path / "package") as package:
        left_out = package.raw["config"]["im2im_zoo"]["weights_left_out"]
        assert {*package.weights, *left_out} == {"onnx", "torchscript", "pytorch_state_dict"}
    # At 32 x 64 x 64 torch's ONNX exporter loses count of SwinUNETR's channels; at 64 x 64 x 64 it does not.
    assert set(left_out) <= ({"onnx"} if named(arguments) == "swin_unetr" else set())
