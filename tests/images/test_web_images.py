"""OME-Zarrs on the web: the same as on the disk, fetched chunk by chunk, over https alone, from a real server on this machine."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from site_for_tests import Site, serving

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import Address, as_place, create_image, open_image, web_state
from im2im_zoo.images.formats.ome_zarr.web_store import WebStore

SHAPE = (2, 300, 530)


@pytest.fixture(scope="module")
def image() -> xr.DataArray:
    return xr.DataArray(
        np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16),
        dims=("channel", "y", "x"),
        coords={"channel": ["DAPI", "GFP"]},
        attrs={"pixel_size_um": {"y": 0.1, "x": 0.12}},
    )


@pytest.fixture(scope="module")
def files(image: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("web")
    for name, version, shards in (
        ("v0.4", "0.4", None),
        ("v0.5", "0.5", None),
        ("sharded", "0.5", (1, 384, 640)),
    ):
        with create_image(
            root / f"{name}.ome.zarr",
            axes="cyx",
            shape=SHAPE,
            dtype=image.dtype,
            pixel_size_um=image.attrs["pixel_size_um"],
            channel_names=["DAPI", "GFP"],
            chunks=(1, 128, 128),
            shards=shards,
            ome_zarr_version=version,
        ) as writer:
            writer.write({}, image.values)
    return {f"/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def site(files: dict[str, bytes]) -> Iterator[Site]:
    with serving(files) as state:
        yield state


def chunks_asked(site: Site) -> list[str]:
    return [path for path, _ in site.asked if "/." not in path and not path.endswith("zarr.json")]


@pytest.mark.parametrize("name", ["v0.4", "v0.5", "sharded"])
def test_it_is_what_it_is_on_the_disk_and_only_what_is_needed_is_fetched(
    site: Site, image: xr.DataArray, name: str
) -> None:
    address = site.at(f"/{name}.ome.zarr")
    opened = open_image(address)
    assert chunks_asked(site) == []
    assert list(opened["channel"].values) == ["DAPI", "GFP"]
    assert opened.attrs == {"source": address, "pixel_size_um": {"y": 0.1, "x": 0.12}}
    region = {"channel": 1, "y": slice(130, 140), "x": slice(140, 150)}
    np.testing.assert_array_equal(opened.isel(region).values, image.isel(region).values)
    assert len(set(chunks_asked(site))) == 1
    if name == "sharded":  # of which the index and one chunk are asked for
        assert all(wanted for path, wanted in site.asked if path in chunks_asked(site))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).values, image.values)
    assert open_image(f"{address}/0").attrs["pixel_size_um"] == {"y": 0.1, "x": 0.12}
    assert open_image(address, channels=["GFP"]).shape == (1, *SHAPE[1:])


def test_a_server_that_is_busy_or_breaks_off_is_asked_again(site: Site, image: xr.DataArray) -> None:
    opened = open_image(site.at("/v0.5.ome.zarr"))
    site.busy = 1
    np.testing.assert_array_equal(opened[0, :10, :10].values, image[0, :10, :10].values)
    assert site.busy == 0
    store = WebStore(Address(site.at("/v0.5.ome.zarr")), pauses_s=(0.0, 0.0))
    array = zarr.open_array(store, path="0", mode="r")
    site.busy = 2
    np.testing.assert_array_equal(array[0, :10, :10], image[0, :10, :10].values)
    site.cut_after = 100
    np.testing.assert_array_equal(array[1, :10, :10], image[1, :10, :10].values)
    site.busy = 3
    with pytest.raises(
        ImageError, match=r"/0/c/0/0/0: could not be fetched in 3 attempts: the server answers 503"
    ):
        array[0, :10, :10]


def test_a_chunk_that_is_cut_short_on_the_server_is_found(site: Site) -> None:
    for path, content in site.files.items():
        if path.startswith("/v0.4.ome.zarr/0/0"):
            site.files[path] = content[:-7]
    with pytest.raises(ImageError, match=r"v0\.4\.ome\.zarr/0/0/0/0: this chunk is damaged or cut short"):
        open_image(site.at("/v0.4.ome.zarr"))[0, :10, :10].load()


def test_what_is_not_there_or_no_image_is_said_with_its_address(site: Site) -> None:
    with pytest.raises(ImageError, match=r"/none\.zarr: there is no zarr .* or the server does not show it"):
        open_image(site.at("/none.zarr"))
    del site.files["/v0.5.ome.zarr/0/zarr.json"]
    with pytest.raises(ImageError, match=r"/v0\.5\.ome\.zarr/0: there is no zarr"):
        open_image(site.at("/v0.5.ome.zarr"))
    site.files["/page/zarr.json"] = b"<html>"
    with pytest.raises(ImageError, match="/page: cannot be read"):
        open_image(site.at("/page"))
    site.files["/group/.zgroup"] = b'{"zarr_format": 2}'
    with pytest.raises(
        ImageError, match=r"/group: is a zarr group without image metadata .* a web server does not list"
    ):
        open_image(site.at("/group"))


def test_only_https_is_read_also_where_the_server_leads(site: Site) -> None:
    for address in ("http://example.com/a.zarr", "s3://bucket/a.zarr", "ftp://example.com/a.zarr"):
        with pytest.raises(ImageError, match="only https addresses are read"):
            open_image(address)
    with pytest.raises(ImageError, match="has a query or a fragment"):
        open_image("https://example.com/a.zarr?token=1")
    site.redirects["/moved/zarr.json"] = "http://example.com/a.zarr/zarr.json"
    with pytest.raises(
        ImageError, match=r"http://example\.com/a\.zarr/zarr\.json: the server redirects to this address"
    ):
        open_image(site.at("/moved"))


def test_without_a_network_the_error_says_so(files: dict[str, bytes]) -> None:
    with serving(files) as gone:
        address = gone.at("/v0.5.ome.zarr")
    with pytest.raises(
        ImageError, match=r"could not be fetched in 1 attempts: ConnectError.*check the network"
    ):
        zarr.open_array(WebStore(Address(address), pauses_s=()), path="0", mode="r")
    with pytest.raises(ImageError, match=r"could not be fetched in 3 attempts: ConnectError"):
        open_image(address)


def test_its_state_changes_with_its_metadata_and_with_what_the_server_says_of_them(site: Site) -> None:
    address = Address(site.at("/v0.4.ome.zarr"))
    first = web_state(address)
    assert web_state(address) == first
    site.etag = '"two"'
    second = web_state(address)
    site.files["/v0.4.ome.zarr/0/.zarray"] += b" "
    assert len({first, second, web_state(address)}) == 3


def test_an_address_is_like_a_path() -> None:
    address = as_place("https://example.com/plate.ome.zarr/A/1/0/")
    assert isinstance(address, Address)
    assert (
        str(pickle.loads(pickle.dumps(address)) / "labels")
        == "https://example.com/plate.ome.zarr/A/1/0/labels"
    )
    assert str(address.parent.parent.parent) == "https://example.com/plate.ome.zarr"
    assert isinstance(as_place("a/b.zarr"), Path)


def test_an_answer_without_end_is_refused(site: Site) -> None:
    store = WebStore(Address(site.at("/v0.5.ome.zarr")), most_bytes=100)
    with pytest.raises(ImageError, match=r"larger than any chunk of an image \(100 bytes\)"):
        zarr.open_array(store, path="0", mode="r")
