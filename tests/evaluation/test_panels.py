import numpy as np
import pytest
import xarray as xr

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.panels import (
    AGREE,
    ONLY_PREDICTION,
    ONLY_TARGET,
    Panel,
    render_panel,
    scale_bar,
)

DIMS = ("y", "x")


def image(values, dims=DIMS, pixel=None, channels=None):
    coords = {"channel": channels} if channels else {}
    attrs = {"pixel_size_um": {"y": pixel, "x": pixel}} if pixel else {}
    return xr.DataArray(np.asarray(values), dims=dims, coords=coords, attrs=attrs)


def test_contrast_is_by_percentiles_and_the_caption_says_which():
    values = np.arange(10000.0).reshape(100, 100)
    picture = render_panel(Panel("input", image(values)))
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(picture.rgb[..., 0], expected, atol=1)
    assert picture.caption == f"Black to white: {low:.4g} to {high:.4g} (percentiles 0.5 and 99.5)"


def test_a_constant_image_is_black_and_draws():
    assert not render_panel(Panel("flat", image(np.full((8, 8), 7)))).rgb.any()


def test_overlap_colours_show_both_and_either():
    picture = render_panel(Panel("d", image([[1, 1, 0, 0]]), kind="overlap", target=image([[5, 0, 5, 0]])))
    assert [tuple(c) for c in picture.rgb[0].tolist()] == [AGREE, ONLY_PREDICTION, ONLY_TARGET, (0, 0, 0)]
    assert [colour for colour, _ in picture.legend] == [AGREE, ONLY_PREDICTION, ONLY_TARGET]
    assert "Dice of this view 0.500" in picture.caption


def test_the_overlap_colours_differ_in_lightness_and_in_blue():
    # so that they are told apart without red-green vision, and in grey print
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (AGREE, ONLY_PREDICTION, ONLY_TARGET)]
    assert grey[0] - max(grey[1:]) > 60
    assert ONLY_TARGET[2] - ONLY_PREDICTION[2] > 150


def test_matches_colour_whole_objects():
    target = image([[1, 1, 1, 0, 2, 0]])
    prediction = image([[7, 7, 0, 0, 0, 8]])
    picture = render_panel(Panel("d", prediction, kind="matches", target=target))
    assert [tuple(c) for c in picture.rgb[0].tolist()] == [
        *[AGREE] * 3,
        (0, 0, 0),
        ONLY_TARGET,
        ONLY_PREDICTION,
    ]
    assert "1 matched, 1 false, 1 missed" in picture.caption


def test_the_error_has_one_colour_for_too_bright_and_one_for_too_dark():
    picture = render_panel(
        Panel("e", image([[3.0, 0.0, 1.0]]), kind="error", target=image([[1.0, 2.0, 1.0]]), contrast=(-2, 2))
    )
    assert [tuple(c) for c in picture.rgb[0].tolist()] == [ONLY_PREDICTION, ONLY_TARGET, (0, 0, 0)]


def test_labels_that_touch_have_different_colours(nuclei_2d):
    labels = nuclei_2d[1][:128, :128]
    rgb = render_panel(Panel("labels", image(labels), kind="labels")).rgb
    colours = {tuple(rgb[labels == k].max(axis=0)) for k in np.unique(labels)}
    assert len(colours) == len(np.unique(labels))
    assert not rgb[labels == 0].any()


def test_3d_is_projected_or_cut_and_the_caption_says_so(nuclei_3d):
    volume = image(nuclei_3d[0], ("z", "y", "x"))
    projected, cut = (render_panel(Panel("v", volume, view=view)) for view in ("max", "middle"))
    np.testing.assert_array_equal(projected.rgb, render_panel(Panel("v", volume.max("z"))).rgb)
    np.testing.assert_array_equal(cut.rgb, render_panel(Panel("v", volume.isel(z=15))).rgb)
    assert projected.caption.startswith("Maximum over 31 z planes")
    assert cut.caption.startswith("Z plane 15 of 31")


def test_a_later_time_point_is_left_out_and_said_so(nuclei_3d):
    picture = render_panel(Panel("t", image(nuclei_3d[0], ("time", "y", "x"))))
    assert picture.caption.startswith("Time 0 of 31")


def test_channels_get_colours_with_their_names():
    two = image([np.eye(4), 1 - np.eye(4)], ("channel", "y", "x"), channels=["dna", "actin"])
    picture = render_panel(Panel("c", two, contrast=(0, 1)))
    assert [word for _, word in picture.legend] == ["dna", "actin"]
    assert tuple(picture.rgb[0, 0]) == picture.legend[0][0]
    assert tuple(picture.rgb[0, 1]) == picture.legend[1][0]


def test_a_large_image_is_reduced_by_means_and_its_scale_bar_stays_true():
    values = np.kron(np.arange(12.0).reshape(3, 4), np.ones((10, 10)))
    full = render_panel(Panel("i", image(values, pixel=0.5), contrast=(0, 11)))
    small = render_panel(Panel("i", image(values, pixel=0.5), contrast=(0, 11)), longest=4)
    assert small.rgb.shape == (3, 4, 3)
    np.testing.assert_array_equal(small.rgb[:, :, 0], full.rgb[::10, ::10, 0])
    assert "Shown at 1/10 size" in small.caption
    assert small.pixel_um == 5
    for picture in (full, small):
        bar = scale_bar(picture)  # 20 µm wide: 22 % is 4.4
        assert bar.text == "2 µm"
        assert bar.fraction == pytest.approx(2 / 20)


@pytest.mark.parametrize(
    ("pixel", "text", "fraction"),
    [
        (None, "20 px", 0.2),
        (0.001, "20 nm", 0.2),
        (1.0, "20 µm", 0.2),
        (100.0, "2 mm", 0.2),
        (0.108, "2 µm", 2 / 10.8),
    ],
)
def test_scale_bars_are_round_and_no_longer_than_a_fifth_or_so(pixel, text, fraction):
    bar = scale_bar(render_panel(Panel("i", image(np.eye(100), pixel=pixel))))
    assert bar.text == text
    assert bar.fraction == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("panel", "says"),
    [
        (Panel("p", image([[0]]), kind="overlap"), "'p'.*needs a target"),
        (Panel("p", image([0], ("x",))), "no y"),
        (Panel("p", image([[0]]), kind="photo"), "unknown"),
        (Panel("p", image([[0, 1]]), kind="error", target=image([[0]])), "x=2.*x=1"),
    ],
)
def test_panels_that_cannot_be_drawn_say_why(panel, says):
    with pytest.raises(EvaluationError, match=says):
        render_panel(panel)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_red_green_and_blue_are_painted_in_their_own_colours(dtype):
    values = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype(dtype)
    values[:, 0, :9] = np.array([[255], [0], [0]])
    picture = render_panel(Panel("H&E", image(values, ("channel", *DIMS), channels=["red", "green", "blue"])))
    assert picture.rgb[0, 3].tolist() == [255, 0, 0]
    if dtype is np.uint8:
        np.testing.assert_array_equal(picture.rgb, np.moveaxis(values, 0, -1))
    assert picture.legend == ()
    assert "Own colours" in picture.caption
    named = render_panel(Panel("cells", image(values, ("channel", *DIMS), channels=["DAPI", "GFP", "RFP"])))
    assert named.rgb[0, 3].tolist() == [255, 0, 255]
