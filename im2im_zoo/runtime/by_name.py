"""Predictions in one call, with the fields of `Settings`, `Thresholding`, `Format` and `Resources` as keyword arguments."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.instances.thresholding import Thresholding
from im2im_zoo.package import Package
from im2im_zoo.runtime.execute.prediction_result import PredictionResult
from im2im_zoo.runtime.inputs import Image
from im2im_zoo.runtime.predictor import Images, Model, open_package_model
from im2im_zoo.runtime.settings import Format, Resources, Settings

_FORMAT = {f.name for f in fields(Format)}
_THRESHOLDING = {f.name for f in fields(Thresholding)}
_SETTINGS = {f.name for f in fields(Settings)} - {"format", "thresholding"}
_RESOURCES = {f.name for f in fields(Resources)}


def split_options(options: Mapping[str, Any]) -> tuple[Settings, Resources, dict[str, Any]]:
    """Split options by name into settings, resources, and the options that are neither."""
    form = Format(**{k: v for k, v in options.items() if k in _FORMAT})
    thresholding = Thresholding(**{k: v for k, v in options.items() if k in _THRESHOLDING})
    chosen = {k: v for k, v in options.items() if k in _SETTINGS}
    settings = Settings(**chosen, format=form, thresholding=thresholding)
    resources = Resources(**{k: v for k, v in options.items() if k in _RESOURCES})
    known = _FORMAT | _THRESHOLDING | _SETTINGS | _RESOURCES
    others = {k: v for k, v in options.items() if k not in known}
    return settings, resources, others


def predict(
    package: Package | str | Path, image: Image, output: str | Path, **options: Any
) -> PredictionResult:
    """Predict an image with a package and write the result; see `Model.predict`.

    Args:
        options: fields of `Settings`, `Thresholding`, `Format` and `Resources`; arguments of `Model.predict`; `allow_code`, `engine` and `cost`
            of `Model`.
    """
    settings, resources, others = split_options(options)
    model = _model(package, others)
    try:
        return model.predict(image, output, settings=settings, resources=resources, **others)
    finally:
        if model.package is not package:
            model.close()


def predict_arrays(package: Package | str | Path, image: Images, **options: Any) -> dict[str, xr.DataArray]:
    """Predict images with a package and return all outputs in memory; see `Model.predict_arrays` and `predict`."""
    settings, resources, others = split_options(options)
    return _model(package, others).predict_arrays(image, settings=settings, resources=resources, **others)


def predict_array(package: Package | str | Path, image: Images, **options: Any) -> xr.DataArray:
    """Predict an image with a package of one output and return it in memory; see `Model.predict_array` and `predict`."""
    settings, resources, others = split_options(options)
    return _model(package, others).predict_array(image, settings=settings, resources=resources, **others)


def _model(package: Package | str | Path, others: dict[str, Any]) -> Model:
    """Return the model of a package, with its arguments taken out of the options."""
    own = {key: others.pop(key) for key in ("engine", "cost") if key in others}
    model = open_package_model(package, allow_code=others.pop("allow_code", False))
    return Model(model.package, model.allow_code, **own) if own else model
