"""MONAI dictionary transforms of a recipe, applied alike to input and target, and reproducible. Draws no patches."""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.transform import MapTransform, Transform
from torch import Tensor

from im2im_zoo.components import Component, as_component, build, check, is_component, resolve
from im2im_zoo.errors import ComponentError, DataError

KEYS = ("input", "target")
_WHERE = "data.augmentations"


class Augmentation:
    """Transforms in a row. A patch and a seed give the same result each time, in any process.

    That holds for all that MONAI calls `Randomizable`; a transform that draws from a global generator instead
    is not reproducible.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self._compose = Compose(list(transforms))

    def __call__(self, patch: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """The transformed patch.

        Args:
            patch: `input` and `target`, float32 with axes channel, (z,) y, x. May be written to.
            seed: of all that is random, 0 to 2**32 - 1.

        Raises:
            DataError: a transform changed a shape.
        """
        self._compose.set_random_state(seed=seed)
        with _untracked():
            made = self._compose(dict(patch))
        return {key: _plain(made[key], patch[key], key) for key in KEYS}


@contextmanager
def _untracked() -> Iterator[None]:
    """Without MONAI's record of what was done to a tensor, which takes more time than doing it."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def check_augmentations(components: Sequence[Component], allow_code: Collection[str] = ()) -> None:
    """Check the recipe's augmentations without building any.

    Raises:
        ComponentError: see `components.check`; or a MONAI transform of single arrays.
    """
    for number, component in enumerate(components):
        where = f"{_WHERE}.{number}"
        check(_with_keys(component, where, allow_code), where, allow_code=allow_code)
        _check_takes_dictionary(component, where, allow_code)


def build_augmentation(
    components: Sequence[Component], allow_code: Collection[str] = ()
) -> Augmentation | None:
    """The recipe's augmentations, or None if there are none.

    Raises:
        ComponentError: as `check_augmentations`, or what a transform refuses.
    """
    check_augmentations(components, allow_code)
    built = []
    for number, component in enumerate(components):
        where = f"{_WHERE}.{number}"
        built.append(build(_with_keys(component, where, allow_code), where, allow_code=allow_code))
    return Augmentation(built) if built else None


def _with_keys(component: Component, where: str, allow_code: Collection[str]) -> Component:
    """The component, and those within it (of `OneOf`), with `keys` where they take them and have none."""
    found = resolve(component.callable, f"{where}.callable", allow_code)
    kwargs = {k: _keys_within(v, f"{where}.kwargs.{k}", allow_code) for k, v in component.kwargs.items()}
    if "keys" not in kwargs and "keys" in _parameters(found):
        kwargs["keys"] = list(KEYS)
    return component.model_copy(update={"kwargs": kwargs})


def _keys_within(value: object, where: str, allow_code: Collection[str]) -> object:
    if is_component(value):
        return _with_keys(as_component(value, where), where, allow_code)
    if isinstance(value, list | tuple):
        return [_keys_within(v, f"{where}.{i}", allow_code) for i, v in enumerate(value)]
    return value


def _parameters(found: Any) -> Collection[str]:
    try:
        return inspect.signature(found).parameters.keys()
    except (TypeError, ValueError):
        return ()


def _check_takes_dictionary(component: Component, where: str, allow_code: Collection[str]) -> None:
    found = resolve(component.callable, f"{where}.callable", allow_code)
    if not inspect.isclass(found) or not issubclass(found, Transform):
        return
    if not issubclass(found, MapTransform | Compose):
        raise ComponentError(
            f"{where}.callable: {component.callable} transforms a single array; use a transform of dictionaries, which "
            f"does the same to input and target: MONAI's end in d, like {component.callable}d"
        )


def _plain(made: Any, before: Tensor, key: str) -> Tensor:
    tensor = made.as_tensor() if hasattr(made, "as_tensor") else torch.as_tensor(made)
    if tensor.shape != before.shape:
        raise DataError(
            f"{_WHERE} change the {key} from {tuple(before.shape)} to {tuple(tensor.shape)} (channel first); patches "
            "have to keep their shape: leave out what crops or resizes, and turn only patches of equal sides"
        )
    return tensor.to(torch.float32).contiguous()
