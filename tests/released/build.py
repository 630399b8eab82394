"""Make the files of a released version that later versions have to keep running: packages, a recipe, and a finished run.

    python tests/released/build.py

It is run once, with the code of the version, before that version is released, and writes `tests/released/VERSION/`:

    semantic, embedseg, watershed, macenko    `package/`, an image, and what the package gives of it
    training/data                             a few image pairs
    training/recipe.yaml                      names much of im2im_zoo by the dotted paths of the version
    training/run                              what it trained: the parts of a run folder that resuming and exporting need
    made_with.json                            the versions that made it

`names.txt` is written by hand: each class and function of the version that a recipe may name.

Files of an earlier version are never made again: they are what its users have.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import xarray as xr
import yaml
from numpy.typing import NDArray
from PIL import Image
from skimage.data import immunohistochemistry

from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.resources import fetch_sample_image
from im2im_zoo.package import open_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime import predict_arrays
from im2im_zoo.training.run import open_run
from im2im_zoo.training.train import train
from im2im_zoo.workflows.export_run import export_run

HERE = Path(__file__).parent
VERSION = metadata.version("im2im_zoo")

SCALE = [
    {
        "id": "scale_range",
        "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": 1, "max_percentile": 99.8},
    },
    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
]
ADAM = {"callable": "torch.optim.AdamW", "call": False, "kwargs": {"lr": 1e-2}}
# The labels have to be the same on another processor, which rounds otherwise: maps differ by less than this there.
ROUNDING = 2e-6


def component(path: str, **kwargs: Any) -> dict[str, Any]:
    return {"callable": path, "kwargs": kwargs}


def unet(channels: int, out_channels: int) -> dict[str, Any]:
    widths = {"channels": [4, 8], "strides": [2], "norm": "batch"}
    return component(
        "monai.networks.nets.UNet", spatial_dims=2, in_channels=channels, out_channels=out_channels, **widths
    )


def recipe(
    name: str, framework: dict[str, Any], network: dict[str, Any], output: dict[str, Any], **more: Any
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": name,
        "framework": framework,
        "network": network,
        "data": {"path": "data", "pairing": "folders", "split": "folders", "patch_size": [48, 48]},
        "input": {"id": "image", "axes": ["batch", "channel", "y", "x"], "preprocessing": SCALE},
        "output": output,
        "trainer": {"max_epochs": 12},
        "package": {
            "description": "A tiny model that shows what an earlier version has written.",
            "authors": [{"name": "The im2im_zoo developers"}],
            "cite": [{"text": "None", "doi": "10.1234/none"}],
            "training_data": "Images that come with StarDist and scikit-image.",
        },
    }
    content["data"] |= {"patches_per_image": 32, "batch_size": 8, "workers": 0}
    for key, value in more.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    return content


BINARY = {"preprocessing": [{"id": "binarize", "kwargs": {"threshold": 0.5}}, SCALE[1]]}
SEMANTIC = recipe(
    "Released semantic",
    component(
        "im2im_zoo.frameworks.fcn.FCN",
        loss=component(
            "im2im_zoo.losses.weighted.Weighted",
            loss=component("torch.nn.BCEWithLogitsLoss", reduction="none"),
        ),
        metrics={"dice": component("im2im_zoo.frameworks.metrics.Dice")},
        optimizer=ADAM,
    ),
    component("im2im_zoo.networks.blur_pool_unet.BlurPoolUNet", depth=1, features=4),
    {"id": "probability", "task": "semantic", "postprocessing": [{"id": "sigmoid"}]},
    target=BINARY,
    monitor="val_dice",
    monitor_mode="max",
)
EMBEDSEG = recipe(
    "Released embedseg",
    component("im2im_zoo.frameworks.embedseg.EmbedSeg", voxel_size=[1, 1], grid=24, sigma=4, optimizer=ADAM),
    unet(1, 5),
    {
        "id": "maps",
        "task": "instance",
        "grouping": component(
            "im2im_zoo.grouping.embedseg.group", seed_threshold=0.5, foreground_threshold=0.3, min_size=12
        ),
    },
)
WATERSHED = recipe(
    "Released watershed",
    component(
        "im2im_zoo.frameworks.instance_maps.InstanceMaps", maps=["distance", "boundary"], reach=5, optimizer=ADAM
    ),
    unet(1, 2),
    {
        "id": "maps",
        "task": "instance",
        "postprocessing": [{"id": "sigmoid"}],
        "grouping": component(
            "im2im_zoo.grouping.watershed.group",
            channel=0, seed_threshold=0.85, foreground_threshold=0.15, boundary=1, min_size=12,
        ),
    },
)  # fmt: skip
MACENKO = recipe(
    "Released macenko",
    component(
        "im2im_zoo.frameworks.fcn.FCN",
        loss=component("torch.nn.L1Loss"),
        metrics={"pearson": component("im2im_zoo.frameworks.metrics.Pearson")},
        optimizer=ADAM,
    ),
    unet(3, 1),
    {"id": "blue", "task": "regression"},
    input={
        "channels": ["red", "green", "blue"],
        "preprocessing": [
            {
                "id": "custom",
                "callable": "macenko",
                "source": "im2im_zoo/macenko.py",
                "kwargs": {"axes": "cyx"},
            },
            {"id": "scale_linear", "kwargs": {"gain": 0.0078125, "offset": -1.0}},
            SCALE[1],
        ],
    },
    target={
        "preprocessing": [{"id": "scale_linear", "kwargs": {"gain": 0.0078125, "offset": -1.0}}, SCALE[1]]
    },
)
# The run that is resumed: what a checkpoint can hold of a framework, schedules, callbacks and the data.
TRAINING = recipe(
    "Released training",
    component(
        "im2im_zoo.frameworks.fcn.FCN",
        loss=component("im2im_zoo.losses.dice.SoftDice", sigmoid=True),
        metrics={
            "dice": component("im2im_zoo.frameworks.metrics.Dice"),
            "pearson": component("im2im_zoo.frameworks.metrics.Pearson"),
        },
        optimizer=ADAM,
        scheduler={"callable": "torch.optim.lr_scheduler.ReduceLROnPlateau", "call": False, "kwargs": {"patience": 1}},
    ),
    component("im2im_zoo.networks.blur_pool_unet.BlurPoolUNet", depth=1, features=4),
    {"id": "probability", "task": "semantic", "postprocessing": [{"id": "sigmoid"}]},
    data={"patches_per_image": 4, "batch_size": 4, "patch_size": [32, 32], "hard_patches": 0.5},
    target=BINARY,
    trainer={"max_epochs": 2},
    monitor="val_dice",
    monitor_mode="max",
)  # fmt: skip
FORMATS = {
    "semantic": ["pytorch_state_dict", "torchscript", "onnx"],
    "embedseg": ["torchscript", "onnx"],
    "watershed": ["torchscript"],
    "macenko": ["torchscript"],
}


def nuclei(size: int) -> Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Pairs of images and labels, (y, x) of `size`."""
    image, labels = (tifffile.imread(fetch_sample_image(name)) for name in ("img2d.tif", "mask2d.tif"))
    image = (255 * np.clip(image / np.percentile(image, 99.9), 0, 1)).astype(np.uint8)
    parts = [
        (
            np.ascontiguousarray(image[y : y + size, x : x + size]),
            labels[y : y + size, x : x + size].astype("uint16"),
        )
        for y, x in ((0, 0), (0, 256), (310, 305), (256, 0))
    ]
    return {"train": parts[:3], "val": [(image[:48, :48], target[:48, :48]) for image, target in parts[3:]]}


def tissue(size: int) -> Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]:
    """Pairs of stained tissue, (y, x, 3), and its blue."""
    image = immunohistochemistry()
    parts = [image[y : y + size, x : x + size] for y, x in ((60, 40), (60, 240), (240, 40), (260, 260))]
    pairs = [(np.ascontiguousarray(part), np.ascontiguousarray(part[..., 2])) for part in parts]
    return {"train": pairs[:3], "val": [(image[:48, :48], target[:48, :48]) for image, target in pairs[3:]]}


def write_data(folder: Path, pairs: Mapping[str, list[tuple[NDArray[Any], NDArray[Any]]]]) -> None:
    """Image files in folders, as `pairing: folders` has them."""
    for part, images in pairs.items():
        for number, pair in enumerate(images):
            for kind, array in zip(("images", "targets"), pair, strict=True):
                path = folder / part / kind / f"{number}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                axes = {"axes": "YXS"} if array.ndim == 3 else {"axes": "YX"}
                tifffile.imwrite(path, array, compression="zlib", metadata=axes)


def trained(content: dict[str, Any], work: Path) -> Path:
    """Train a recipe beside its data, and return the run folder."""
    (work / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=110), encoding="utf-8")
    loaded = load_recipe(work / "recipe.yaml", [("data.path", str(work / "data"))])
    return train(loaded, work / "run").path


def check_steady(package: Path, maps: NDArray[np.float32], labels: NDArray[Any]) -> None:
    """Refuse labels that depend on how a processor rounds: then another image has to be taken."""
    with open_package(package) as opened:
        function = opened.grouping.load(opened.root, allow_code=False)  # type: ignore[union-attr]
    random = np.random.default_rng(0)
    for _ in range(200):
        noise = random.uniform(-ROUNDING, ROUNDING, maps.shape).astype(np.float32)
        if not np.array_equal(function(maps + noise), labels):
            raise SystemExit(f"{package}: the labels hang on how the maps are rounded")


def make_pictures_small(package: Path) -> None:
    """Pictures of few colours; the RDF has their hashes."""
    rdf = (package / "rdf.yaml").read_text(encoding="utf-8")
    for path in package.glob("*.png"):
        before = sha256(path)
        image = Image.open(path).convert("RGB")
        image.resize((image.width // 2, image.height // 2)).quantize(16).save(path, optimize=True)
        rdf = rdf.replace(before, sha256(path))
    (package / "rdf.yaml").write_text(rdf, encoding="utf-8")


def build_package(name: str, content: dict[str, Any], folder: Path) -> None:
    """Train, export, and write what the package gives of an image."""
    with tempfile.TemporaryDirectory(prefix="released_") as temporary:
        work = Path(temporary)
        pairs = tissue(96) if name == "macenko" else nuclei(96)
        write_data(work / "data", pairs)
        export_run(open_run(trained(content, work)), folder / "package", weights=FORMATS[name])
    make_pictures_small(folder / "package")
    image = (tissue(96) if name == "macenko" else nuclei(96))["train"][-1][0][:64, 4:80]
    image = image.transpose(2, 0, 1) if image.ndim == 3 else image
    np.save(folder / "image.npy", np.ascontiguousarray(image))
    with open_package(folder / "package") as package:
        axes = ("channel", "y", "x")[-image.ndim :]
        results = predict_arrays(package, xr.DataArray(image, dims=axes), whole=True)
    maps = results[content["output"]["id"]].to_numpy().astype(np.float32)
    np.save(folder / "maps.npy", maps)
    if "instances" in results:
        labels = results["instances"].to_numpy()
        check_steady(folder / "package", maps, labels)
        np.save(folder / "labels.npy", labels.astype(np.uint8))
        if labels.max() < 5:
            raise SystemExit(f"{name}: {labels.max()} objects show too little: take another image")


def build_training(folder: Path) -> None:
    """A recipe, its data, and a run of two epochs, without what only people look at."""
    with tempfile.TemporaryDirectory(prefix="released_") as temporary:
        work = Path(temporary)
        write_data(work / "data", nuclei(64))
        run = trained(TRAINING, work)
        # Where the run was is of no interest, and pictures and curves take room.
        text = (run / "recipe.yaml").read_text(encoding="utf-8").replace(str(work / "data"), "data")
        (run / "recipe.yaml").write_text(text, encoding="utf-8")
        for name in ("tensorboard", "pictures", "environment.txt"):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copytree(work, folder)


def main() -> None:
    folder = HERE / VERSION
    folder.mkdir()
    for name, content in (
        ("semantic", SEMANTIC),
        ("embedseg", EMBEDSEG),
        ("watershed", WATERSHED),
        ("macenko", MACENKO),
    ):
        (folder / name).mkdir()
        build_package(name, content, folder / name)
    build_training(folder / "training")
    names = ("im2im_zoo", "torch", "numpy", "monai", "onnxruntime", "bioimageio.spec", "bioimageio.core")
    versions = {name: metadata.version(name) for name in names}
    (folder / "made_with.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
