"""The real page, in a real browser, gives the values of `predict`.

It needs Chromium, and the build: `make web`.
"""

import hashlib
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from groupings_for_tests import with_grouping
from known_networks import onnx_bytes
from loopback import running
from numpy.typing import NDArray
from packages_for_tests import (
    ChannelsLast,
    build_model,
    build_package,
    follows,
    output_axis,
    small_unet,
    tensor_axis,
    tensor_in,
    tensor_out,
)
from ruyaml import YAML
from torch import nn
from zarr_files import zarr_entries

from im2im_zoo import instances
from im2im_zoo.package import open_package
from im2im_zoo.runtime.settings import Settings
from im2im_zoo.workflows.browser import page
from im2im_zoo.workflows.browser.page import collect_parts, write_page
from im2im_zoo.workflows.browser.server import create_server
from im2im_zoo.workflows.models import open_model

WEB = Path(__file__).parents[2] / "web"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> str:
    """The path of Chromium; without it, or without the build, these tests are skipped."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    if found is None or shutil.which("node") is None:
        pytest.skip("tests of the page in a browser need Chromium and Node.js")
    if not (WEB / "node_modules" / "playwright-core").is_dir() or not page._APPLICATION.is_file():
        pytest.skip("tests of the page in a browser need its build: run `make web`")
    return found


def drive(browser: str, address: str, image: Path | None, output: Path, **more: Any) -> dict[str, Any]:
    """Run the page on an image and return what it showed; the result is downloaded to `output`.

    Args:
        browser: the path of Chromium.
        address: of the page.
        image: file to choose; None if `more` has a `folder`, a folder to `drop`, or an `url`.
        output: file to download.
        more: further settings of `drive.mjs`.
    """
    arguments = {"browser": browser, "page": address, "image": image, "output": output, **more}
    script = Path(__file__).with_name("drive.mjs")
    done = subprocess.run(
        ["node", str(script), json.dumps(arguments, default=lambda p: p and str(p))],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write(source: str | Path, path: Path) -> str:
    with open_package(source) as package:
        write_page(package, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def nuclei_page(browser: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write("nuclei_2d", tmp_path_factory.mktemp("page") / "try.html")


@pytest.fixture(scope="module")
def nuclei_result(nuclei_2d: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
    with open_model("nuclei_2d") as model:
        return np.asarray(model.predict_array(nuclei_2d[0], axes="yx"))


def test_the_page_gives_the_values_of_predict_and_connects_to_nothing(
    browser: str,
    nuclei_page: str,
    nuclei_2d: tuple[NDArray[Any], NDArray[Any]],
    nuclei_result: NDArray[Any],
    tmp_path: Path,
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", nuclei_2d[0])
    shown = drive(browser, nuclei_page, tmp_path / "image.tif", tmp_path / "result.tif")
    assert shown["problem"] == ""
    assert shown["errors"] == []
    assert "gives the expected result here" in shown["status"]
    assert "1 tile of" in shown["status"]
    result = tifffile.imread(tmp_path / "result.tif")
    assert result.dtype == np.float32
    assert np.abs(result - nuclei_result).max() <= 1e-4
    from im2im_zoo.instances.methods.components import group

    assert shown["objects"] == f"{group(result[None]).max()} objects"
    assert [r for r in shown["requests"] if not r.startswith(("file:", "blob:", "data:"))] == []


def test_tiles_and_planes_and_channels_give_the_same(
    browser: str,
    nuclei_page: str,
    nuclei_2d: tuple[NDArray[Any], NDArray[Any]],
    nuclei_result: NDArray[Any],
    tmp_path: Path,
) -> None:
    image = nuclei_2d[0]
    other = np.random.default_rng(0).integers(0, 60000, image.shape).astype(image.dtype)
    stack = np.stack([np.stack([other, other]), np.stack([other, image])])
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    shown = drive(
        browser, nuclei_page, tmp_path / "stack.tif", tmp_path / "result.tif", plane=2, channels=[1], tile=384
    )
    assert shown["problem"] == ""
    assert "2 channels, 2 slices" in shown["info"]
    assert "1 tile of" not in shown["status"]
    # The package's tolerance is what the halo is measured for.
    assert np.abs(tifffile.imread(tmp_path / "result.tif") - nuclei_result).max() <= 1e-3


def test_other_axes_operations_and_fixed_sizes_give_the_values_of_predict(
    browser: str, tmp_path: Path
) -> None:
    mean = spec.ZeroMeanUnitVarianceKwargs(axes=[spec.AxisId("y"), spec.AxisId("x")])
    folder = build_package(
        tmp_path / "package",
        ChannelsLast(small_unet(channels=2, out_channels=3)),
        axes=("batch", "y", "x", "channel"),
        channels=("a", "b"),
        out_channels=("one", "two", "three"),
        minimum=64,
        fixed=True,
        preprocessing=[spec.ZeroMeanUnitVarianceDescr(kwargs=mean)],
        postprocessing=[spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))],
        weights=("onnx",),
    )
    image = np.random.default_rng(1).integers(0, 4000, (2, 150, 131)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, imagej=True, metadata={"axes": "CYX"})
    address = write(folder, tmp_path / "try.html")
    shown = drive(browser, address, tmp_path / "image.tif", tmp_path / "result.tif")
    assert shown["problem"] == ""
    with open_model(folder) as model:
        expected = np.asarray(model.predict_array(image, axes="cyx"))
    assert np.abs(tifffile.imread(tmp_path / "result.tif") - expected).max() <= 1e-4


def test_the_served_page_uses_threads(
    browser: str,
    nuclei_2d: tuple[NDArray[Any], NDArray[Any]],
    nuclei_result: NDArray[Any],
    tmp_path: Path,
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", nuclei_2d[0])
    with open_package("nuclei_2d") as package:
        parts = collect_parts(package, served=True)
    with create_server(parts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        shown = drive(browser, address, tmp_path / "image.tif", tmp_path / "result.tif")
        server.shutdown()
    assert shown["problem"] == ""
    assert np.abs(tifffile.imread(tmp_path / "result.tif") - nuclei_result).max() <= 1e-4
    assert [r for r in shown["requests"] if not r.startswith((address, "blob:", "data:"))] == []


def test_a_file_that_is_no_image_is_refused_with_the_reason(
    browser: str, nuclei_page: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.tif").write_text("no image")
    shown = drive(browser, nuclei_page, tmp_path / "notes.tif", tmp_path / "result.tif")
    assert "no image that this page can read" in shown["problem"]
    assert not (tmp_path / "result.tif").exists()


class _Files(http.server.SimpleHTTPRequestHandler):
    headers_sent: Mapping[str, str] = {}
    received: list[str]

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def do_POST(self) -> None:
        self.received.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def site(folder: Path, headers: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder; yield the address and the paths that something was sent to."""
    handler = type("Handler", (_Files,), {"headers_sent": headers, "received": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}", handler.received


CORS = {"Access-Control-Allow-Origin": "*"}


@pytest.fixture(scope="module")
def zarrs(nuclei_2d: tuple[NDArray[Any], NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of OME-Zarr 0.4 and 0.5; the image of nuclei is channel 1 of time 1."""
    folder, image = tmp_path_factory.mktemp("zarrs"), nuclei_2d[0]
    other = image[::-1]
    stack = np.stack([np.stack([other, other]), np.stack([other, image])])
    for version, more in (("0.4", {}), ("0.5", {"shards": True})):
        files = zarr_entries(stack, "tcyx", version, chunks=(1, 1, 64, 64), **more)
        for name, content in files.items():
            path = folder / f"nuclei {version}.ome.zarr" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


@pytest.mark.parametrize("served", [False, True])
def test_an_address_gives_the_values_of_predict_and_the_page_reaches_its_server_only(
    served: bool, browser: str, nuclei_page: str, nuclei_result: NDArray[Any], zarrs: Path, tmp_path: Path
) -> None:
    with (
        open_package("nuclei_2d") as package,
        site(zarrs, CORS) as (address, _),
        site(zarrs, CORS) as (another, received),
        create_server(collect_parts(package, served=True)) as server,
        running(server),
    ):
        shown = drive(
            browser,
            f"http://127.0.0.1:{server.server_port}/" if served else nuclei_page,
            None,
            tmp_path / "result.tif",
            url=f"{address}/nuclei%200.5.ome.zarr/",
            plane=2,
            channels=[1],
            probe=[another],
        )
    assert shown["problem"] == ""
    assert "nuclei 0.5.ome.zarr" in shown["info"]
    assert "2 channels, 2 time points, OME-Zarr" in shown["info"]
    assert np.abs(tifffile.imread(tmp_path / "result.tif") - nuclei_result).max() <= 1e-4
    assert shown["connections"] == {another: [False, False]}
    assert received == []


@pytest.mark.parametrize(("how", "version"), [("folder", "0.5"), ("drop", "0.4")])
def test_a_folder_gives_the_values_of_predict_and_closes_all_connections(
    how: str,
    version: str,
    browser: str,
    nuclei_page: str,
    nuclei_2d: tuple[NDArray[Any], NDArray[Any]],
    zarrs: Path,
    tmp_path: Path,
) -> None:
    folder = zarrs / f"nuclei {version}.ome.zarr"
    with site(zarrs, CORS) as (address, received):
        shown = drive(
            browser,
            nuclei_page,
            None,
            tmp_path / "result.tif",
            level=1,
            plane=2,
            channels=[1],
            probe=[address],
            **{how: folder},
        )
    assert shown["problem"] == ""
    with open_model("nuclei_2d") as model:
        expected = np.asarray(model.predict_array(nuclei_2d[0][::2, ::2], axes="yx"))
    assert np.abs(tifffile.imread(tmp_path / "result.tif") - expected).max() <= 1e-4
    assert shown["connections"] == {address: [False, False]}
    assert received == []


def test_a_server_that_allows_no_pages_is_named_with_the_header_that_it_needs(
    browser: str, nuclei_page: str, zarrs: Path, tmp_path: Path
) -> None:
    with site(zarrs, {}) as (address, _):
        url = f"{address}/nuclei 0.5.ome.zarr"
        shown = drive(browser, nuclei_page, None, tmp_path / "result.tif", url=url)
    assert f"{address} cannot be read" in shown["problem"]
    assert "Access-Control-Allow-Origin: *" in shown["problem"]


def _grouped(folder: Path, method: str, **kwargs: Any) -> Path:
    """A package of two maps, inside and boundary, with a method that makes objects of them."""
    build_package(
        folder,
        nn.Sequential(small_unet(out_channels=2), nn.Sigmoid()).eval(),
        out_channels=("inside", "boundary"),
        preprocessing=[spec.ZeroMeanUnitVarianceDescr()],
        weights=("onnx",),
    )
    code = (Path(instances.__file__).parent / "methods" / f"{method}.py").read_text()
    with_grouping(folder, code, f"{method}.py", kwargs=kwargs).close()
    return folder


@pytest.mark.parametrize("method", ["components", "watershed", "embedseg"])
def test_objects_are_those_of_predict_or_the_page_names_the_command(
    method: str, browser: str, nuclei_2d: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    image = nuclei_2d[0][:256, :300]
    with open_model(_grouped(tmp_path / "maps", "components", channel=1)) as model:
        maps = np.asarray(model.predict_array(image, axes="yx", settings=Settings(group=False)))
    low, high = (float(v) for v in np.quantile(maps[1], (0.6, 0.9)))
    kwargs: dict[str, Any] = {
        "components": {"channel": 1, "threshold": high, "min_size": 5},
        "watershed": {
            "channel": 1,
            "seed_threshold": high,
            "foreground_threshold": low,
            "boundary": 0,
            "min_size": 5,
        },
        "embedseg": {},
    }[method]
    folder = _grouped(tmp_path / "package", method, **kwargs)
    tifffile.imwrite(tmp_path / "image.tif", image)
    address = write(folder, tmp_path / "try.html")
    output, labels = tmp_path / "result.tif", tmp_path / "labels.tif"
    shown = drive(browser, address, tmp_path / "image.tif", output, labels=labels)
    assert shown["problem"] == ""
    assert np.abs(tifffile.imread(output) - maps).max() <= 1e-4
    if method == "embedseg":
        assert not shown["canCount"]
        assert (
            "by the method embedseg, which this page cannot do: use im2im-zoo predict" in shown["objectsNote"]
        )
        return
    with open_model(folder) as model:
        expected = np.asarray(model.predict_array(image, axes="yx"))
    assert expected.max() > 20
    assert shown["objects"] == f"{expected.max():,} objects"
    # A value beside a threshold may differ in its last digit.
    assert (tifffile.imread(labels) != expected).mean() <= 1e-3


class _TwoOutputs(nn.Module):
    """A map, and its double with a channel more."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_unet()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.network(image)
        return found, torch.cat([2 * found, found + 1], 1)


def _two_outputs(folder: Path) -> Path:
    network = _TwoOutputs().eval()
    space = [tensor_axis(a, (36, 4)) for a in "yx"]
    like = [output_axis(a, follows("raw", a), halo=16) for a in "yx"]
    path = build_model(
        folder,
        network,
        [tensor_in("raw", [tensor_axis("batch"), tensor_axis("channel", ["raw"]), *space])],
        [
            tensor_out("first", [output_axis("batch"), output_axis("channel", ["a"]), *like]),
            tensor_out("second", [output_axis("batch"), output_axis("channel", ["b", "c"]), *like]),
        ],
        examples=[torch.rand(1, 1, 64, 64)],
    )
    (path / "weights.onnx").write_bytes(onnx_bytes(network, torch.rand(1, 1, 64, 64), outputs=2))
    rdf = YAML().load(path / "rdf.yaml")
    digest = hashlib.sha256((path / "weights.onnx").read_bytes()).hexdigest()
    rdf["weights"]["onnx"] = {"source": "weights.onnx", "sha256": digest, "opset_version": 17}
    YAML().dump(rdf, path / "rdf.yaml")
    return path


@pytest.mark.parametrize("output", ["first", "second"])
def test_each_of_several_outputs_is_that_of_predict(output: str, browser: str, tmp_path: Path) -> None:
    folder = _two_outputs(tmp_path / "package")
    image = np.random.default_rng(2).random((90, 110)).astype(np.float32)
    tifffile.imwrite(tmp_path / "image.tif", image)
    address = write(folder, tmp_path / "try.html")
    shown = drive(browser, address, tmp_path / "image.tif", tmp_path / "result.tif", of=output)
    assert shown["problem"] == ""
    assert "gives the expected result here" in shown["status"]
    with open_model(folder) as model:
        expected = np.asarray(model.predict_arrays(xr.DataArray(image, dims=("y", "x")))[output])
    assert np.abs(np.squeeze(tifffile.imread(tmp_path / "result.tif")) - np.squeeze(expected)).max() <= 1e-4
