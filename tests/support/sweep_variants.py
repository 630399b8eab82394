"""Commands whose kills lose nothing (see `crash_sweep`): predictions of every kind, on an image of a few tiles."""

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from crash_sweep import Snapshot, Variant, run_once, state_of_image
from groupings_for_tests import maps_package, with_grouping
from operations_for_tests import NORMALISE_2D, SIGMOID
from packages_for_tests import build_package, small_unet

import im2im_zoo.cli.app
import im2im_zoo.objects
import im2im_zoo.package
import im2im_zoo.runtime
from im2im_zoo.cli import main
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.execute import ledger
from im2im_zoo.runtime.measure.select_engine import open_network
from im2im_zoo.runtime.plan.memory import Cost
from im2im_zoo.runtime.predictor import Model


class Assets:
    """Packages and images that all variants share; their networks are open before the first fork."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = build_package(
            folder / "plain", small_unet(levels=2), preprocessing=[NORMALISE_2D], postprocessing=[SIGMOID]
        )
        self.grouped = with_grouping(maps_package(folder / "maps")).root
        self.scaled = with_grouping(maps_package(folder / "scaled", pixel_size_um=0.5)).root
        stretch = spec.ScaleRangeDescr(
            kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], max_percentile=100)
        )
        self.stretched = build_package(
            folder / "stretched",
            small_unet(levels=2),
            preprocessing=[NORMALISE_2D],
            postprocessing=[SIGMOID, stretch],
        )
        self.image = self._image("image", 1)
        self.other = self._image("other", 2)
        self.coarse = self._image("coarse", 1, pixel_size_um=0.8, shape=(40, 44))
        self.wide = self._image("wide", 1, shape=(48, 300))
        self.movie = self._movie()
        roots = (self.plain, self.grouped, self.scaled, self.stretched)
        self.packages = {str(root): open_package(root) for root in roots}
        self.models = {
            root: Model(
                p, engine=open_network(p, weights="torchscript", threads=1).engine, cost=Cost(0, 0, 10.0)
            )
            for root, p in self.packages.items()
        }
        self._settle()

    def _movie(self) -> Path:
        frames = [open_image(path) for path in (self.image, self.other)]
        return write_image(xr.concat(frames, dim="time"), self.folder / "movie.ome.zarr")

    def _image(
        self, name: str, seed: int, pixel_size_um: float = 0.5, shape: tuple[int, int] = (64, 72)
    ) -> Path:
        voxels = np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)
        image = xr.DataArray(
            voxels, dims=("y", "x"), attrs={"pixel_size_um": {"y": pixel_size_um, "x": pixel_size_um}}
        )
        return write_image(image, self.folder / f"{name}.ome.zarr")

    def _settle(self) -> None:
        """Commands use the open models, and every record is written at once, so that there is most to lose."""

        open_other = im2im_zoo.package.open_package

        @contextmanager
        def opened(source: str | Path, **options: Any) -> Any:
            if str(source) in self.packages:
                yield self.packages[str(source)]
                return
            with open_other(source, **options) as package:
                yield package

        def model(package: Package, allow_code: bool = False) -> Model:
            return self.models.get(str(package.root)) or Model(package, allow_code)

        im2im_zoo.package.open_package = opened  # type: ignore[assignment]
        im2im_zoo.runtime.Model = model
        ledger._INTERVAL, ledger._PART = 0.0, 1e9


def im2im_zoo_command(*arguments: object) -> None:
    """The command line, in this process."""
    sys.argv = ["im2im-zoo", *map(str, arguments)]
    main()


def predictions(assets: Assets) -> dict[str, Variant]:
    """The variants of `im2im-zoo predict`, by name."""
    make = partial(_prediction, assets)
    plain, grouped, scaled = assets.plain, assets.grouped, assets.scaled
    found = [
        make("zarr-0.5", plain, "out.ome.zarr"),
        make("zarr-0.4", plain, "out.ome.zarr", "--ome-zarr", "0.4"),
        make("zarr-sharded", plain, "out.ome.zarr", "--shards"),
        make("pyramid", plain, "out.ome.zarr", image=assets.wide, tile="y=48,x=160"),
        make("pyramid-0.4", plain, "out.ome.zarr", "--ome-zarr", "0.4", image=assets.wide, tile="y=48,x=160"),
        make("stretched", assets.stretched, "out.ome.zarr"),
        make("stretched-tiff", assets.stretched, "out.tif"),
        make("tiff", plain, "out.ome.tif"),
        make("npy", plain, "out.npy"),
        make("blended", plain, "out.ome.zarr", "--blend", tile="64"),
        make("overwrite-zarr", plain, "out.ome.zarr", "--overwrite", older=assets.other),
        make("overwrite-damaged", plain, "out.ome.zarr", "--overwrite", older=assets.image, spoil=_lose_chunk),
        make("overwrite-tiff", plain, "out.tif", "--overwrite", older=assets.other),
        make("overwrite-npy", plain, "out.npy", "--overwrite", older=assets.other),
        make("labels", grouped, "out.ome.zarr"),
        make("labels-movie", grouped, "out.ome.zarr", image=assets.movie),
        make("labels-pyramid", grouped, "out.ome.zarr", image=assets.wide, tile="y=48,x=160"),
        make("labels-0.4", grouped, "out.ome.zarr", "--ome-zarr", "0.4"),
        make("labels-tiff", grouped, "out.tif"),
        make("labels-npy", grouped, "out.npy"),
        make("overwrite-labels", grouped, "out.ome.zarr", "--overwrite", older=assets.other),
        make("objects", grouped, "out.ome.zarr", objects=("objects.csv", "objects.geojson")),
        make("objects-tiff", grouped, "out.tif", objects=("objects.csv",)),
        make("objects-npy", grouped, "out.npy", objects=("objects.csv",)),
        make(
            "overwrite-objects", grouped, "out.ome.zarr", "--overwrite", objects=("objects.csv",), older=assets.other
        ),
        make("labels-within", grouped, "in.ome.zarr/labels/cells", within=True),
        make("overwrite-within", grouped, "in.ome.zarr/labels/cells", "--overwrite", within=True, older=assets.other),
        make("maps-resampled", scaled, "out.ome.zarr", "--rescale", "--no-grouping", image=assets.coarse),
        make("labels-resampled", scaled, "out.ome.zarr", "--rescale", image=assets.coarse),
        make("labels-resampled-tiff", scaled, "out.tif", "--rescale", image=assets.coarse),
        make(
            "overwrite-resampled", scaled, "out.ome.zarr", "--rescale", "--overwrite", image=assets.coarse,
            older=assets.other,
        ),
    ]  # fmt: skip
    return {variant.name: variant for variant in found}


def _prediction(
    assets: Assets,
    name: str,
    package: Path,
    output: str,
    *options: str,
    image: Path | None = None,
    objects: Sequence[str] = (),
    older: Path | None = None,
    spoil: Callable[[Path], None] = lambda path: None,
    within: bool = False,
    tile: str = "40",
) -> Variant:
    source = image or assets.image

    def command(folder: Path, image: Path = source) -> None:
        tables = [w for table in objects for w in ("--objects", folder / table)]
        given = folder / "in.ome.zarr" if within else image
        im2im_zoo_command(
            "predict", package, given, folder / output, "--tile", tile, "--halo", "8", "--threads", "1",
            "--weights", "torchscript", *options, *tables,
        )  # fmt: skip

    kept = assets.folder / f"older-{name}"

    def prepare(folder: Path) -> None:
        if within:
            shutil.copytree(source, folder / "in.ome.zarr")
        if older is not None:
            if not kept.exists():
                _predict_older(kept, older)
            shutil.copytree(kept, folder, dirs_exist_ok=True)

    def _predict_older(folder: Path, older: Path) -> None:
        work = folder.with_name(f"{folder.name}-work")
        work.mkdir()
        if within:
            shutil.copytree(older, work / "in.ome.zarr")
        ended = run_once(lambda: command(work, older), work)
        assert ended.code == 0, ended.text
        spoil(work / output)
        if within:
            shutil.copytree(work / "in.ome.zarr" / "labels", folder / "in.ome.zarr" / "labels")
        else:
            work.rename(folder)

    def results(folder: Path) -> dict[str, Snapshot]:
        path = folder / output
        found: dict[str, Snapshot] = {output: state_of_image(path)} if path.exists() else {}
        return found | {t: {"": (folder / t).read_bytes()} for t in objects if (folder / t).exists()}

    def whole(folder: Path) -> dict[str, Snapshot]:
        within_image = {"in.ome.zarr": state_of_image(folder / "in.ome.zarr")} if within else {}
        return results(folder) | within_image

    refuses = "does not state the command" if output.endswith(".npy") else None
    return Variant(name, prepare, command, results, whole, refuses)


def _lose_chunk(path: Path) -> None:
    chunk, *_ = sorted(p for p in (path / "0").rglob("*") if p.is_file() and p.suffix != ".json")
    chunk.unlink()
