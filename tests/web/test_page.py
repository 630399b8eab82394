"""A page holds a package's facts and files, and nothing that a package says leaves its place."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bioimageio.spec.model import v0_5 as spec
from packages_for_tests import REACH, Doubling, build_package, small_unet
from ruyaml import YAML
from torch import nn

from im2im_zoo import instances
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.resources import packaged_models
from im2im_zoo.package import open_package
from im2im_zoo.workflows.browser import facts, onnxruntime, page
from im2im_zoo.workflows.browser.facts import MAX_PAGE_BYTES, page_content
from im2im_zoo.workflows.browser.onnxruntime import read_onnxruntime
from im2im_zoo.workflows.browser.page import collect_parts, write_page
from im2im_zoo.workflows.browser.server import create_server


@pytest.fixture(scope="module")
def nuclei() -> Path:
    """The packaged model of nuclei."""
    (folder,) = (packaged_models() / "nuclei_2d").iterdir()
    return folder


def facts_in(text: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    content: dict[str, Any] = json.loads(found[0])
    return content


def part_in(text: str, name: str) -> bytes:
    pieces = re.findall(rf'<script type="text/plain" id="part-{name}-\d+">(.*?)</script>', text)
    assert len(pieces) == facts_in(text)["parts"][name]["chunks"]
    return gzip.decompress(b"".join(map(base64.b64decode, pieces)))


def test_a_page_holds_the_weights_the_runtime_and_the_test_tensors(
    nuclei: Path, application: Path, runtime_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_PIECE", 3 * 50_000)
    path = tmp_path / "try.html"
    with open_package(nuclei) as package:
        size = write_page(package, path, onnxruntime=runtime_files)
    text = path.read_text(encoding="utf-8")
    assert size == path.stat().st_size
    assert facts_in(text)["parts"]["weights"]["chunks"] > 1
    assert part_in(text, "weights") == (nuclei / "weights.onnx").read_bytes()
    assert part_in(text, "ort_wasm") == b"content of ort_wasm"
    given = np.frombuffer(part_in(text, "test_input"), "<f8")
    np.testing.assert_array_equal(given, np.load(nuclei / "test_input.npy").ravel())
    expected = np.frombuffer(part_in(text, "test_output_0"), "<f4")
    np.testing.assert_array_equal(expected, np.load(nuclei / "test_output.npy").ravel())


def test_the_facts_are_those_of_the_package(nuclei: Path) -> None:
    with open_package(nuclei) as package:
        found = page_content(package, max_bytes=MAX_PAGE_BYTES).facts
    assert found["name"] == "Nuclei in 2D fluorescence"
    assert found["license"] == "MIT"
    assert found["input"]["axes"] == ["batch", "channel", "y", "x"]
    assert found["input"]["dtype"] == "uint16"
    scale = {"axes": ["channel", "y", "x"], "min_percentile": 1.0, "max_percentile": 99.8}
    ranges = [op["kwargs"] for op in found["input"]["operations"] if op["id"] == "scale_range"]
    assert [scale.items() <= kwargs.items() for kwargs in ranges] == [True]
    assert "sigmoid" in [op["id"] for op in found["outputs"][0]["operations"]]
    assert found["y"]["grid"]["step"] == 16
    assert not found["y"]["grid"]["fixed"]
    declared = YAML().load(nuclei / "rdf.yaml")["outputs"][0]["axes"][2]["halo"]
    assert found["y"]["halo"] >= declared
    assert found["tilesDiffer"] is None
    assert found["test"]["absolute"] < 1e-3


def test_the_policy_allows_the_page_s_own_script_only(
    nuclei: Path, application: Path, runtime_files: Path, tmp_path: Path
) -> None:
    with open_package(nuclei) as package:
        write_page(package, tmp_path / "try.html", onnxruntime=runtime_files)
    text = (tmp_path / "try.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert text.index("Content-Security-Policy") < text.index("<script")
    digest = base64.b64encode(hashlib.sha256(b"start();").digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in policy
    assert "default-src &#x27;none&#x27;" in policy
    assert "connect-src http: https:;" in policy
    assert "unsafe-inline" not in policy
    assert "&#x27;unsafe-eval" not in policy


def test_a_package_cannot_write_elements_into_the_page(
    nuclei: Path, application: Path, runtime_files: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(nuclei, tmp_path / "package")
    text = (folder / "rdf.yaml").read_text()
    hostile = "</script><script>alert(1)</script><!--im2im-zoo:parts-->"
    changed = re.sub(r"^description: .*$", f'description: "{hostile}"', text, flags=re.MULTILINE)
    (folder / "rdf.yaml").write_text(changed)
    with open_package(folder) as package:
        write_page(package, tmp_path / "try.html", onnxruntime=runtime_files)
    written = (tmp_path / "try.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in written
    assert facts_in(written)["description"] == hostile


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a package with ONNX weights."""

    def make(**options: Any) -> Path:
        network = options.pop("network", None) or small_unet()
        weights = options.pop("weights", ("onnx",))
        return build_package(tmp_path_factory.mktemp("package") / "p", network, weights=weights, **options)

    return make


def refused(folder: Path, max_bytes: int = MAX_PAGE_BYTES) -> str:
    with open_package(folder) as package, pytest.raises(PackageError) as error:
        page_content(package, max_bytes=max_bytes)
    return str(error.value)


def test_packages_that_no_page_runs_are_refused_with_a_remedy(build: Callable[..., Path]) -> None:
    message = refused(build(weights=("torchscript",)))
    assert "has no ONNX weights, only torchscript" in message
    assert "--weights onnx" in message
    assert "another size along y than the image" in refused(build(network=Doubling(), scale=0.5, halo=0))
    message = refused(build(), max_bytes=1000)
    assert "use im2im-zoo serve, or use im2im-zoo predict" in message


def test_volumes_are_refused(build: Callable[..., Path]) -> None:
    axes = ("batch", "channel", "z", "y", "x")
    message = refused(build(network=small_unet(ndim=3), axes=axes))
    assert "has the axis z, but a page runs 2D networks only; use im2im-zoo predict" in message


def test_a_network_that_needs_the_whole_image_is_not_cut(build: Callable[..., Path]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.InstanceNorm2d(1)).eval()
    with open_package(build(network=network)) as package:
        found = page_content(package, max_bytes=MAX_PAGE_BYTES).facts
    assert "depends on the whole image" in found["tilesDiffer"]


def test_custom_operations_are_refused(build: Callable[..., Path], tmp_path: Path) -> None:
    folder = build()
    yaml = YAML()
    rdf = yaml.load(folder / "rdf.yaml")
    (folder / "mine.py").write_text("def mine():\n    return lambda x: x\n")
    digest = hashlib.sha256((folder / "mine.py").read_bytes()).hexdigest()
    operation = {"id": "custom", "callable": "mine", "source": "mine.py", "sha256": digest, "kwargs": {}}
    rdf["config"] = {"im2im_zoo": {"preprocessing": [{"tensor": "raw", "operations": [operation]}]}}
    yaml.dump(rdf, folder / "rdf.yaml")
    assert "--portable" in refused(folder)


def test_a_grid_a_fixed_size_and_axes_in_any_order_are_described(build: Callable[..., Path]) -> None:
    softmax = spec.SoftmaxDescr(kwargs=spec.SoftmaxKwargs(axis=spec.AxisId("channel")))
    with open_package(build(postprocessing=[softmax])) as package:
        found = page_content(package, max_bytes=MAX_PAGE_BYTES).facts
    assert found["y"]["grid"] == {"min": 36, "step": 4, "fixed": False}
    # The receptive field of this network; the RDF declares more.
    assert 8 <= found["y"]["halo"] < REACH[2]
    assert found["y"]["cut"]
    assert found["outputs"][0]["operations"][0] == {"id": "softmax", "kwargs": {"axis": "channel"}}
    assert found["test"] is None
    with open_package(build(fixed=True, minimum=64)) as package:
        assert page_content(package, max_bytes=MAX_PAGE_BYTES).facts["y"]["grid"]["fixed"]


@pytest.mark.parametrize(
    ("method", "kwargs", "expected"),
    [
        (
            "components",
            {"threshold": 0.3, "min_size": 5},
            {"kind": "components", "output": "probability", "channel": 0, "threshold": 0.3, "minSize": 5},
        ),
        (
            "watershed",
            {"boundary": 1, "seed_threshold": 0.7},
            {
                "kind": "watershed",
                "output": "probability",
                "channel": 0,
                "minSize": 1,
                "seedThreshold": 0.7,
                "foregroundThreshold": 0.5,
                "boundary": 1,
                "affinities": None,
            },
        ),
        ("embedseg", {}, {"kind": "program", "output": "probability", "method": "the method embedseg"}),
    ],
)
def test_objects_are_described_where_a_page_can_make_them(
    method: str, kwargs: dict[str, Any], expected: dict[str, Any], nuclei: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(nuclei, tmp_path / "package")
    source = Path(instances.__file__).parent / "methods" / f"{method}.py"
    shutil.copy(source, folder)
    yaml = YAML()
    rdf = yaml.load(folder / "rdf.yaml")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    entry = {"source": source.name, "sha256": digest, "callable": "group", "output": "probability"}
    rdf["config"]["im2im_zoo"]["grouping"] = {**entry, "kwargs": kwargs}
    yaml.dump(rdf, folder / "rdf.yaml")
    with open_package(folder) as package:
        assert page_content(package, max_bytes=MAX_PAGE_BYTES).facts["instances"] == expected


def test_without_a_build_the_message_names_the_command(
    nuclei: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "_APPLICATION", tmp_path / "app.html")
    with open_package(nuclei) as package, pytest.raises(PackageError, match="run `make web`"):
        write_page(package, tmp_path / "try.html")
    assert not (tmp_path / "try.html").exists()


def test_a_page_that_fails_keeps_what_was_there(
    nuclei: Path, application: Path, runtime_files: Path, tmp_path: Path
) -> None:
    (runtime_files / "ort-wasm-simd-threaded.wasm").unlink()
    path = tmp_path / "try.html"
    path.write_text("earlier")
    with (
        open_package(nuclei) as package,
        pytest.raises(PackageError, match=r"has no ort-wasm.*\.wasm; give the folder"),
    ):
        write_page(package, path, onnxruntime=runtime_files)
    assert path.read_text() == "earlier"


def test_files_of_another_version_are_refused(runtime_files: Path) -> None:
    (runtime_files / "ort-wasm-simd-threaded.wasm").write_bytes(b"another")
    with pytest.raises(PackageError, match=r"is not that of onnxruntime-web 1\.2\.3"):
        read_onnxruntime(runtime_files)


def test_the_files_come_from_the_npm_package_if_there_is_no_folder(
    runtime_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "ort.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(runtime_files, "package/dist")
    asked = []

    def download(url: str, *, sha256: str, **_: Any) -> Path:
        asked.append((url, sha256))
        return archive

    monkeypatch.setattr(onnxruntime, "download", download)
    assert read_onnxruntime()["ort_wasm"] == b"content of ort_wasm"
    assert asked == [("https://example.com/ort.tgz", "0" * 64)]
    (runtime_files / "ort-wasm-simd-threaded.wasm").write_bytes(b"another")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(runtime_files, "package/dist")
    with pytest.raises(PackageError, match="differs from the pinned one"):
        read_onnxruntime()


def test_the_pinned_address_is_https_and_of_the_version() -> None:
    known = onnxruntime.pinned()
    assert known.url.startswith("https://registry.npmjs.org/")
    assert known.version in known.url
    lock = json.loads((Path(__file__).parents[2] / "web" / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/onnxruntime-web"]["version"] == known.version


@pytest.fixture
def server(nuclei: Path, application: Path, runtime_files: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(facts, "MAX_TEST_BYTES", 0)
    with open_package(nuclei) as package:
        parts = collect_parts(package, onnxruntime=runtime_files, served=True)
    with create_server(parts) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_the_server_serves_the_page_isolated_with_its_parts_to_this_machine(
    server: ThreadingHTTPServer, nuclei: Path
) -> None:
    host, port = server.server_address[:2]
    assert host == "127.0.0.1"
    address = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(address + "/") as answer:
        text = answer.read().decode()
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert facts_in(text)["parts"]["weights"]["chunks"] == 0
    with urllib.request.urlopen(address + "/parts/weights.gz") as answer:
        assert gzip.decompress(answer.read()) == (nuclei / "weights.onnx").read_bytes()
    for path, headers, code in (
        ("/parts/../rdf.yaml", {}, 404),
        ("/etc/passwd", {}, 404),
        ("/", {"Host": f"elsewhere.example:{port}"}, 403),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(address + path, headers=headers))
        assert error.value.code == code
        error.value.close()
    parts = page.PageParts({}, {}, {})
    with pytest.raises(PackageError, match="choose another with --port"):
        create_server(parts, port)
