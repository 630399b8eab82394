"""Packages by their address: a zip, an RDF with its files beside it, or an id at bioimage.io; verified, and found again offline."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packages_for_tests import build_package, small_unet
from site_for_tests import Site, serving

from im2im_zoo.core.download import DownloadPolicy
from im2im_zoo.core.errors import PackageError
from im2im_zoo.package import open_package
from im2im_zoo.package.remote import fetch_package, is_address

LOCAL = DownloadPolicy(local_http=True, timeout_s=10)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "model"
    return build_package(folder, small_unet(levels=1), weights=("onnx",))


@pytest.fixture
def site(built: Path) -> Iterator[Site]:
    files = {f"/zoo/nice-newt/files/{p.name}": p.read_bytes() for p in built.iterdir()}
    with serving(files) as state:
        yield state


def test_an_rdf_is_fetched_with_the_files_that_it_names(site: Site, tmp_path: Path) -> None:
    path = fetch_package(site.at("/zoo/nice-newt/files/rdf.yaml"), policy=LOCAL, cache=tmp_path)
    with open_package(path) as package:
        assert package.weights == ("onnx",)
    asked = len(site.asked)
    site.files = {k: v for k, v in site.files.items() if k.endswith("rdf.yaml")}
    assert fetch_package(site.at("/zoo/nice-newt/files/rdf.yaml"), policy=LOCAL, cache=tmp_path) == path
    assert len(site.asked) == asked + 1  # whether the RDF is still the same


def test_an_id_is_looked_up_in_the_collection(site: Site, tmp_path: Path) -> None:
    collection = site.at("/zoo/{bioimageio_id}/files/rdf.yaml")
    path = fetch_package("bioimage.io/nice-newt", policy=LOCAL, cache=tmp_path, collection=collection)
    assert open_package(path).name == "Small test model"
    for page in ("https://bioimage.io/#/artifacts/nice-newt", "https://bioimage.io/#/?id=nice-newt"):
        assert fetch_package(page, policy=LOCAL, cache=tmp_path, collection=collection) == path
    with pytest.raises(PackageError, match="no valid id or nickname"):
        fetch_package("bioimage.io/../x", policy=LOCAL, cache=tmp_path, collection=collection)


def test_without_its_server_a_package_is_found_as_it_was(built: Path, tmp_path: Path) -> None:
    files = {f"/{p.name}": p.read_bytes() for p in built.iterdir()}
    with serving(files) as site:
        path = fetch_package(site.at("/rdf.yaml"), policy=LOCAL, cache=tmp_path)
        address = site.at("/rdf.yaml")
    assert fetch_package(address, policy=LOCAL, cache=tmp_path) == path


def test_a_zip_is_fetched_and_opened(built: Path, site: Site, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in built.iterdir():
            archive.write(file, file.name)
    site.files["/a.zip"] = (tmp_path / "a.zip").read_bytes()
    with open_package(fetch_package(site.at("/a.zip"), policy=LOCAL, cache=tmp_path / "cache")) as package:
        assert package.weights == ("onnx",)


def test_weights_of_another_hash_are_refused_and_no_package_is_left(site: Site, tmp_path: Path) -> None:
    site.files["/zoo/nice-newt/files/weights.onnx"] += b"x"
    with pytest.raises(PackageError, match=r"weights.onnx: the received file has the SHA-256 .* is not kept"):
        fetch_package(site.at("/zoo/nice-newt/files/rdf.yaml"), policy=LOCAL, cache=tmp_path)
    assert list((tmp_path / "packages").iterdir()) == []


def test_the_limit_is_of_all_files_together(built: Path, site: Site, tmp_path: Path) -> None:
    total = sum(p.stat().st_size for p in built.iterdir())
    largest = max(p.stat().st_size for p in built.iterdir())
    assert largest < total - 500
    with pytest.raises(PackageError, match="above the limit"):
        fetch_package(
            site.at("/zoo/nice-newt/files/rdf.yaml"),
            policy=DownloadPolicy(max_bytes=largest - 1, local_http=True),
            cache=tmp_path,
        )


@pytest.mark.parametrize("source", ["../../evil", "/etc/passwd", "..\\evil", "C:/evil"])
def test_a_file_that_leads_out_of_the_folder_is_not_fetched(site: Site, tmp_path: Path, source: str) -> None:
    rdf = yaml.safe_load(site.files["/zoo/nice-newt/files/rdf.yaml"])
    rdf["weights"]["onnx"]["source"] = source
    site.files["/rdf.yaml"] = yaml.safe_dump(rdf).encode()
    with pytest.raises(PackageError, match="leads out of its folder, so nothing is downloaded"):
        fetch_package(site.at("/rdf.yaml"), policy=LOCAL, cache=tmp_path)
    assert [path for path, _ in site.asked] == ["/rdf.yaml"]


@pytest.mark.parametrize("content", [b"<html>", b"a: [b", b"a: &a [*a]", b"\xff\xfe"])
def test_what_is_no_package_is_an_error(site: Site, tmp_path: Path, content: bytes) -> None:
    site.files["/page"] = site.files["/rdf.yaml"] = content
    with pytest.raises(PackageError, match=r"neither a zip nor an rdf\.yaml"):
        fetch_package(site.at("/page"), policy=LOCAL, cache=tmp_path)
    with pytest.raises(PackageError):
        open_package(fetch_package(site.at("/rdf.yaml"), policy=LOCAL, cache=tmp_path))


def test_paths_and_names_are_no_addresses_and_plain_http_is_refused(tmp_path: Path) -> None:
    assert not is_address(tmp_path)
    assert not is_address("nuclei_2d/0.1.0")
    assert is_address("bioimage.io/affable-shark")
    with pytest.raises(PackageError, match="only https"):
        open_package("http://example.com/model.zip")
