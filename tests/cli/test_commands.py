"""The commands as scripts call them: exit codes, JSON, messages, and what is left behind."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import xarray as xr
from commands import im2im_zoo, in_a_process, press_ctrl_c_when_there_is

from im2im_zoo.images import open_image, write_image

if TYPE_CHECKING:
    from conftest import Cli


def held_out(images: Path, kind: str = "images") -> Path:
    return next((images / "val" / kind).iterdir())


def test_help_of_every_command_answers_without_heavy_imports(cli: "Cli") -> None:
    for command in (
        "train",
        "export",
        "validate",
        "predict",
        "evaluate",
        "show",
        "recipe",
        "samples",
        "demo",
        "publish",
        "edit",
        "upgrade",
        "compare",
        "add-weights",
    ):
        done = cli(command, "--help")
        assert done.code == 0
        assert "Usage" in done.out
    script = (
        "import sys; sys.argv = ['im2im-zoo', '--help']\n"
        "from im2im_zoo.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'pytorch_lightning', 'bioimageio', 'xarray', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_version_is_printed(cli: "Cli") -> None:
    assert cli("--version").out.startswith("im2im-zoo 0.")


def test_the_schema_is_json_and_the_list_names_every_recipe(cli: "Cli") -> None:
    assert "properties" in json.loads(cli("recipe", "--schema").out)
    listed = cli("recipe", "--list").out
    for name in ("nuclei_2d", "nuclei_3d", "denoising_3d", "labelfree_2d"):
        assert name in listed


def test_a_copied_recipe_is_the_recipe_and_is_not_overwritten(
    cli: "Cli", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("recipe", "--copy", "nuclei_3d").code == 0
    assert cli("show", "nuclei_3d.yaml", "--json").code == 0
    again = cli("recipe", "--copy", "nuclei_3d")
    assert again.code == 1
    assert "already exists" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "nuclei_2d"), 2, "--output"),
        (("train", "nuclei_2d", "more", "--output", "x"), 2, "override a recipe's key by --dotted.key=value"),
        (("train", "no_such", "--output", "x"), 1, "neither a recipe file nor the name"),
        (("train", "nuclei_2d", "--data.path=nowhere", "--output", "x"), 1, "nowhere"),
        (("train", "nuclei_2d", "--ntwork.callable=x", "--output", "x"), 1, "did you mean 'network'"),
        (("export", "nowhere", "--output", "x"), 1, "is not a run folder"),
        (("export", "nowhere", "--output", "x", "--weights", "keras"), 2, "onnx"),
        (("validate", "nowhere"), 2, "'nowhere' was not found"),
        (("predict", "nowhere", "a.tif", "b.tif"), 1, "nowhere"),
        (("evaluate", "a.tif", "b.tif"), 2, "--task"),
        (("evaluate", "a.tif", "b.tif", "--task", "guess"), 2, "regression, semantic, instance"),
        (("evaluate", "a.tif", "b.tif", "--task", "semantic"), 1, "a.tif"),
        (("show", "nowhere"), 1, "not a package, run or recipe"),
        (("recipe",), 2, "--list, --schema or --copy"),
        (("samples", "nowhere"), 1, "choose one of"),
        (("fly",), 2, "fly"),
    ],
)
def test_wrong_usage_says_what_to_do_and_leaves_nothing(
    cli: "Cli",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.code == code, done
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(cli: "Cli") -> None:
    from im2im_zoo.core.errors import RecipeError

    with pytest.raises(RecipeError):
        cli("train", "no_such", "--output", "x", "--debug")


def test_show_describes_a_package_a_run_and_a_recipe(cli: "Cli", tiny_run: Path, tiny_package: Path) -> None:
    run = json.loads(cli("show", tiny_run, "--json").out)
    assert (run["kind"], run["state"], run["epochs"]) == ("run", "complete", 2)
    for source in (tiny_package, tiny_package.with_suffix(".zip"), tiny_package / "rdf.yaml"):
        package = json.loads(cli("show", source, "--json").out)
        assert package["kind"] == "package"
        assert package["weights"] == ["onnx", "torchscript", "pytorch_state_dict"]
    assert json.loads(cli("show", "nuclei_2d", "--json").out)["kind"] == "recipe"


def test_a_validation_is_written_as_a_page_and_warnings_count_if_asked(
    cli: "Cli", tiny_package: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = cli("validate", tiny_package, "--no-core", "--html", page)
    assert done.code == 0
    assert "Determinism" in done.out
    assert "data:image/png;base64," in page.read_text(encoding="utf-8")
    strict = cli("validate", tiny_package, "--no-core", "--json", "--strict")
    has_warnings = any(f["severity"] == "warning" for f in json.loads(strict.out)["findings"])
    assert strict.code == int(has_warnings)
    assert cli("validate", tiny_package, "--html", tmp_path / "no" / "page.html").code == 2
    assert cli("validate", "http://example.com/model.zip").code == 1


def test_a_sound_package_validates_as_a_zip(cli: "Cli", tiny_package: Path) -> None:
    done = cli("validate", tiny_package.with_suffix(".zip"), "--json", "--allow-code")
    assert done.code == 0, done
    report = json.loads(done.out)
    assert report["sound"]
    assert not [f for f in report["findings"] if f["severity"] == "error"]


def test_an_altered_package_is_not_sound(cli: "Cli", tiny_package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_package, broken)
    tensor = np.load(broken / "test_output.npy")
    np.save(broken / "test_output.npy", tensor + 0.5)
    done = cli("validate", broken, "--json")
    assert done.code == 1
    assert not json.loads(done.out)["sound"]
    assert cli("validate", broken).code == 1


def test_an_existing_package_is_kept_unless_told(cli: "Cli", tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "mine.txt").write_text("mine")
    done = cli("export", tiny_run, "--output", tmp_path / "package")
    assert done.code == 1
    assert "--overwrite" in done.err
    assert (tmp_path / "package" / "mine.txt").read_text() == "mine"


def test_predicted_formats_agree_and_keep_the_pixel_size(
    cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path
) -> None:
    image = open_image(held_out(images)).assign_attrs(pixel_size_um={"y": 0.5, "x": 0.25})
    write_image(image, tmp_path / "in.ome.zarr")
    results = []
    for name in ("a.ome.zarr", "b.ome.tif", "c.tif"):
        done = cli("predict", tiny_package, tmp_path / "in.ome.zarr", tmp_path / name, "--json")
        assert done.code == 0, done
        figures = json.loads(done.out)
        assert figures["voxels"] == image.size
        results.append(open_image(tmp_path / name))
    for result in results:
        assert result.attrs["pixel_size_um"]["x"] == pytest.approx(0.25, rel=1e-4)
        assert result.attrs["pixel_size_um"]["y"] == pytest.approx(0.5, rel=1e-4)
        np.testing.assert_array_equal(np.squeeze(result.to_numpy()), np.squeeze(results[0].to_numpy()))
    provenance = open_image(tmp_path / "a.ome.zarr").attrs["im2im_zoo"]
    assert provenance["model"] == "Nuclei in 2D fluorescence"


def test_a_plan_is_printed_and_nothing_is_run(
    cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path
) -> None:
    done = cli(
        "predict", tiny_package, held_out(images), tmp_path / "out.tif", "--plan", "--json", "--memory", "2GB"
    )
    assert done.code == 0, done
    plan = json.loads(done.out)
    assert plan["tiles"] == len(plan["list"]) >= 1
    assert plan["budget"] == 2_000_000_000
    assert plan["memory"]
    assert "halo" in cli("predict", tiny_package, held_out(images), tmp_path / "out.tif", "--plan").out
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--memory", "much"), 2, "is not a size"),
        (("--memory", "1kB"), 1, "memory"),
        (("--halo", "wide"), 2, "choose auto"),
        (("--weights", "keras"), 1, "keras"),
        (("--axes", "y"), 1, "axes"),
        (("--channels", "7"), 1, "channel"),
        (("--device", "abacus"), 1, "abacus"),
    ],
)
def test_wrong_options_of_predict_leave_no_output(
    cli: "Cli",
    tiny_package: Path,
    images: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    done = cli("predict", tiny_package, held_out(images), tmp_path / "out.ome.zarr", *options)
    assert done.code == code, done
    assert message in done.err
    assert "Traceback" not in done.err
    assert "unexpected error" not in done.err
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_kept_unless_told(
    cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.tif"
    output.write_bytes(b"precious")
    done = cli("predict", tiny_package, held_out(images), output)
    assert done.code == 1
    assert "--overwrite" in done.err
    assert output.read_bytes() == b"precious"
    assert cli("predict", tiny_package, held_out(images), output, "--overwrite").code == 0
    assert open_image(output).sizes["y"] > 1


def test_the_same_command_again_is_already_complete(
    cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path
) -> None:
    command = ("predict", tiny_package, held_out(images), tmp_path / "out.tif", "--json")
    assert json.loads(cli(*command).out)["already_complete"] is False
    again = cli(*command)
    assert again.code == 0, again
    assert "Already complete" in again.err
    assert "Done" not in again.err
    assert json.loads(again.out)["already_complete"] is True
    other = cli(*command, "--halo", "3")
    assert other.code == 1
    assert "other settings" in other.err


def test_corrupt_images_are_named(cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path) -> None:
    for name, content in (
        ("empty.tif", b""),
        ("cut.tif", held_out(images).read_bytes()[:3000]),
        ("text.png", b"not a picture"),
        ("broken.npy", b"\x93NUMPY\x01\x00"),
        ("unknown.xyz", b"abc"),
    ):
        (tmp_path / name).write_bytes(content)
        done = cli("predict", tiny_package, tmp_path / name, tmp_path / "out.ome.zarr", "--axes", "yx")
        assert done.code == 1, done
        assert name in done.err
        assert "unexpected error" not in done.err
        assert not (tmp_path / "out.ome.zarr").exists()


def test_a_perfect_prediction_evaluates_to_one(cli: "Cli", images: Path) -> None:
    target = held_out(images, "targets")
    figures = json.loads(cli("evaluate", target, target, "--task", "semantic", "--json").out)["figures"]
    assert figures["dice"] == figures["iou"] == 1
    figures = json.loads(cli("evaluate", target, target, "--task", "instance", "--json").out)["figures"]
    assert figures["ap@0.50"] == 1
    figures = json.loads(cli("evaluate", target, target, "--task", "regression", "--json").out)["figures"]
    assert figures["pearson"] == pytest.approx(1)
    assert "2 TP" in cli("evaluate", target, target, "--task", "semantic").out


def test_npy_needs_axes_and_takes_them(cli: "Cli", tiny_package: Path, images: Path, tmp_path: Path) -> None:
    pixels = open_image(held_out(images)).to_numpy()
    np.save(tmp_path / "volume.npy", np.stack([pixels, pixels]))
    without = cli("predict", tiny_package, tmp_path / "volume.npy", tmp_path / "out.tif")
    assert without.code == 1
    assert "volume.npy: has the shape (2, " in without.err
    assert "--axes " in without.err
    assert (
        cli("predict", tiny_package, tmp_path / "volume.npy", tmp_path / "out.tif", "--axes", "tyx").code == 0
    )
    result = open_image(tmp_path / "out.tif")
    np.testing.assert_array_equal(result.isel(time=0).to_numpy(), result.isel(time=1).to_numpy())


def predict_until_interrupted(arguments: list[str]) -> None:
    """Predict, and press Ctrl-C as soon as there is an unfinished output."""
    press_ctrl_c_when_there_is(Path(f"{arguments[3]}.incomplete"))
    im2im_zoo(arguments)


def test_ctrl_c_during_prediction_leaves_no_output(tiny_package: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (3000, 3000), np.uint16)
    write_image(xr.DataArray(noise, dims=("y", "x")), tmp_path / "in.ome.zarr")
    output = tmp_path / "out.ome.zarr"
    command = ["predict", tiny_package, tmp_path / "in.ome.zarr", output, "--tile", "256"]
    done = in_a_process(predict_until_interrupted, [str(c) for c in command])
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_package_of_a_labels_image_is_refused_by_its_channels(
    cli: "Cli", tiny_package: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(
        tmp_path / "rgb.tif", np.zeros((3, 64, 64), np.uint16), metadata={"axes": "CYX"}, imagej=True
    )
    done = cli("predict", tiny_package, tmp_path / "rgb.tif", tmp_path / "out.tif")
    assert done.code == 1
    assert "channel" in done.err
    assert (
        cli("predict", tiny_package, tmp_path / "rgb.tif", tmp_path / "out.tif", "--channels", "1").code == 0
    )


def export_with_small_files(arguments: list[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    im2im_zoo(arguments)


def test_a_full_disk_during_export_is_said_and_leaves_nothing(tiny_run: Path, tmp_path: Path) -> None:
    done = in_a_process(
        export_with_small_files, ["export", str(tiny_run), "--output", str(tmp_path / "package")]
    )
    assert done.returncode == 1
    assert "is the disk full?" in done.stderr, done.stderr
    assert "unexpected error" not in done.stderr
    assert not list(tmp_path.iterdir())
