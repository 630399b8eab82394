"""Opening packages: what is found, what is refused and why, and that nothing hostile in a zip is followed."""

import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packages_for_tests import build_package, small_unet

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.unzip import ZipLimits
from im2im_zoo.package import open as package_module
from im2im_zoo.package import open_package
from im2im_zoo.package.hashes import check_hashes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "model"
    return build_package(folder, small_unet(levels=1), weights=("torchscript", "onnx"))


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "model"))


def edit(folder: Path, change) -> None:
    rdf = folder / "rdf.yaml"
    content = yaml.safe_load(rdf.read_text())
    change(content)
    rdf.write_text(yaml.safe_dump(content, sort_keys=False))


def zipped(folder: Path, path: Path, *, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def test_a_folder_its_rdf_and_its_zip_are_the_same_package(folder, tmp_path):
    zips = [zipped(folder, tmp_path / "a.zip"), zipped(folder, tmp_path / "b.zip", inside="model/")]
    for source in (folder, folder / "rdf.yaml", *zips, str(folder)):
        with open_package(source) as package:
            assert package.name == "Small test model"
            assert package.version == "0.3.1"
            assert package.weights == ("onnx", "torchscript")
            assert package.path(package.weights_entry("onnx")).is_file()
            assert check_hashes(package) == []
            assert [str(t.id) for t in (*package.inputs, *package.outputs)] == ["raw", "out"]


def test_the_folder_of_a_zip_is_removed_when_it_is_closed_and_when_python_ends(folder, tmp_path):
    path = zipped(folder, tmp_path / "a.zip")
    with open_package(path) as package:
        assert package.root.is_dir()
    assert not package.root.exists()
    script = f"from im2im_zoo.package import open_package; print(open_package({str(path)!r}).root)"
    root = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert root
    assert not Path(root).exists()


def test_closing_a_folder_removes_nothing(folder):
    with open_package(folder):
        pass
    assert (folder / "rdf.yaml").is_file()


def test_a_packaged_model_is_found_by_name_in_its_newest_version(folder, tmp_path, monkeypatch):
    for version in ("0.9.0", "0.10.0"):
        shutil.copytree(folder, tmp_path / "packaged" / "nuclei" / version)
    monkeypatch.setattr(package_module, "packaged_models", lambda: tmp_path / "packaged")
    assert open_package("nuclei").root.name == "0.10.0"
    assert open_package("nuclei/0.9.0").root.name == "0.9.0"
    with pytest.raises(PackageError, match="the packaged models are nuclei"):
        open_package("cells")


def test_formats_are_offered_only_if_their_file_is_there(folder):
    (folder / "weights.onnx").unlink()
    assert open_package(folder).weights == ("torchscript",)
    (folder / "weights.pt").unlink()
    with pytest.raises(PackageError, match=r"files are missing: weights.onnx, weights.pt"):
        open_package(folder)


def test_nothing_is_fetched_and_a_dead_link_of_another_format_does_not_matter(folder, monkeypatch):
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a package must not be fetched")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    edit(folder, lambda rdf: rdf["weights"]["torchscript"].update(source="https://dead.invalid/weights.pt"))
    package = open_package(folder)
    assert package.weights == ("onnx",)
    with pytest.raises(PackageError, match="is not downloaded"):
        package.path(package.weights_entry("torchscript"))


def test_a_file_that_was_changed_is_found_by_its_hash(folder):
    path = folder / "weights.onnx"
    path.write_bytes(path.read_bytes() + b"x")
    (mismatch,) = check_hashes(open_package(folder))
    assert mismatch.file == "weights.onnx"
    assert mismatch.expected != mismatch.actual == sha256(path)


def test_an_invalid_field_is_named_with_its_path_and_reason(folder):
    edit(folder, lambda rdf: rdf["inputs"][0]["axes"][2].update(size="large"))
    with pytest.raises(PackageError, match=r"inputs\[0\]\.axes\[2\].*size.*\n?.*valid"):
        open_package(folder)


def test_numbers_are_read_as_the_spec_reads_them(folder):
    text = (folder / "rdf.yaml").read_text()
    operation = (
        "preprocessing:\n      - id: zero_mean_unit_variance\n        kwargs: {axes: [y, x], eps: 1e-4}\n"
    )
    (folder / "rdf.yaml").write_text(text.replace("preprocessing:\n", operation, 1))
    package = open_package(folder)
    steps = {op.id: op for op in package.inputs[0].preprocessing}
    assert steps["zero_mean_unit_variance"].kwargs.eps == 1e-4
    assert package.raw["inputs"][0]["preprocessing"][0]["kwargs"]["eps"] == 1e-4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"image.tif": b"II"}, "no rdf.yaml or bioimageio.yaml; it has image.tif"),
        ({}, "it has nothing"),
        ({"rdf.yaml": b"a: [b"}, "rdf.yaml is not YAML"),
        ({"rdf.yaml": b"\xff\xfe\x00"}, "rdf.yaml is not YAML"),
        ({"rdf.yaml": b"- 1\n- 2\n"}, "no `type` and `format_version`; it has list"),
        ({"rdf.yaml": b"services: {}\n"}, "it has services"),
        (
            {"rdf.yaml": b"type: dataset\nformat_version: 0.3.0\n"},
            "a bioimage.io dataset, but only models can run",
        ),
    ],
)
def test_what_is_no_package_is_refused_with_what_was_found(tmp_path, files, message):
    folder = tmp_path / "some"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(PackageError) as error:
        open_package(folder)
    assert message in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "image.tif").write_bytes(b"II*\0")
    with pytest.raises(PackageError, match=r"a file of the type \.tif"):
        open_package(tmp_path / "image.tif")


def test_weights_that_no_engine_runs_are_named(folder):
    def only_javascript(rdf) -> None:
        rdf["weights"] = {"tensorflow_js": {"source": "w.zip", "tensorflow_version": "2.1"}}

    edit(folder, only_javascript)
    with pytest.raises(
        PackageError,
        match="weights are of the format tensorflow_js, which cannot be run; use a package with onnx",
    ):
        open_package(folder)


def test_what_a_package_lacks_to_be_run_is_said_in_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)  # as where it is not installed

    def only_keras(rdf) -> None:
        rdf["weights"] = {"keras_hdf5": {"source": "w.h5", "tensorflow_version": "2.1"}}

    edit(folder, only_keras)
    with pytest.raises(PackageError, match=r"needs keras.*pip install 'im2im_zoo\[tensorflow\]'"):
        open_package(folder)


def test_a_dead_link_of_weights_that_are_not_used_does_not_matter(folder):
    def another(rdf) -> None:
        rdf["weights"]["keras_hdf5"] = {
            "source": "https://example.com/gone.h5",
            "sha256": "0" * 64,
            "tensorflow_version": "2.1",
            "parent": "torchscript",
        }

    edit(folder, another)
    with open_package(folder) as package:
        assert "keras_hdf5" not in package.weights
        assert "keras_hdf5" in package.formats()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "\\evil"])
def test_a_zip_entry_that_leads_out_is_refused_and_nothing_is_written(folder, tmp_path, name):
    path = zipped(folder, tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PackageError, match="leads out of its folder"):
        open_package(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/evil").exists()


def test_a_link_in_a_zip_is_refused(folder, tmp_path):
    path = zipped(folder, tmp_path / "a.zip")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PackageError, match="link or a special file"):
        open_package(path)


def test_a_zip_that_unpacks_to_too_much_is_refused(folder, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "rdf.yaml", "rdf.yaml")
        archive.writestr("zeros", bytes(4 * 2**20))
    with pytest.raises(
        PackageError, match=r"'zeros' unpacks \d+ bytes to 4194304; such a zip may be hostile"
    ):
        open_package(path, limits=ZipLimits(ratio_from_bytes=2**20))
    with pytest.raises(PackageError, match="more than the limit of 1000000"):
        open_package(path, limits=ZipLimits(total_bytes=10**6))
    with pytest.raises(PackageError, match="has 2 files, more than the limit of 1"):
        open_package(path, limits=ZipLimits(entries=1))


def test_a_zip_with_the_same_file_twice_or_cut_short_is_refused(folder, tmp_path):
    path = zipped(folder, tmp_path / "a.zip")
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("RDF.yaml", "type: model")
    with pytest.raises(PackageError, match="twice"):
        open_package(path)
    damaged = bytearray(whole)
    damaged[200:260] = bytes(60)
    path.write_bytes(bytes(damaged))
    with pytest.raises(PackageError, match=r"cannot be extracted|not valid|not YAML"):
        open_package(path)


def test_a_refused_zip_leaves_no_temporary_folder(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("image.tif", "x")
    with pytest.raises(PackageError, match=r"it has image\.tif"):
        open_package(tmp_path / "a.zip")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_rdf_that_names_a_file_outside_the_package_is_not_followed(folder):
    package = open_package(folder)
    with pytest.raises(PackageError, match="outside the package"):
        package.path("../secret")
    for address in ("file:///etc/passwd", "https://127.0.0.1/x", "s3://bucket/x"):
        with pytest.raises(PackageError, match="is not inside the package and is not downloaded"):
            package.path(address)


@pytest.mark.parametrize("fixed", [False, True], ids=["parameterized", "fixed"])
def test_an_old_description_is_upgraded(folder, fixed):
    axes = {"axes": "bcyx", "data_type": "float32", "data_range": ["-inf", "inf"]}
    old = {
        "format_version": "0.4.9",
        "type": "model",
        "name": "Old model",
        "description": "old",
        "authors": [{"name": "Test"}],
        "cite": [{"text": "none", "url": "https://example.com/"}],
        "documentation": "README.md",
        "license": "MIT",
        "timestamp": "2022-01-01T00:00:00",
        "tags": [],
        "inputs": [
            {
                "name": "raw",
                **axes,
                "shape": {"min": [1, 1, 64, 64], "step": [0, 0, 16, 16]},
                "preprocessing": [
                    {"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "cyx"}}
                ],
            }
        ],
        "outputs": [
            {
                "name": "out",
                **axes,
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "halo": [0, 0, 16, 16],
            }
        ],
        "test_inputs": ["test_input.npy"],
        "test_outputs": ["test_output.npy"],
        "weights": {"torchscript": {"source": "weights.pt", "pytorch_version": "1.10"}},
    }
    if fixed:
        old["inputs"][0]["shape"] = old["outputs"][0]["shape"] = [1, 1, 64, 64]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(old))
    package = open_package(folder)
    axis = package.inputs[0].axes[2]
    assert str(axis.id) == "y"
    assert axis.size == 64 if fixed else (axis.size.min, axis.size.step) == (64, 16)
    assert len(package.outputs[0].axes[1].channel_names) == 1
    assert package.outputs[0].axes[2].halo == 16
    assert package.raw["format_version"] == "0.4.9"


@pytest.mark.parametrize("shape", ["aliases", "itself", "deep"])
def test_an_rdf_that_grows_without_bound_is_refused_at_once(folder, shape):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    added = {"aliases": "\n".join(lines), "itself": "a: &a [*a]", "deep": "a: " + "[" * 5000 + "]" * 5000}
    rdf = folder / "rdf.yaml"
    rdf.write_text(rdf.read_text() + "\n" + added[shape] + "\n")
    with pytest.raises(PackageError, match=r"(not|to be) an RDF"):
        open_package(folder)


def test_a_zip_that_is_cut_short_is_said_to_be(folder, tmp_path):
    path = zipped(folder, tmp_path / "model.zip")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(PackageError, match="not a valid zip"):
        open_package(path)
