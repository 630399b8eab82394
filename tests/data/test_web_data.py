"""Training images on the web, from a real server on this machine: listed by their addresses, and fetched once into a cache."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from site_for_tests import Site, serving

from im2im_zoo.core.errors import DataError, ImageError
from im2im_zoo.data import find_pairs, hash_pairs
from im2im_zoo.data.check.examine import examine
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.recipe import Recipe

NAMES = "abcd"
OF_IMAGE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]


@pytest.fixture
def root(tmp_path: Path, tiles: list[Any], write_ome_zarr: Callable[..., Path]) -> Path:
    for name, (image, labels) in zip(NAMES, tiles[:4], strict=True):
        write_ome_zarr(tmp_path / "set" / "images" / f"{name}.ome.zarr", image, "yx")
        write_ome_zarr(tmp_path / "set" / "targets" / f"{name}.ome.zarr", labels, "yx")
    return tmp_path / "set"


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    files = {f"/{p.relative_to(root).as_posix()}": p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with serving(files) as state:
        yield state


@pytest.fixture
def table(site: Site, tmp_path: Path) -> Path:
    lines = [f"{site.at(f'/images/{n}.ome.zarr')},{site.at(f'/targets/{n}.ome.zarr')}" for n in NAMES]
    (tmp_path / "table.csv").write_text("\n".join(["input,target", *lines]))
    return tmp_path / "table.csv"


def epoch(recipe: Recipe) -> torch.Tensor:
    data = ImagePairs(recipe)
    data.setup("fit")
    found = torch.cat([torch.stack([b["input"], b["target"]]) for b in data.train_dataloader()], 1)
    data.teardown("fit")
    return found


def test_patches_are_those_of_the_same_files_on_the_disk_and_the_cache_fetches_each_chunk_once(
    root: Path, table: Path, site: Site, recipe_for: Callable[..., Recipe], tmp_path: Path
) -> None:
    options = {"preprocessing": OF_IMAGE, "patches_per_image": 3}
    web = recipe_for(table, pairing="csv", cache=str(tmp_path / "cache"), **options)
    expected = epoch(recipe_for(root, **options))
    assert torch.equal(epoch(web), expected)
    site.asked.clear()
    assert torch.equal(epoch(web), expected)
    assert not [path for path, _ in site.asked if "/c/" in path]
    lazy = recipe_for(table, pairing="csv", cache="none", workers=1, **options)
    assert torch.equal(epoch(lazy), expected)


def test_a_recipe_can_list_addresses_itself(
    site: Site, root: Path, recipe_for: Callable[..., Recipe]
) -> None:
    rows = [{"input": site.at(f"/images/{n}.ome.zarr"), "target": f"targets/{n}.ome.zarr"} for n in NAMES]
    recipe = recipe_for(root, pairing="csv", pairs=rows)
    pairs = find_pairs(recipe.data, 0)
    assert sorted(p.name for p in (*pairs.train, *pairs.validation)) == list(NAMES)
    before = hash_pairs(pairs)
    site.etag = '"changed"'
    assert hash_pairs(pairs) != before
    assert examine(recipe).is_sound


def test_fields_of_a_well_on_the_web_are_not_parted(root: Path, recipe_for: Callable[..., Recipe]) -> None:
    plate = "https://example.com/plate.ome.zarr"
    rows = [
        {"input": f"{plate}/{well}/{field}", "target": f"{plate}/{well}/{field}/labels/cells"}
        for well in ("A/1", "B/2", "C/3")
        for field in range(3)
    ]
    pairs = find_pairs(recipe_for(root, pairing="csv", pairs=rows).data, 0)
    [well] = {p.name.rpartition("-")[0] for p in pairs.validation}
    assert well in ("plate-A-1", "plate-B-2", "plate-C-3")
    assert len(pairs.validation) == 3


def test_what_is_wrong_with_an_address_is_said_with_its_row(
    site: Site, table: Path, recipe_for: Callable[..., Recipe], root: Path
) -> None:
    table.write_text(table.read_text().replace("/images/b.ome.zarr", "/images/none.ome.zarr"))
    recipe = recipe_for(table, pairing="csv")
    with pytest.raises(ImageError, match=r"/images/none\.ome\.zarr: there is no zarr"):
        hash_pairs(find_pairs(recipe.data, 0))
    [wrong] = [f for f in examine(recipe).findings if f.severity == "error"]
    assert wrong.files == (site.at("/images/none.ome.zarr"),)
    rows = [{"input": "http://example.com/a.ome.zarr", "target": "targets/a.ome.zarr"}]
    with pytest.raises(DataError, match=r"data\.pairs, row 0: http://example\.com.*only https"):
        find_pairs(recipe_for(root, pairing="csv", pairs=rows).data, 0)


def test_a_prediction_reads_an_address_and_knows_it_again(site: Site) -> None:
    from im2im_zoo.images import open_image
    from im2im_zoo.runtime.execute.fingerprint import image_fingerprint

    image = open_image(site.at("/images/a.ome.zarr"))
    first = image_fingerprint(image)
    assert first["path"] == site.at("/images/a.ome.zarr")
    assert image_fingerprint(image) == first
    site.etag = '"two"'
    assert image_fingerprint(image) != first
