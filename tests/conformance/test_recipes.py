"""Every recipe, and every framework in 2D and 3D, the whole way through the command line: train, resume, export, validate,
predict, evaluate."""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import command, in_a_process, verdicts_of_core
from program_agreement import PROGRAMS, check_agreement

from im2im_zoo.cli.train import parse_overrides
from im2im_zoo.images import open_image
from im2im_zoo.package import open_package
from im2im_zoo.packaging.try_page import TRY_PAGE
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import find_recipe, load_recipe, recipe_names
from im2im_zoo.runtime import open_network, predict_array
from im2im_zoo.training.run import open_run
from im2im_zoo.training.train import train

pytestmark = pytest.mark.slow
FORMATS = ("onnx", "torchscript", "pytorch_state_dict")


@dataclass(frozen=True)
class Case:
    """A recipe, the sample images that it is run on, and what is changed of it."""

    recipe: str
    samples: str
    changes: tuple[str, ...] = ()


# Narrower networks learn and are packaged in the same way, and a mean of few evaluations is as much of a mean.
_FNET = ("--network.kwargs.features=6",)
_UNET = ("--network.kwargs.channels=[8, 12, 16]",)
_ANISOTROPIC = ("--network.kwargs.features=[6, 8, 12]",)
_BASIC = ("--network.kwargs.features=[8, 12, 16, 16, 16, 8]",)
NARROW = {
    "denoising_3d": _UNET,
    "denoising_self2self_2d": ("--network.kwargs.passes=3",),
    "labelfree_2d": _BASIC,
    "labelfree_2d_diffusion": ("--network.kwargs.samples=2", "--network.kwargs.features=[6, 12, 24]"),
    "labelfree_3d": _FNET,
    "labelfree_3d_cyclegan": _FNET,
    "labelfree_3d_pix2pix": _FNET,
    "modality_transfer_3d": _FNET,
    "nuclei_3d": _UNET,
    "nuclei_instances_2d": _BASIC,
    "nuclei_instances_3d": _ANISOTROPIC,
    "organelles_instances_3d": _ANISOTROPIC,
    "organelles_semantic_3d": _ANISOTROPIC,
    "segmentation_2d_probabilistic": ("--network.kwargs.samples=4",),
    "synthesis_2d": _BASIC,
    "synthesis_3d": _FNET,
    "unsupervised_segmentation_3d": _UNET,
    "worms_2d": _BASIC,
}
IN_3D = (
    "--network.kwargs.spatial_dims=3",
    "--data.patch_size=[16, 16, 16]",
    "--data.augmentations=[]",
    "--input.axes=[batch, channel, z, y, x]",
)
# Frameworks whose recipe is 2D, on volumes.
ONLY_IN_2D = {
    "diffusion_3d": Case(
        "labelfree_2d_diffusion",
        "labelfree_3d",
        (
            *IN_3D,
            "--network.kwargs.in_channels=1",
            "--network.kwargs.features=[4, 8]",
            "--network.kwargs.samples=2",
            "--network.kwargs.steps=1",
            "--network.kwargs.period=8",
            "--input.preprocessing.0.kwargs.axes=[z, y, x]",
            "--target.preprocessing.0.kwargs.axes=[z, y, x]",
        ),
    ),
    "pix2pixhd_3d": Case(
        "stain_transfer_2d",
        "modality_transfer_3d",
        (
            *IN_3D,
            "--framework.kwargs.discriminator.kwargs.discriminator.kwargs.num_layers_d=1",
            # The recipe's network sees further than small volumes are large.
            "--network.callable=im2im_zoo.networks.fnet.FNet",
            "--network.kwargs={spatial_dims: 3, in_channels: 1, out_channels: 1, depth: 2, features: 4}",
            "--input.channels=null",
            "--input.preprocessing.0.kwargs.gain=1e-3",
            "--target.preprocessing.0.kwargs.gain=1e-3",
            "--output.channels=null",
        ),
    ),
    "probabilistic_3d": Case(
        "segmentation_2d_probabilistic",
        "nuclei_3d",
        (
            *IN_3D,
            "--network.kwargs.depth=2",
            "--network.kwargs.features=4",
            "--network.kwargs.samples=4",
            "--input.preprocessing.0.kwargs.axes=[channel, z, y, x]",
        ),
    ),
    "self2self_3d": Case(
        "denoising_self2self_2d",
        "denoising_n2v_3d",
        (
            *IN_3D,
            "--network.kwargs.depth=2",
            "--network.kwargs.passes=3",
            "--network.kwargs.period=8",
        ),
    ),
}
CASES = {name: Case(name, name, NARROW.get(name, ())) for name in sorted(recipe_names())} | ONLY_IN_2D
# Generator and discriminator learn against each other: what falls is the part of the generator's loss that has a target.
# pix2pixHD has none, as its features change with the discriminators: its error is taken of the held-out patches.
FALLING = {
    "train_reconstruction": "train_reconstruction",
    "train_cycle": "train_cycle",
    "train_features": "val_loss",
}


def avoidable(messages: Iterable[str]) -> list[str]:
    """The warnings but the one that only a person with a GitHub account can avoid."""
    return [m for m in messages if "maintainers" not in m]


@dataclass(frozen=True)
class Made:
    """What the commands made of one case."""

    case: Case
    images: Path
    run: Path
    package: Path

    @property
    def recipe(self) -> Recipe:
        """As it was trained."""
        return open_run(self.run).recipe


@pytest.fixture(scope="module", params=list(CASES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    made = Made(case, folder / "images", folder / "run", folder / "package")
    command("samples", case.samples, "--output", made.images)
    short = ("--data.patches_per_image=8", "--data.batch_size=4", "--trainer.limit_val_batches=2")
    trained = (
        "train",
        case.recipe,
        f"--data.path={made.images}",
        *case.changes,
        *short,
        "--output",
        made.run,
    )
    command(*trained, "--trainer.max_epochs=1")
    command(*trained, "--trainer.max_epochs=2", "--resume")
    command("export", made.run, "--output", made.package, "--zip", folder / "package.zip")
    return made


def test_a_resumed_run_is_complete(made: Made) -> None:
    run = open_run(made.run)
    assert run.provenance["state"] == "complete"
    assert [row["epoch"] for row in run.metrics] == [0, 1]


def test_every_format_is_in_the_package_and_sound(made: Made) -> None:
    with open_package(made.package) as package:
        assert package.weights == FORMATS
    # Only what is in the folder can be in the zip, and `export` leaves no folder that is not sound.
    zipped = made.package.with_suffix(".zip")
    with zipfile.ZipFile(zipped) as archive:
        assert {n: archive.read(n) for n in archive.namelist()} == {
            str(f.relative_to(made.package)): f.read_bytes()
            for f in made.package.rglob("*")
            if f.is_file() and f.name != TRY_PAGE
        }
    report = json.loads(command("validate", zipped, "--allow-code", "--no-core", "--json").stdout)
    assert report["sound"]
    found = [f for f in report["findings"] if f["severity"] != "info" and f["code"] != "maintainers"]
    assert not found


def test_bioimageio_core_finds_nothing_wrong(made: Made) -> None:
    for weights, (status, warnings) in verdicts_of_core(made.package / "rdf.yaml", FORMATS).items():
        assert status == "passed", weights
        assert not avoidable(warnings), weights


def test_the_table_of_programs_says_what_their_rules_give(made: Made) -> None:
    for program in PROGRAMS:
        check_agreement(program, made.package)


def test_tiles_give_what_the_whole_image_gives_or_are_said_not_to(made: Made) -> None:
    recipe = made.recipe
    axes = "".join({"channel": "c"}.get(a, a) for a in recipe.input.axes if a != "batch")
    shape = {"y": 512, "x": 500} if len(recipe.space) == 2 else {"z": 61, "y": 90, "x": 120}
    held_out = open_image(next((made.images / "val" / "images").iterdir()))
    # Noise, of the intensities that the recipe's images have: a mask stays a mask, and is not all foreground.
    size = [held_out.sizes.get("channel", 1), *shape.values()]
    pixels = np.random.default_rng(0).choice(held_out.to_numpy().ravel(), size)
    file = made.package.parent / "noise.npy"
    np.save(file, pixels)
    image = open_image(file, axes=axes)
    with open_package(made.package) as package:
        reach = package.raw["config"]["im2im_zoo"]["receptive_field"]
        if reach == "global":
            sizes = {
                a["id"]: a["size"]["min"] for a in package.raw["inputs"][0]["axes"] if a["type"] == "space"
            }
            options = ("--axes", axes, "--tile", ",".join(f"{a}={n}" for a, n in sizes.items()), "--plan")
            plan = command("predict", made.package, file, made.package.parent / "tiled.ome.zarr", *options)
            assert "the result differs from that of the whole image" in plan.stdout
            return
        network = open_network(package, in_process=True).engine
        whole = predict_array(package, image, engine=network, whole=True, group=False)
        smallest = {a: n["min"] for a, n in package.raw["config"]["im2im_zoo"]["grid"].items()}
        step = package.raw["config"]["im2im_zoo"]["grid"]
        kept = (
            176 if len(recipe.space) == 2 else 48
        )  # two or three tiles along each axis, some with others all around
        tile = {
            a: max(smallest[a], -(-(2 * reach[a] + kept) // step[a]["step"]) * step[a]["step"]) for a in shape
        }
        tiled = predict_array(package, image, engine=network, tile=tile, halo="exact", group=False)
    assert any(tile[a] < shape[a] for a in shape), "the image was not cut"
    # Maps to be grouped are in voxels, and round accordingly.
    scale = max(1.0, float(np.abs(whole.to_numpy()).max())) if recipe.output.grouping else 1.0
    np.testing.assert_allclose(tiled.to_numpy(), whole.to_numpy(), atol=1e-5 * scale, rtol=1e-5)


def test_a_prediction_is_evaluated_against_its_target(made: Made) -> None:
    image = next((made.images / "val" / "images").iterdir())
    target = next((made.images / "val" / "targets").iterdir())
    output = made.package.parent / "out.ome.zarr"
    command("predict", made.package, image, output)
    task = made.recipe.output.task
    figures = json.loads(command("evaluate", output, target, "--task", task, "--json").stdout)["figures"]
    assert all(np.isfinite(v) for v in figures.values() if v is not None)
    assert {"regression": "pearson", "semantic": "dice", "instance": "mean_ap"}[task] in figures


def test_the_loss_falls_on_one_overfitted_batch(made: Made, tmp_path: Path) -> None:
    options = (
        *(*made.case.changes, f"--data.path={made.images}"),
        *("--data.patches_per_image=4", "--data.batch_size=4", "--data.augmentations=[]"),
        *("--trainer.overfit_batches=1", "--framework.kwargs.scheduler=null"),
    )
    done = in_a_process(train_until_the_loss_falls, [str(tmp_path / "run"), made.case.recipe, *options])
    assert done.returncode == 0, done.stderr
    rows = open_run(tmp_path / "run").metrics
    assert _has_fallen(rows), rows


def train_until_the_loss_falls(arguments: list[str]) -> None:
    """Train without a page; most have learned a batch after a few steps, the others get as many as it takes."""
    folder, name, *options = arguments
    for epochs in (8, 20, 40):
        overrides = [*parse_overrides(options), ("trainer.max_epochs", epochs)]
        recipe, root = load_recipe(name, overrides), find_recipe(name).parent
        run = train(recipe, Path(folder), resume=Path(folder).exists(), root=root)
        if _has_fallen(run.metrics):
            return


def _has_fallen(rows: Sequence[Mapping[str, float]]) -> bool:
    loss = next((falling for part, falling in FALLING.items() if part in rows[0]), "train_loss")
    return rows[-1][loss] < 0.7 * rows[0][loss]
