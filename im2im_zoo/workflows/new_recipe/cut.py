"""Cutting of a single pair of images in two, as one image cannot both train and validate."""

from pathlib import Path

import xarray as xr

from im2im_zoo.core.atomic import atomic_output
from im2im_zoo.core.errors import DataError
from im2im_zoo.data.pairing.image_pair import open_image_pair
from im2im_zoo.data.pairing.pairing import list_pairs
from im2im_zoo.images import write_image
from im2im_zoo.recipe import Data
from im2im_zoo.workflows.new_recipe.survey import ImageSurvey, placeholder_recipe, survey_images

_TRAIN = 0.75
# Voxels along the cut axis of the image, and of the part that validates.
_LEAST, _LEAST_HELD_OUT = 48, 16


def cut_single_pair(survey: ImageSurvey, folder: Path) -> ImageSurvey:
    """Write the parts of a single pair (or image) into a folder, three quarters to train, and survey that folder.

    Args:
        survey: of one pair.
        folder: to create, with `train` and `val`.

    Raises:
        DataError: the folder exists, or the image is too small.
    """
    if folder.exists():
        raise DataError(f"{folder} already exists; remove it, or give another --output")
    recipe = placeholder_recipe(survey.fields, survey.space)
    [pair] = list_pairs(Data(**survey.fields))
    sample = open_image_pair(pair, recipe)
    axis = max(("y", "x"), key=lambda a: sample.input.sizes[a])
    size = sample.input.sizes[axis]
    if size < _LEAST:
        raise DataError(
            f"{pair.input} is the only image, and too small to be cut into a part to train and one to validate; add images"
        )
    sides = {"images": sample.input} | ({"targets": sample.target} if survey.layout.has_targets else {})
    at = min(round(_TRAIN * size), size - _LEAST_HELD_OUT)
    with atomic_output(folder) as made:
        for part, region in (("train", slice(0, at)), ("val", slice(at, size))):
            for kind, image in sides.items():
                (made / part / kind).mkdir(parents=True)
                write_image(_part(image, axis, region), made / part / kind / f"{pair.name}.ome.tif")
    return survey_images(folder, paired=survey.layout.has_targets)


def _part(image: xr.DataArray, axis: str, region: slice) -> xr.DataArray:
    part = image.isel({axis: region})
    part.attrs = dict(image.attrs)
    return part
