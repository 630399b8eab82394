"""The command line, run in this process, and one tiny trained package for all tests of a session."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from im2im_zoo.cli import main

TINY = (
    "--network.kwargs.features=[4, 4, 8, 8, 8, 4]",
    "--data.patch_size=[64, 64]",
    "--data.patches_per_image=8",
    "--data.batch_size=4",
)


@dataclass(frozen=True)
class Done:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `im2im-zoo` with the given arguments."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["im2im-zoo", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from im2im_zoo.samples import write_samples

    return write_samples("nuclei_2d", tmp_path_factory.mktemp("images") / "nuclei")


@pytest.fixture(scope="session")
def tiny_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from im2im_zoo.cli.train import parse_overrides
    from im2im_zoo.recipe.load import load_recipe
    from im2im_zoo.training.train import train

    overrides = [*parse_overrides(TINY), ("data.path", str(images)), ("trainer.max_epochs", 2)]
    return train(load_recipe("nuclei_2d", overrides), tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture(scope="session")
def tiny_package(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from im2im_zoo.workflows.export_run import export_run

    folder = tmp_path_factory.mktemp("packages") / "tiny"
    export_run(tiny_run, folder, zip_path=folder.with_suffix(".zip"))
    return folder
