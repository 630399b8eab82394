"""Outputs that an earlier run of the same command has completed, known by the attributes that it wrote into them.

    im2im_zoo:                attributes of an output
        output                id of the model's output, or `instances`
        identity              hashes of package, images and settings, and the version of im2im_zoo
        decisions, plan       see `prepare.decisions_of` and `Plan.to_json`

An output takes its path in one step, so one that states an identity is complete.
"""

import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.images import format_of, open_image
from im2im_zoo.images.labels_group import image_of_label
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.target import blocks

Hashes = Callable[[], Mapping[str, str]]

_PARTS = {"package": "another package", "images": "another image", "settings": "other settings"}


@dataclass(frozen=True, slots=True)
class Result:
    """A path that a prediction writes, and the id of the output there."""

    path: Path
    output: str


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """Decisions and plan of the run that completed an output, as JSON values."""

    decisions: Mapping[str, Any]
    plan: Mapping[str, Any]


def identity_hashes(identity: Mapping[str, Any]) -> dict[str, str]:
    """Return the identity of a prediction as short values without paths, to be written into an output."""
    hashes = {part: _sha256(identity[part]) for part in _PARTS}
    return {**hashes, "im2im_zoo": str(identity["im2im_zoo"])}


def find_earlier_run(results: Sequence[Result], hashes: Hashes) -> EarlierRun | None:
    """Return the run of the same command that completed all results; None if one is missing or of another command.

    Args:
        results: of the command.
        hashes: returns its `identity_hashes`; called only if they are needed, as an image in memory is hashed as a whole.
    """
    found = [_attributes(result.path) for result in results]
    if not found or any(
        _difference(result, attributes, hashes) for result, attributes in zip(results, found, strict=True)
    ):
        return None
    return EarlierRun(found[0]["decisions"], found[0]["plan"])


def describe_difference(result: Result, hashes: Hashes) -> str:
    """Return how an existing output differs from the one that a command would write, to follow its path in a message.

    Args:
        result: of the command.
        hashes: see `find_earlier_run`.
    """
    within = image_of_label(result.path)
    kind = format_of(result.path if within is None else within, "write")
    if kind is not None and "attributes" not in kind.keeps:
        return f"already exists, and a {kind.name} file does not state the command that wrote it"
    difference = _difference(result, _attributes(result.path), hashes)
    return (
        f"already exists, {difference}"
        if difference
        else "already exists, but not all outputs of this command do"
    )


def count_objects(labels: xr.DataArray, space: Collection[str]) -> int:
    """Return the number of objects of a label image, counted in blocks; those of each sample are numbered from 1.

    Args:
        labels: lazy.
        space: axes of one sample.
    """
    others = [str(a) for a in labels.dims if a not in space]
    count = 0
    for places in itertools.product(*(range(labels.sizes[a]) for a in others)):
        sample = labels.isel(dict(zip(others, places, strict=True)))
        chunks = labels.encoding.get("preferred_chunks") or {}
        sides = tuple(int(chunks.get(a, 1)) for a in sample.dims)
        keys = blocks(sample.shape, sides, sample.dtype.itemsize)
        count += max((int(sample[key].to_numpy().max(initial=0)) for key in keys), default=0)
    return count


def _attributes(path: Path) -> dict[str, Any]:
    """Return the attributes that a prediction wrote into an image; none if there is no image."""
    if not path.exists():
        return {}
    try:
        return dict(open_image(path).attrs.get(ATTRIBUTES_KEY) or {})
    except (ImageError, AxesError):
        return {}


def _difference(result: Result, attributes: Mapping[str, Any], hashes: Hashes) -> str:
    """Return what an output is instead of the result of a command; nothing if it is that."""
    found = attributes.get("identity")
    if not isinstance(found, Mapping) or not {"decisions", "plan"} <= set(attributes):
        return "and does not state the command that wrote it"
    if attributes.get("output") != result.output:
        return f"written for another output ({attributes.get('output')})"
    wanted = hashes()
    if found.get("im2im_zoo") != wanted["im2im_zoo"]:
        return f"written by another version of im2im_zoo ({found.get('im2im_zoo')})"
    others = [words for part, words in _PARTS.items() if found.get(part) != wanted[part]]
    return f"written from {' and '.join(others)}" if others else ""


def _sha256(value: Any) -> str:
    return sha256_of(json.dumps(value, sort_keys=True, default=str))
