"""Samples of instances: worms that touch and cross, and cost maps that leave out what the cut goes through."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from im2im_zoo.images import open_image
from im2im_zoo.samples import SAMPLES, write_samples


def test_cost_maps_leave_out_the_objects_that_are_in_both_parts_and_no_others(tmp_path: Path) -> None:
    folder = write_samples("nuclei_instances_3d", tmp_path / "images")
    labels, costs = (
        [open_image(next((folder / part / kind).iterdir())).to_numpy() for part in ("train", "val")]
        for kind in ("targets", "costs")
    )
    both = set(np.unique(labels[0])) & set(np.unique(labels[1])) - {0}
    assert len(both) == 12
    for part in range(2):
        np.testing.assert_array_equal(costs[part] == 0, np.isin(labels[part], list(both)))


def test_worms_are_long_and_some_are_cut_by_others_that_lie_over_them() -> None:
    image, labels = SAMPLES["worms_2d"].pair()
    numbers = np.unique(labels)[1:]
    parts = [ndimage.label(labels == number)[1] for number in numbers]
    assert len(numbers) > 100
    assert sum(n > 1 for n in parts) > 20
    areas = np.bincount(labels.ravel())[numbers]
    # Of a radius of 5 or 6 pixels; one that lies curled up on itself is thicker.
    radii = [ndimage.distance_transform_edt(labels == number).max() for number in numbers]
    assert np.median(radii) < 7
    assert areas.mean() > 350
    assert image[labels > 0].mean() > 2 * image[labels == 0].mean()


def test_organelles_are_several_in_most_nuclei_and_lie_within_them() -> None:
    image, labels = SAMPLES["organelles_instances_3d"].pair()
    nuclei = ndimage.zoom(SAMPLES["nuclei_3d"].pair()[1], (1.5, 2, 2), order=0)
    np.testing.assert_array_equal(labels[labels > 0], nuclei[labels > 0])
    numbers = np.unique(labels)[1:]
    parts = [ndimage.label(labels == number, np.ones((3, 3, 3)))[1] for number in numbers]
    assert len(numbers) == len(np.unique(nuclei)) - 1
    assert np.mean(np.array(parts) > 1) > 0.7
    within = (nuclei > 0) & (labels == 0)
    assert image[labels > 0].mean() > 2 * image[within].mean()
    assert image[within].mean() > 1.05 * image[nuclei == 0].mean(), "nuclei are seen, dimly"
