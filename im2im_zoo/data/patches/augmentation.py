"""Reproducible augmentation with a recipe's MONAI dictionary transforms, the same for input, target and cost."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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

AugmentationKey = Literal["augmentations", "device_augmentations"]

# Values of a transform's `mode` that interpolate, which would make new numbers between labels.
_INTERPOLATING = frozenset({"linear", "bilinear", "trilinear", "bicubic", "area"})


class Augmentation:
    """Sequence of transforms. A patch and its seeds give the same result each time, in any process.

    This holds for MONAI's `Randomizable` transforms; a transform that uses a global random generator is not reproducible.
    """

    def __init__(self, transforms: Sequence[Any], where: str) -> None:
        self._compose = Compose(list(transforms))
        self._where = where

    def __call__(self, patch: Mapping[str, Tensor], seeds: Sequence[int]) -> dict[str, Tensor]:
        """Transform a patch.

        Args:
            patch: `input`, `target` and, if there are cost maps, `cost`, float32 with axes channel, (z,) y, x. May be
                modified.
            seeds: 0 to 2**32 - 1: one for all images together, or one for each, which are then transformed separately.

        Raises:
            DataError: a transform changed a shape.
        """
        if len(seeds) == 1:
            return self._transform(patch, seeds[0])
        made = [self._transform({key: patch[key]}, seed) for key, seed in zip(patch, seeds, strict=True)]
        return {key: value for one in made for key, value in one.items()}

    def apply_to_batch(
        self, batch: Mapping[str, Tensor], seeds: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """Transform a batch on its device, each patch with its own seeds."""
        made = [self({key: batch[key][i] for key in batch}, own) for i, own in enumerate(seeds)]
        return {key: torch.stack([one[key] for one in made]) for key in batch}

    def _transform(self, patch: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        self._compose.set_random_state(seed=seed)
        with _disable_tracking():
            made = self._compose(dict(patch))
        return {key: _to_plain_tensor(made[key], before, key, self._where) for key, before in patch.items()}


@contextmanager
def _disable_tracking() -> Iterator[None]:
    """Disable MONAI's record of transforms on a tensor, which takes longer than the transforms."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def check_augmentations(data: Data, allow_code: Collection[str] = ()) -> None:
    """Check the recipe's augmentations, including those on the device, without building any.

    Raises:
        ComponentError: see `components.check_component`; or a MONAI transform of single arrays.
    """
    for which in get_args(AugmentationKey):
        _check_components(data, which, allow_code)


def build_augmentation(
    data: Data,
    which: AugmentationKey = "augmentations",
    allow_code: Collection[str] = (),
    *,
    labels: bool = False,
) -> Augmentation | None:
    """Build the recipe's augmentations; None if there are none.

    Args:
        data: the recipe's section.
        which: the key of the augmentations, before batching or on the device.
        allow_code: see `components.resolve_component`.
        labels: whether the targets are instance labels: transforms that interpolate by default then use the nearest voxel
            for target and cost, unless their `mode` is set.

    Raises:
        ComponentError: as `check_augmentations`, or a transform that rejects its arguments.
    """
    components = _check_components(data, which, allow_code)
    if labels:
        components = {where: _set_nearest_mode(c, where, allow_code) for where, c in components.items()}
    built = [
        build_component(component, where, allow_code=allow_code) for where, component in components.items()
    ]
    return Augmentation(built, f"data.{which}") if built else None


def _check_components(
    data: Data, which: AugmentationKey, allow_code: Collection[str]
) -> dict[str, Component]:
    """Check the components and return them by their keys in the recipe, completed by `_fill_keys`."""
    filled = {}
    for number, component in enumerate(getattr(data, which)):
        where = f"data.{which}.{number}"
        filled[where] = _fill_keys(component, where, data, allow_code)
        check_component(filled[where], where, allow_code=allow_code, inner_kind=Transform)
        _check_takes_dictionary(component, where, allow_code)
    return filled


def _fill_keys(component: Component, where: str, data: Data, allow_code: Collection[str]) -> Component:
    """Set `keys` in a component, and in those nested in it (e.g. in `OneOf`), where they take it and have none."""

    def fill(takes: Mapping[str, inspect.Parameter], kwargs: dict[str, Any], where: str) -> None:
        if "keys" not in takes:
            return
        kwargs.setdefault("keys", ["input", "target", *(["cost"] if data.has_cost else [])])
        if data.pairing == "unpaired" and "allow_missing_keys" in takes:
            # Input and target are transformed separately.
            _check_some_key(kwargs["keys"], where)
            kwargs.setdefault("allow_missing_keys", True)

    return _change_arguments(component, where, fill, allow_code)


def _set_nearest_mode(component: Component, where: str, allow_code: Collection[str]) -> Component:
    """Set `mode` in a component, and in those nested in it, so that only the input is interpolated."""

    def set_mode(takes: Mapping[str, inspect.Parameter], kwargs: dict[str, Any], where: str) -> None:
        usual = takes["mode"].default if "mode" in takes else None
        mode = str(getattr(usual, "value", usual))
        if mode in _INTERPOLATING and "keys" in kwargs and "mode" not in kwargs:
            keys = kwargs["keys"]
            named = [keys] if isinstance(keys, str) else keys
            kwargs["mode"] = [mode if k == "input" else "nearest" for k in named]

    return _change_arguments(component, where, set_mode, allow_code)


def _change_arguments(
    component: Component,
    where: str,
    change: Callable[[Mapping[str, inspect.Parameter], dict[str, Any], str], None],
    allow_code: Collection[str],
) -> Component:
    """Return a component whose arguments, and those of components nested in it, were changed, the innermost first.

    Args:
        component: of the recipe.
        where: its key.
        change: called with the parameters of a component, its arguments, which it may change, and its key.
        allow_code: see `components.resolve_component`.
    """

    def within(value: object, where: str) -> object:
        if is_component(value):
            return _change_arguments(parse_component(value, where), where, change, allow_code)
        if isinstance(value, list | tuple):
            return [within(v, f"{where}.{i}") for i, v in enumerate(value)]
        return value

    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    kwargs = {k: within(v, f"{where}.kwargs.{k}") for k, v in component.kwargs.items()}
    change(_list_parameters(found), kwargs, where)
    return component.model_copy(update={"kwargs": kwargs})


def _check_some_key(keys: object, where: str) -> None:
    named = [keys] if isinstance(keys, str) else keys
    if isinstance(named, list | tuple) and not {"input", "target"} & set(named):
        raise ComponentError(f"{where}.kwargs.keys: {keys!r} has neither input nor target; add at least one")


def _list_parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):
        return {}


def _check_takes_dictionary(component: Component, where: str, allow_code: Collection[str]) -> None:
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    if not inspect.isclass(found) or not issubclass(found, Transform):
        if component.package in allow_code:
            return
        raise ComponentError(f"{where}.callable: {component.callable} is not a transform; choose one that is")
    if not issubclass(found, MapTransform | Compose):
        raise ComponentError(
            f"{where}.callable: {component.callable} transforms a single array; use a transform of dictionaries, which "
            f"transforms input and target together: MONAI's end in d, like {component.callable}d"
        )


def _to_plain_tensor(made: Any, before: Tensor, key: str, where: str) -> Tensor:
    tensor = made.as_tensor() if hasattr(made, "as_tensor") else torch.as_tensor(made)
    if tensor.shape != before.shape:
        raise DataError(
            f"{where} change the {key} from {tuple(before.shape)} to {tuple(tensor.shape)} (channel first), but patches "
            "have to keep their shape: remove transforms that crop or resize, and rotate by 90 degrees only patches of equal sides"
        )
    return tensor.to(before).contiguous()
