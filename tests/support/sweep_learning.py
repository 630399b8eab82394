"""Exports and trainings whose kills lose nothing (see `crash_sweep`), of a network of a few weights."""

import csv
import json
from pathlib import Path

import tifffile
import torch
from crash_sweep import Snapshot, Variant, run_once
from sweep_variants import im2im_zoo_command

import im2im_zoo.cli.export
import im2im_zoo.cli.train
import im2im_zoo.training.train
import im2im_zoo.workflows.export_run
import im2im_zoo.workflows.training  # noqa: F401 imported before the forks
from im2im_zoo.core.resources import fetch_sample_image

_NETWORK = json.dumps(
    {
        "callable": "monai.networks.nets.UNet",
        "kwargs": {
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [2, 4], "strides": [2], "norm": "batch",
        },
    }
)  # fmt: skip
_SMALL = (
    f"--network={_NETWORK}", "--data.patch_size=[32, 32]", "--data.patches_per_image=4", "--data.batch_size=4",
    "--trainer.max_epochs=2",
)  # fmt: skip


class Learning:
    """Pairs of small images, and a run."""

    def __init__(self, folder: Path) -> None:
        self.images, self.run = folder / "pairs", folder / "made" / "run"
        for kind, sample in (("images", "img2d.tif"), ("targets", "mask2d.tif")):
            whole = tifffile.imread(fetch_sample_image(sample))
            for part, crop in (("train", whole[:64, :64]), ("val", whole[200:264, 300:364])):
                (self.images / part / kind).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(self.images / part / kind / "nuclei.tif", crop, metadata={"axes": "YX"})
        self.run.parent.mkdir()
        ended = run_once(lambda: self.train(self.run), self.run.parent)
        assert ended.code == 0, ended.text

    def train(self, run: Path, *options: str) -> None:
        torch.set_num_threads(1)
        im2im_zoo_command(
            "train", "nuclei_2d", "--output", run, *options, *_SMALL, f"--data.path={self.images}"
        )


def exports(assets: Learning) -> dict[str, Variant]:
    """The variants of `im2im-zoo export`, by name."""
    found = [
        _export(assets, "export"),
        _export(assets, "export-zip", zipped=True),
        _export(assets, "overwrite-export", zipped=True, older=True),
    ]
    return {variant.name: variant for variant in found}


def trainings(assets: Learning) -> dict[str, Variant]:
    """The variants of `im2im-zoo train`, by name."""

    def results(folder: Path) -> dict[str, Snapshot]:
        run = folder / "run"
        if not (run / "checkpoints" / "last.ckpt").is_file():
            return {}
        for file in (run / "checkpoints").glob("[!.]*.ckpt"):
            torch.load(file, weights_only=True)
        return {}

    def final(folder: Path) -> dict[str, Snapshot]:
        run, found = folder / "run", {}
        for name in ("best", "last"):
            state = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            found[name] = {key: value.numpy().tobytes() for key, value in state.items()}
        with (run / "metrics.csv").open(newline="") as file:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        names = {str(p.relative_to(run)) for p in run.rglob("*") if "tensorboard" not in p.parts}
        state = json.loads((run / "provenance.json").read_text())["state"]
        return {**found, "run": {"metrics": rows, "files": sorted(names), "state": state}}

    return {
        "train": Variant(
            "train",
            lambda folder: None,
            lambda folder: assets.train(folder / "run"),
            results,
            final,
            again=lambda folder: assets.train(folder / "run", "--resume"),
        )
    }


def _export(assets: Learning, name: str, *, zipped: bool = False, older: bool = False) -> Variant:
    def command(folder: Path) -> None:
        torch.set_num_threads(1)
        more = ["--zip", folder / "package.zip"] if zipped else []
        more += ["--overwrite"] if older else []
        im2im_zoo_command(
            "export", assets.run, "--output", folder / "package", "--weights", "torchscript", *more
        )

    def prepare(folder: Path) -> None:
        if older:
            (folder / "package").mkdir()
            (folder / "package" / "rdf.yaml").write_text("name: an older package\n")
            (folder / "package.zip").write_bytes(b"an older package")

    def results(folder: Path) -> dict[str, Snapshot]:
        package, zip_path = folder / "package", folder / "package.zip"
        found: dict[str, Snapshot] = {}
        if package.exists():
            found["package"] = {
                p.name: p.read_bytes()
                if p.suffix in (".npy", ".yaml") and p.name != "rdf.yaml"
                else p.stat().st_size > 0
                for p in package.iterdir()
            }
        if zip_path.exists():
            found["zip"] = {"": zip_path.stat().st_size > 100}
        return found

    return Variant(name, prepare, command, results, refuses="already exists: choose another name")
