"""Rules of deepImageJ's JDLL and of QuPath, each on a package that shows it. The pinned tiles are those that JDLL 0.6.3 itself made."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jdll_rules
import numpy as np
import pytest
import qupath_rules
import torch
import yaml
from packages_for_tests import build_package
from program_rules import Network, RefusalError
from torch import nn

Change = Callable[[dict[str, Any]], object]
Make = Callable[[Change], Path]
CHANNELS = ("one", "two")


def same_and_box() -> nn.Module:
    """Two channels to two: the first as it is, of the second the mean of 3 x 3 voxels, with zeros beyond the image."""
    network = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[0, 0, 1, 1] = 1.0
        network.weight[1, 1] = 1 / 9
    return network.eval()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that both programs open, with a step of 4 and a halo of 4."""
    folder = build_package(
        tmp_path_factory.mktemp("rules") / "package",
        same_and_box(),
        channels=CHANNELS,
        out_channels=CHANNELS,
        minimum=12,
        halo=4,
        weights=("torchscript", "onnx"),
        example=torch.zeros(1, 2, 16, 16),
    )
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf |= {"format_version": "0.5.1", "documentation": "README.md"}
    rdf["config"] = {"bioimageio": {"nickname": "small"}}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
    return folder


@pytest.fixture
def make(base: Path, tmp_path: Path) -> Make:
    """Return the package with a changed RDF."""

    def changed(change: Change) -> Path:
        folder = Path(shutil.copytree(base, tmp_path / "package"))
        rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
        change(rdf)
        (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False))
        return folder

    return changed


def before(name: str, **kwargs: Any) -> Change:
    """One operation in front of the network."""
    entry = {"id": name, **({"kwargs": kwargs} if kwargs else {})}
    return lambda rdf: rdf["inputs"][0].update(preprocessing=[entry])


def in_space(tensor: str, **values: Any) -> Change:
    """Values of the axes y and x of a tensor."""
    return lambda rdf: [axis.update(values) for axis in rdf[tensor][0]["axes"][2:]]


def both(*changes: Change) -> Change:
    return lambda rdf: [change(rdf) for change in changes]


def nothing(rdf: dict[str, Any]) -> None:
    """Leave the RDF as it is."""


def image(y: int = 16, x: int = 20) -> np.ndarray:
    """Two channels of different levels (1, 2, y, x)."""
    noise = np.random.default_rng(0).integers(0, 50, (1, 2, y, x))
    return (noise + np.array([100, 300])[:, None, None]).astype(np.uint16)


CANNOT = "cannot be cast to class java.lang.String"
PIXELS = both(in_space("inputs", scale=0.2, unit="micrometer"), in_space("outputs", scale=0.2))


@pytest.mark.parametrize(
    ("change", "jdll", "qupath"),
    [
        (nothing, None, None),
        (lambda r: r.update(format_version="0.5.0"), None, "Required field test_inputs not found"),
        (lambda r: r.update(format_version="0.5.10"), None, None),
        (lambda r: r["config"]["bioimageio"].clear(), r'"this\.modelID" is null', None),
        (lambda r: (r["config"]["bioimageio"].clear(), r.update(id="some-one")), None, None),
        (lambda r: r.pop("config"), None, None),
        (lambda r: r.update(documentation={"source": "README.md"}), CANNOT, "documentation"),
        (lambda r: r.update(covers=[{"source": "cover.png"}]), None, "covers"),
        (lambda r: r.pop("documentation"), None, "Required field documentation not found"),
        (PIXELS, "Input size too small|a different shape", None),
        (in_space("inputs", size={"min": 10, "step": 4}), "should satisfy: 10", None),
        (lambda r: r["outputs"][0]["data"].update(type="uint8"), "a different data type", None),
        (before("scale_linear", gain=0.0078431, offset=0.0), None, "Can't parse data range from 0.0078431"),
        (before("scale_linear", gain=[1.0, 2.0], offset=[0.0, 0.0], axis="channel"), None, None),
        (before("fixed_zero_mean_unit_variance", mean=[1.0, 2.0], std=[1.0, 2.0], axis="channel"), "Index 1", None),
        (before("softmax", axis="channel"), "Invalid method 'softmax'", None),
        (before("scale_mean_variance", reference_tensor="raw"), "Invalid method 'scale_mean_variance'", None),
        (before("clip", min=0.0), "'max' parameter was not set", None),
        (before("clip", min_percentile=1.0, max_percentile=99.0), "Setter for argument|was not set", None),
        (before("clip", min=0.0, max=None), '"max" is null', None),
        (before("binarize", threshold=[1.0, 2.0], axis="channel"), "binarize", "BEGIN_ARRAY"),
        (before("zero_mean_unit_variance"), None, '"kwargs" are null'),
        (before("scale_range", min_percentile=1.0, max_percentile=99.0), None, "axes"),
        (lambda r: r["inputs"].append({**r["inputs"][0], "id": "other"}), None, "Only single inputs"),
    ],
)  # fmt: skip
def test_packages_are_opened_and_run_or_refused(make: Make, change: Change, jdll: str, qupath: str) -> None:
    folder = make(change)
    for open_model, refusal in ((jdll_rules.open_model, jdll), (qupath_rules.open_model, qupath)):
        if refusal is None:
            result = open_model(folder).predict(image())
            assert result.shape == (1, 2, 16, 20)
        else:
            with pytest.raises(RefusalError, match=refusal):
                open_model(folder).predict(image())


@pytest.mark.parametrize(
    ("size", "step", "halo", "tile", "starts"),
    [
        ((256, 192), 16, (88, 80), (432, 352), [(-88, -80)]),
        ((249, 187), 16, (16, 16), (272, 208), [(-16, -16), (-16, -5), (-7, -16), (-7, -5)]),
        ((100, 100), 16, (0, 0), (96, 96), [(0, 0), (0, 4), (4, 0), (4, 4)]),
        ((20, 40), 16, (16, 16), (48, 64), [(-16, -16), (-16, -8), (-12, -16), (-12, -8)]),
        ((30, 19), 16, (16, 16), (48, 48), [(-16, -16), (-16, -13), (-2, -16), (-2, -13)]),
        ((10, 10), 16, (0, 0), None, None),
        ((10, 40), 16, (16, 0), None, None),
    ],
)
def test_jdll_cuts_the_tiles_that_jdll_cuts(make: Make, size, step, halo, tile, starts) -> None:
    def change(rdf: dict[str, Any]) -> None:
        for axis, out, n in zip(
            rdf["inputs"][0]["axes"][2:], rdf["outputs"][0]["axes"][2:], halo, strict=True
        ):
            axis["size"] = {"min": 16, "step": step}
            out["halo"] = n

    model = jdll_rules.open_model(make(change))
    if tile is None:
        with pytest.raises(RefusalError, match="Input size too small"):
            model.tiles((1, 2, *size))
        return
    tiles, _ = model.tiles((1, 2, *size))
    assert tiles.size[2:] == tile
    assert [s[2:] for s in tiles.starts] == starts


def test_jdll_never_ends_on_an_image_of_more_than_fifty_million_voxels(base: Path) -> None:
    model = jdll_rules.open_model(base)
    model.tiles((1, 2, 4992, 4992))
    with pytest.raises(RefusalError, match="does not end"):
        model.tiles((1, 2, 7200, 7200))


def test_jdll_mirrors_the_image_by_the_halo_and_leaves_no_seams(base: Path) -> None:
    for shape in ((16, 20), (17, 23), (40, 9)):
        source = image(*shape)
        result = jdll_rules.open_model(base).predict(source)
        np.testing.assert_array_equal(result[0, 0], source[0, 0])
        mirrored = np.pad(source[0, 1].astype(np.float64), 1, mode="symmetric")
        box = sum(mirrored[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)) / 9
        np.testing.assert_allclose(result[0, 1], box, rtol=1e-6)


def test_jdll_takes_statistics_of_the_whole_image_before_it_cuts_tiles(make: Make) -> None:
    model = jdll_rules.open_model(
        make(before("zero_mean_unit_variance", axes=["channel", "y", "x"], eps=1e-6))
    )
    source = image(17, 23)
    assert len(model.tiles(source.shape)[0].starts) == 4
    expected = (source - source.mean()) / (source.std() + 1e-6)
    np.testing.assert_allclose(model.predict(source)[0, 0], expected[0, 0], atol=1e-5)
    assert not model.deviations


def test_jdll_changes_all_channels_by_the_statistics_of_each(make: Make) -> None:
    model = jdll_rules.open_model(make(before("zero_mean_unit_variance", axes=["y", "x"], eps=1e-6)))
    wrong = image().astype(np.float64)
    for channel in range(2):
        wrong = (wrong - wrong[:, channel].mean()) / (wrong[:, channel].std() + 1e-6)
    np.testing.assert_allclose(model.predict(image())[0, 0], wrong[0, 0], rtol=1e-4)
    assert model.deviations == {"statistics of channels"}


def test_jdll_takes_the_first_of_several_gains(make: Make) -> None:
    change = before("scale_linear", gain=[2.0, 3.0], offset=[1.0, 5.0], axis="channel")
    model = jdll_rules.open_model(make(change))
    result = model.predict(image(16, 16), "torchscript")
    np.testing.assert_allclose(result[0, 1, 1:-1, 1:-1].mean(), 2 * image(16, 16)[0, 1].mean() + 1, rtol=1e-2)
    assert model.deviations == {"gains of channels"}


def test_jdll_takes_voxels_for_percentiles(make: Make) -> None:
    kwargs = {"axes": ["channel", "y", "x"], "min_percentile": 1.0, "max_percentile": 99.0, "eps": 1e-6}
    model = jdll_rules.open_model(make(before("scale_range", **kwargs)))
    values = np.sort(image(), axis=None)
    low, high = (float(values[int(len(values) * p)]) for p in (0.01, 0.99))
    expected = (image() - low) / (high - low + 1e-6)
    np.testing.assert_allclose(model.predict(image())[0, 0], expected[0, 0], atol=1e-6)
    assert model.deviations == {"percentiles"}


def test_jdll_adds_a_millionth_to_a_fixed_deviation(make: Make) -> None:
    model = jdll_rules.open_model(make(before("fixed_zero_mean_unit_variance", mean=1.0, std=1e-6)))
    np.testing.assert_allclose(model.predict(image())[0, 0], (image()[0, 0] - 1.0) / 2e-6, rtol=1e-6)
    assert model.deviations == {"eps"}


@pytest.mark.parametrize(
    ("smallest", "tile"),
    [(12, 504), (48, 480), (80, 480), (76, 456), (192, 384), (512, 512), (600, 600)],
)
def test_qupath_takes_the_largest_multiple_of_the_smallest_size(make: Make, smallest: int, tile: int) -> None:
    model = qupath_rules.open_model(make(in_space("inputs", size={"min": smallest, "step": 4})))
    assert model.tile == (tile, tile)


def test_qupath_mirrors_the_smaller_half_before_an_image(base: Path) -> None:
    model = qupath_rules.open_model(base)
    place = Network(lambda array: np.broadcast_to(np.arange(array.shape[-1], dtype=np.float32), array.shape))
    found = model._predict_tile(place, np.zeros((model.tile[0], model.tile[1] - 5, 2), np.float32))
    assert (found.shape[1], found[0, 0, 0]) == (model.tile[1] - 5, 2)


def test_qupath_takes_statistics_of_each_tile_and_leaves_seams(make: Make) -> None:
    change = both(
        before("zero_mean_unit_variance", axes=["channel", "y", "x"], eps=1e-6),
        in_space("inputs", size={"min": 260, "step": 4}),
    )
    model = qupath_rules.open_model(make(change))
    source = image(64, 300)
    source[..., 260:] += 200
    result = model.predict(source)
    assert model.deviations == {"statistics of tiles", "tiles without overlap"}
    for part in (np.s_[..., :260], np.s_[..., 260:]):
        tile = source[part]
        expected = (tile - tile.mean()) / (tile.std() + 1e-6)
        np.testing.assert_allclose(result[part][0, 0], expected[0, 0], atol=1e-5)
        # Each tile is mirrored up to its size; one that has it is not.
        values = np.pad(expected[0, 1], ((1, 1), (0, 0)), mode="symmetric")
        mode = "constant" if tile.shape[-1] == 260 else "symmetric"
        values = np.pad(values, ((0, 0), (1, 1)), mode=mode)
        box = sum(values[i : i + 64, j : j + tile.shape[-1]] for i in range(3) for j in range(3)) / 9
        np.testing.assert_allclose(result[part][0, 1], box, atol=1e-5)
    assert not model.deviations_of((64, 260))


@pytest.mark.parametrize(
    ("operation", "left_out"),
    [
        (before("softmax", axis="channel"), "softmax"),
        (before("fixed_zero_mean_unit_variance", mean=1.0, std=2.0), "fixed_zero_mean_unit_variance"),
        (before("clip", min_percentile=1.0, max_percentile=99.0), "clip percentiles"),
        (before("scale_mean_variance", reference_tensor="raw"), "scale_mean_variance"),
        (before("ensure_dtype", dtype="uint8"), "ensure_dtype"),
    ],
)
def test_qupath_leaves_out_what_it_does_not_know(make: Make, operation: Change, left_out: str) -> None:
    model = qupath_rules.open_model(make(operation))
    np.testing.assert_array_equal(model.predict(image())[0, 0], image()[0, 0])
    assert model.deviations == {left_out}


@pytest.mark.parametrize("axes", [["channel", "y", "x"], ["y", "x"]])
def test_qupath_interpolates_percentiles_of_all_channels_or_of_each(make: Make, axes: list[str]) -> None:
    kwargs = {"axes": axes, "min_percentile": 1.0, "max_percentile": 99.0, "eps": 1e-6}
    model = qupath_rules.open_model(make(before("scale_range", **kwargs)))
    source = image().astype(np.float64)
    low, high = np.percentile(source if "channel" in axes else source[:, 0], (1, 99))
    expected = (source[0, 0] - low) / (high - low + 1e-6)
    np.testing.assert_allclose(model.predict(image())[0, 0], expected, atol=1e-6)
    assert not model.deviations
