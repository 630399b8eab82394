"""The format of docs/adding-a-format.md is found, written, read and predicted with as it stands there."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, formats, open_image, stem_of, write_image
from im2im_zoo.images.registry import image_formats, image_suffixes
from im2im_zoo.package import open_package
from im2im_zoo.runtime import predict, predict_array


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "adding-a-format.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def meta_image(
    text: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The module that the text shows, in a folder that is searched for formats."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "meta_image.py").write_text(blocks(text)[0], encoding="utf-8")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    image_formats.cache_clear()
    yield
    image_formats.cache_clear()
    del sys.modules["im2im_zoo.images.formats.meta_image"]


@pytest.fixture
def image() -> xr.DataArray:
    voxels = np.random.default_rng(0).integers(0, 2**16, (5, 90, 80), np.uint16)
    attrs = {"pixel_size_um": {"z": 0.002, "y": 0.001, "x": 0.001}}
    return xr.DataArray(voxels, dims=("z", "y", "x"), attrs=attrs)


@pytest.mark.usefixtures("meta_image")
def test_the_format_of_the_text_is_written_and_read(image: xr.DataArray, tmp_path: Path) -> None:
    assert ".mha" in image_suffixes().writable
    assert stem_of(tmp_path / "cell.mha") == "cell"
    opened = open_image(write_image(image, tmp_path / "cell.mha"))
    xr.testing.assert_equal(opened.compute(), image)
    assert opened.attrs["pixel_size_um"] == pytest.approx(image.attrs["pixel_size_um"])


@pytest.mark.usefixtures("meta_image")
def test_the_format_of_the_text_is_resumed(image: xr.DataArray, tmp_path: Path) -> None:
    path, work = tmp_path / "cell.mha", tmp_path / "work.mha"

    def write(planes: range, dtype: str = "uint16") -> None:
        with create_image(path, axes="zyx", shape=image.shape, dtype=dtype, work=work) as writer:
            for z in planes:
                writer.write({"z": slice(z, z + 1)}, image[z : z + 1].values)
            if planes.stop < 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(range(3))
    with pytest.raises(ImageError, match="of another image"):
        write(range(3, 5), "float32")
    write(range(3, 5))
    np.testing.assert_array_equal(open_image(path).values, image.values)


@pytest.mark.usefixtures("meta_image")
def test_the_format_of_the_text_is_predicted_from_and_to(image: xr.DataArray, tmp_path: Path) -> None:
    package = open_package(build_package(tmp_path / "package", small_unet(levels=2)))
    source = write_image(image[0], tmp_path / "cell.mha")
    output = predict(package, source, tmp_path / "result.mha", tile={"y": 64, "x": 64}, threads=1).output
    expected = predict_array(package, image[0], tile={"y": 64, "x": 64}, threads=1)
    np.testing.assert_array_equal(open_image(output).values, expected.values.squeeze())


@pytest.mark.usefixtures("meta_image")
def test_the_test_of_the_text_passes(text: str, tmp_path: Path) -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks(text)[1], "test_meta_image", "exec"), namespace)
    [test] = [value for name, value in namespace.items() if name.startswith("test_")]
    assert callable(test)
    test(tmp_path)


def test_the_text_counts_its_lines(text: str) -> None:
    counted = re.search(r"It has (\d+)\s+lines", text)
    assert counted
    assert int(counted[1]) == len(blocks(text)[0].splitlines())
