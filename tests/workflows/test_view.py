"""Views: the pictures and pages of `im2im-zoo view`, of known images."""

import base64
import hashlib
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.painting import channel_colours, colour_of_name, find_outlines, label_layer
from im2im_zoo.images import open_image, write_image
from im2im_zoo.images.overview import label_names, reduce_image, stated_colours
from im2im_zoo.workflows.view.picture import paint_fill, paint_outlines, thick_outlines
from im2im_zoo.workflows.view.read import ViewSource, read_view
from im2im_zoo.workflows.view.write import write_view

PIXEL = {"pixel_size_um": {"z": 1.0, "y": 0.5, "x": 0.5}}


def make(path: Path, values: np.ndarray, dims: str, *, channels=None, labels=False, attrs=PIXEL) -> Path:
    names = tuple({"t": "time", "c": "channel"}.get(d, d) for d in dims)
    coords = {"channel": list(channels)} if channels else {}
    return write_image(xr.DataArray(values, dims=names, coords=coords, attrs=attrs), path, labels=labels)


def squares(shape: tuple[int, ...]) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    labels[..., 2:8, 2:8] = 1
    labels[..., 2:8, 8:14] = 2
    labels[..., 12:16, 4:10] = 3
    return labels


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("DAPI", (60, 110, 255)),
        ("EGFP", (0, 255, 0)),
        ("Alexa Fluor 488", (0, 255, 0)),
        ("mCherry", (255, 0, 0)),
        ("nuclei_predicted", (60, 110, 255)),
        ("Cy5", (255, 0, 255)),
        ("actin", None),
        ("redox sensor", None),
    ],
)
def test_the_name_of_a_channel_tells_its_colour(name, colour):
    assert colour_of_name(name) == colour


def test_channels_have_stated_colours_else_those_of_names_else_distinct_ones():
    image = xr.DataArray(np.zeros((3, 2, 2)), dims=("channel", "y", "x"))
    named = image.assign_coords(channel=["a", "GFP", "b"])
    assert len(set(channel_colours(image))) == 3
    assert channel_colours(named)[1] == (0, 255, 0)
    assert len(set(channel_colours(named))) == 3
    assert channel_colours(named, [(1, 2, 3)] * 3) == ((1, 2, 3),) * 3
    assert channel_colours(image[:1], [(1, 2, 3)]) == ((255, 255, 255),)


def test_colours_of_an_ome_zarr_are_those_it_states_unless_they_are_ours_by_number(tmp_path):
    path = make(tmp_path / "a.ome.zarr", np.zeros((2, 8, 8), np.uint16), "cyx", channels=["x", "y"])
    assert stated_colours(path) == ()
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["ome"]["omero"]["channels"][0]["color"] = "0A141E"
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert stated_colours(path)[0] == (10, 20, 30)
    assert read_view(path).images[0].colours[0] == (10, 20, 30)


def test_outlines_are_within_the_objects_and_where_labels_touch():
    labels = squares((20, 20))
    layer = label_layer(labels, outlines=True)
    drawn = layer[..., 3] > 0
    assert not drawn[labels == 0].any()
    assert drawn[4, 7]
    assert drawn[4, 8]
    assert drawn[2, 3]
    assert not drawn[4, 4]
    assert (label_layer(labels, outlines=False)[..., 3] > 0).sum() == (labels > 0).sum()
    assert find_outlines(labels).any()


def test_outlines_of_large_pictures_are_thick_and_do_not_reach_over_the_border(tmp_path):
    labels = np.zeros((450, 450), np.int32)
    labels[100:200, 300:] = 1
    image = make(tmp_path / "a.tif", np.zeros((450, 450), np.uint8), "yx")
    view = read_view(image, labels=make(tmp_path / "l.tif", labels, "yx", labels=True))
    thin = paint_outlines(view, view.labels[0], 0)[..., 3] > 0
    thick = thick_outlines(paint_outlines(view, view.labels[0], 0), view)[..., 3] > 0
    assert thick.sum() > 1.9 * thin.sum()
    assert not thick[:, :300].any()


def test_predicted_and_other_labels_have_a_colour_each(tmp_path):
    image = make(tmp_path / "a.tif", np.zeros((20, 24), np.uint8), "yx")
    one = make(tmp_path / "p.tif", squares((20, 24)), "yx", labels=True)
    other = make(tmp_path / "l.tif", np.roll(squares((20, 24)), 5, axis=1), "yx", labels=True)
    view = read_view(image, prediction=one, labels=other)
    assert [layer.title for layer in view.labels] == ["predicted labels", "labels"]
    colours = [
        {tuple(c) for c in paint_fill(view, layer, 0).reshape(-1, 4).tolist()} for layer in view.labels
    ]
    assert colours == [{(0, 0, 0, 0), (230, 120, 0, 255)}, {(0, 0, 0, 0), (40, 140, 230, 255)}]


@pytest.mark.parametrize("suffix", [".npy.tif", ".ome.zarr"])
def test_a_large_image_is_read_as_means_and_labels_as_samples(tmp_path, suffix):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, (2, 600, 904)).astype(np.float32)
    path = make(tmp_path / f"a{suffix.removeprefix('.npy')}", values, "zyx")
    reduced = reduce_image(path, open_image(path), 240)
    assert (reduced.factor, reduced.factors["z"]) == (4, 1)
    assert (reduced.level > 0) == (suffix == ".ome.zarr")
    expected = values.reshape(2, 150, 4, 226, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(reduced.read(0, [1, 0])[:, 0], expected[::-1], rtol=1e-5)
    np.testing.assert_allclose(reduced.read(0, None)[0, 0], expected.max(axis=0), rtol=1e-5)
    # The pyramid has means, which are no labels, so that it is not read.
    sampled = reduce_image(path, open_image(path), 240, labels=True).read(0, [1])
    np.testing.assert_array_equal(sampled[0, 0], values[1, ::4, ::4])


def test_labels_are_read_from_a_pyramid_of_labels(tmp_path):
    values = np.arange(600 * 600, dtype=np.int32).reshape(600, 600)
    path = make(tmp_path / "a.ome.zarr", values, "yx", labels=True)
    sampled = reduce_image(path, open_image(path), 150, labels=True)
    assert sampled.level == 2
    np.testing.assert_array_equal(sampled.read(0, [0])[0, 0], values[::4, ::4])


def test_planes_are_not_averaged_unless_an_image_is_huge(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(0, 99, (8, 600, 600)).astype(np.uint16)
    attrs = {"pixel_size_um": {"z": 1.0, "y": 1.0, "x": 1.0}}
    path = make(tmp_path / "a.ome.zarr", values, "zyx", attrs=attrs)
    view = read_view(path, size=300)
    expected = values[4].reshape(300, 2, 300, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(view.images[0].values[4, 0], expected)
    monkeypatch.setattr("im2im_zoo.images.overview._MANY_VOXELS", 1000)
    view = read_view(path, size=300)
    assert "each plane is the mean of 2 of the file" in view.images[0].notes


def test_sizes_that_do_not_divide_keep_their_border(tmp_path):
    values = np.arange(35 * 50, dtype=np.float32).reshape(35, 50)
    path = make(tmp_path / "a.tif", values, "yx")
    read = reduce_image(path, open_image(path), 16).read(0, [0])[0, 0]
    assert read.shape == (9, 13)
    assert read[-1, -1] == pytest.approx(values[32:, 48:].mean())


def test_a_picture_has_input_prediction_and_outlines_side_by_side(tmp_path):
    grey = np.linspace(0, 200, 400).reshape(20, 20).astype(np.uint8)
    image = make(tmp_path / "in.tif", grey, "yx", attrs={})
    prediction = make(tmp_path / "out.tif", (255 - grey).astype(np.float32), "yx", attrs={})
    labels = make(tmp_path / "labels.tif", squares((20, 20)), "yx", attrs={})
    written = write_view(image, tmp_path / "v.png", prediction=prediction, labels=labels)
    picture = np.asarray(Image.open(written.path))
    panels = [picture[-20:, x : x + 20].astype(int) for x in (0, 28, 56)]
    assert panels[0][-1, -1].tolist() == [255] * 3
    assert panels[1][-1, -1].tolist() == [0] * 3
    drawn = (panels[2] != panels[0]).any(axis=-1)
    outline = label_layer(squares((20, 20)), outlines=True)[..., 3] > 0
    np.testing.assert_array_equal(drawn, outline)
    assert any("no scale bar" in note for note in written.notes)
    assert "3 objects" in Image.open(written.path).text["Description"]


def test_a_page_has_every_plane_and_time_and_runs_only_its_own_script(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (2, 3, 2, 20, 24)).astype(np.uint16)
    image = make(tmp_path / "<b>&'.ome.tif", values, "tzcyx", channels=["DAPI", "<i>"])
    labels = make(
        tmp_path / "l.ome.tif", np.broadcast_to(squares((20, 24)), (2, 3, 20, 24)), "tzyx", labels=True
    )
    page = write_view(image, tmp_path / "v.html", labels=labels).path.read_text()
    assert "<b>" not in page.replace("<b>input</b>", "").replace("<b>labels</b>", "")
    assert "<i>" not in page
    assert len(re.findall(r'<img data-frame="\d"', page)) == 2 * 3 * (2 + 2)
    for control, places in (("z", 3), ("time", 2)):
        assert f'data-control="{control}" min="0" max="{places - 1}"' in page
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    addresses = re.findall(r"(?:src|href)=\"([^\"]{5})", page) + re.findall(r"url\(|@import", page)
    assert set(addresses) == {"data:"}
    assert "2 µm" in page


def test_a_page_adds_up_channels_as_a_picture_does(tmp_path):
    rows, columns = np.mgrid[:32, :32]
    values = np.stack([rows, columns]).astype(np.uint16)
    image = make(tmp_path / "a.ome.tif", values, "cyx", channels=["DAPI", "GFP"], attrs={})
    page = write_view(image, tmp_path / "v.html").path.read_text()
    jpegs = [
        np.asarray(Image.open(BytesIO(base64.b64decode(j))).convert("RGB")).astype(int)
        for j in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    ]
    picture = np.asarray(Image.open(write_view(image, tmp_path / "v.png").path))[-32:, :32].astype(int)
    scaled = np.abs(np.clip(sum(jpegs), 0, 255) - picture)
    assert np.mean(scaled[:20, :20]) < 4


def test_labels_within_an_ome_zarr_are_found_and_labels_that_predict_wrote_are_known(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (20, 24)).astype(np.uint16)
    image = make(tmp_path / "a.ome.zarr", values, "yx")
    assert label_names(image) == ()
    assert read_view(image).labels == ()
    make(image / "labels" / "instances", squares((20, 24)), "yx", labels=True)
    view = read_view(image)
    assert [layer.objects for layer in view.labels] == [3]
    other = make(tmp_path / "b.tif", values, "yx")
    by_prediction = read_view(other, prediction=image / "labels" / "instances")
    assert len(by_prediction.images) == 1
    instances = read_view(other, prediction=image)
    assert [len(instances.images), len(instances.labels)] == [1, 1]
    (image / "labels" / "instances").rename(image / "labels" / "nuclei")
    listed = image / "labels" / "zarr.json"
    listed.write_text(listed.read_text().replace('"instances"', '"nuclei"'))
    both = read_view(other, prediction=image)
    assert [len(both.images), len(both.labels)] == [2, 1]


def test_planes_are_chosen_and_named(tmp_path):
    values = np.stack([np.full((16, 16), z, np.uint16) for z in range(60)])
    values[:, 0, 0] = 500
    path = make(tmp_path / "a.tif", values, "zyx")
    assert len(read_view(path).planes) == 48
    assert read_view(path, plane=7).images[0].values[0, 0, 5, 5] == 7
    assert read_view(path, plane="middle").images[0].values[0, 0, 5, 5] == 30
    projected = read_view(path, all_frames=False)
    assert projected.images[0].values[0, 0, 5, 5] == 59
    assert "maximum over 60 z planes" in projected.notes
    with pytest.raises(EvaluationError, match=r"--plane 60: .*has 60 along z; give 0 to 59"):
        read_view(path, plane=60)


def test_values_that_are_not_finite_do_not_spoil_the_contrast(tmp_path):
    values = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    values[3, 3], values[4, 4] = np.nan, np.inf
    low, high = read_view(make(tmp_path / "a.tif", values, "yx")).images[0].limits[0]
    assert 0 <= low < 0.02
    assert 0.98 < high <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prediction": "small.tif"}, "must have the same size, but it has y 10 instead of 20"),
        ({"labels": "small.tif"}, "labels and the input .* must have the same size"),
        ({"labels": "fractions.tif"}, "is no label image"),
        ({"labels": "channels.tif"}, "is no label image: it has 2 channels"),
        ({"size": 3}, "--size 3 is too small"),
        ({"time": 1}, "--time 1: .* has 1 along time"),
    ],
)
def test_wrong_input_is_refused_and_leaves_nothing(tmp_path, given, message):
    image = make(tmp_path / "a.tif", np.zeros((20, 24), np.uint8), "yx")
    make(tmp_path / "small.tif", np.zeros((10, 24), np.int32), "yx", labels=True)
    make(tmp_path / "fractions.tif", np.full((20, 24), 0.5, np.float32), "yx")
    make(tmp_path / "channels.tif", np.zeros((2, 20, 24), np.uint8), "cyx")
    before = sorted(tmp_path.iterdir())
    options = {k: tmp_path / v if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(EvaluationError, match=message):
        write_view(ViewSource(image), tmp_path / "v.png", **options)
    assert sorted(tmp_path.iterdir()) == before
