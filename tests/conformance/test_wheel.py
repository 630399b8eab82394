"""What is installed from the wheel works in any folder: recipes and packaged models travel in it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# As where only the runtime is installed: `import monai` fails as if it were not there.
RUN = (
    "import sys; sys.modules.update({m: None for m in ('pytorch_lightning', 'lightning_fabric', 'monai', 'onnx', "
    "'onnxscript', 'torchmetrics', 'tensorboard')}); import im2im_zoo; print(im2im_zoo.__file__, file=sys.stderr); "
    "from im2im_zoo.cli import main; main()"
)


@pytest.fixture(scope="module")
def unpacked(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([*build, str(repository)], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.path.insert(0, {str(unpacked)!r}); {RUN}"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_of_the_runtime_works_without_lightning_and_monai(
    unpacked: Path, tmp_path: Path
) -> None:
    listed = run(unpacked, tmp_path, "recipe", "--list")
    assert "nuclei_2d" in listed.stdout, listed.stderr
    assert str(unpacked) in listed.stderr
    for arguments in (
        ("samples", "nuclei_2d"),
        ("validate", "nuclei_2d"),
        ("predict", "nuclei_2d", "nuclei_2d_images/val/images/nuclei_2d.ome.tif", "out.ome.zarr"),
        ("evaluate", "out.ome.zarr", "nuclei_2d_images/val/targets/nuclei_2d.ome.tif", "--task", "semantic"),
        ("show", "nuclei_2d"),
        ("recipe", "--copy", "nuclei_3d"),
    ):
        done = run(unpacked, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr


def test_what_needs_the_extra_says_so_in_one_line(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "train", "nuclei_2d", "--output", "run")
    assert done.returncode == 1
    assert 'pip install "im2im_zoo[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
