"""MONAI dictionary transforms of a recipe, applied alike to input, target and cost, and reproducible. Draws no patches."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.transform import MapTransform, Transform
from torch import Tensor

from im2im_zoo.core.errors import ComponentError, DataError
from im2im_zoo.recipe import Data
from im2im_zoo.recipe.components import (
    Component,
    build_component,
    check_component,
    is_component,
    parse_component,
    resolve_component,
)

Which = Literal["augmentations", "device_augmentations"]

# Of a transform's `mode`: what makes numbers between those of two labels.
_INTERPOLATING = frozenset({"linear", "bilinear", "trilinear", "bicubic", "area"})


class Augmentation:
    """Transforms in a row. A patch and its seeds give the same result each time, in any process.

    That holds for all that MONAI calls `Randomizable`; a transform that draws from a global generator instead
    is not reproducible.
    """

    def __init__(self, transforms: Sequence[Any], where: str) -> None:
        self._compose = Compose(list(transforms))
        self._where = where

    def __call__(self, patch: Mapping[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """The transformed patch.

        Args:
            patch: `input`, `target` and, if there are any, `cost`, float32 with axes channel, (z,) y, x. May be
                written to.
            seeds: of all that is random, 0 to 2**32 - 1: one, for all alike, or one for each, which are then
                transformed one by one.

        Raises:
            DataError: a transform changed a shape.
        """
        if len(seeds) == 1:
            return self._transformed(patch, seeds[0])
        made = [self._transformed({key: patch[key]}, seed) for key, seed in zip(patch, seeds, strict=True)]
        return {key: value for one in made for key, value in one.items()}

    def of_batch(self, batch: Mapping[str, Tensor], seeds: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """The transformed batch, where it is: each patch of it by its own seeds."""
        made = [self({key: batch[key][i] for key in batch}, own) for i, own in enumerate(seeds)]
        return {key: torch.stack([one[key] for one in made]) for key in batch}

    def _transformed(self, patch: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        self._compose.set_random_state(seed=seed)
        with _untracked():
            made = self._compose(dict(patch))
        return {key: _plain(made[key], before, key, self._where) for key, before in patch.items()}


@contextmanager
def _untracked() -> Iterator[None]:
    """Without MONAI's record of what was done to a tensor, which takes more time than doing it."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def check_augmentations(data: Data, allow_code: Collection[str] = ()) -> None:
    """Check the recipe's augmentations, those on the device too, without building any.

    Raises:
        ComponentError: see `components.check_component`; or a MONAI transform of single arrays.
    """
    for which in get_args(Which):
        _checked(data, which, allow_code)


def build_augmentation(
    data: Data, which: Which = "augmentations", allow_code: Collection[str] = (), *, labels: bool = False
) -> Augmentation | None:
    """The recipe's augmentations, or None if there are none.

    Args:
        data: of the recipe.
        which: those in a batch's making, or those on the device.
        allow_code: see `components.resolve_component`.
        labels: the target are instance labels: a transform whose `mode` interpolates by default, and is not given, takes
            the nearest voxel of target and cost.

    Raises:
        ComponentError: as `check_augmentations`, or what a transform refuses.
    """
    components = _checked(data, which, allow_code)
    if labels:
        components = {where: _keeping_labels(c, where, allow_code) for where, c in components.items()}
    built = [
        build_component(component, where, allow_code=allow_code) for where, component in components.items()
    ]
    return Augmentation(built, f"data.{which}") if built else None


def _checked(data: Data, which: Which, allow_code: Collection[str]) -> dict[str, Component]:
    """The components by their keys in the recipe, with what they are not given: see `_filled`."""
    filled = {}
    for number, component in enumerate(getattr(data, which)):
        where = f"data.{which}.{number}"
        filled[where] = _filled(component, where, data, allow_code)
        check_component(filled[where], where, allow_code=allow_code)
        _check_takes_dictionary(component, where, allow_code)
    return filled


def _filled(component: Component, where: str, data: Data, allow_code: Collection[str]) -> Component:
    """The component, and those within it (of `OneOf`), with `keys` where they take them and have none."""
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    kwargs = {k: _within(v, f"{where}.kwargs.{k}", data, allow_code) for k, v in component.kwargs.items()}
    takes = _parameters(found)
    if "keys" in takes:
        kwargs.setdefault("keys", ["input", "target", *(["cost"] if data.has_cost else [])])
        if data.pairing == "unpaired" and "allow_missing_keys" in takes:
            # Input and target are transformed one by one.
            _check_some_key(kwargs["keys"], where)
            kwargs.setdefault("allow_missing_keys", True)
    return component.model_copy(update={"kwargs": kwargs})


def _keeping_labels(component: Component, where: str, allow_code: Collection[str]) -> Component:
    """The component, and those within it, so that nothing is interpolated but the input."""
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    kwargs = {
        k: _labels_kept_within(v, f"{where}.kwargs.{k}", allow_code) for k, v in component.kwargs.items()
    }
    takes = _parameters(found)
    usual = takes["mode"].default if "mode" in takes else None
    if str(getattr(usual, "value", usual)) in _INTERPOLATING and "keys" in kwargs and "mode" not in kwargs:
        keys: Any = kwargs["keys"]
        named = [keys] if isinstance(keys, str) else keys
        kwargs["mode"] = [str(getattr(usual, "value", usual)) if k == "input" else "nearest" for k in named]
    return component.model_copy(update={"kwargs": kwargs})


def _labels_kept_within(value: object, where: str, allow_code: Collection[str]) -> object:
    if is_component(value):
        return _keeping_labels(parse_component(value, where), where, allow_code)
    if isinstance(value, list | tuple):
        return [_labels_kept_within(v, f"{where}.{i}", allow_code) for i, v in enumerate(value)]
    return value


def _check_some_key(keys: object, where: str) -> None:
    named = [keys] if isinstance(keys, str) else keys
    if isinstance(named, list | tuple) and not {"input", "target"} & set(named):
        raise ComponentError(f"{where}.kwargs.keys: {keys!r} has neither input nor target")


def _within(value: object, where: str, data: Data, allow_code: Collection[str]) -> object:
    if is_component(value):
        return _filled(parse_component(value, where), where, data, allow_code)
    if isinstance(value, list | tuple):
        return [_within(v, f"{where}.{i}", data, allow_code) for i, v in enumerate(value)]
    return value


def _parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):
        return {}


def _check_takes_dictionary(component: Component, where: str, allow_code: Collection[str]) -> None:
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    if not inspect.isclass(found) or not issubclass(found, Transform):
        return
    if not issubclass(found, MapTransform | Compose):
        raise ComponentError(
            f"{where}.callable: {component.callable} transforms a single array; use a transform of dictionaries, which "
            f"does the same to input and target: MONAI's end in d, like {component.callable}d"
        )


def _plain(made: Any, before: Tensor, key: str, where: str) -> Tensor:
    tensor = made.as_tensor() if hasattr(made, "as_tensor") else torch.as_tensor(made)
    if tensor.shape != before.shape:
        raise DataError(
            f"{where} change the {key} from {tuple(before.shape)} to {tuple(tensor.shape)} (channel first); patches "
            "have to keep their shape: leave out what crops or resizes, and turn only patches of equal sides"
        )
    return tensor.to(before).contiguous()
