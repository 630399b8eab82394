"""The table of programs and the models of deepImageJ's JDLL and of QuPath have to say the same of a package."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jdll_rules
import numpy as np
import qupath_rules
from numpy.typing import NDArray
from program_rules import RefusalError

from im2im_zoo.package import Package, open_package
from im2im_zoo.package.reference import Reference
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict, consumer_table

JDLL, QUPATH = "deepImageJ (JDLL)", "QuPath"
PROGRAMS = (JDLL, QUPATH)
# The format that each takes first, of those that packages of ours have.
FORMATS = {JDLL: "onnx", QUPATH: "torchscript"}

# What the table has to say (right) where a program throws (left).
REASONS = {
    r"this\.modelID": "neither an id nor",
    r"Required field test_inputs": "for an older format",
    r"cannot be cast to class java\.lang\.String|but was BEGIN_OBJECT": "as plain file names only",
    r"Can't parse data range": "whose gain or offset is one number",
    r"halo would be bigger|with a different shape": "pixel size of an output",
    r"a different data type": "takes outputs of float32 only",
    r"Invalid tile size": "its tiles are",
    r"Invalid method '(\w+)'": r"it has no \1",
    r"a depth of 1": "it has no axis z",
    r"Only single (\w+)s": r"it takes one \1",
    r"Index 1 out of bounds": "fails with a mean and std for each channel",
    r"'m(?:in|ax)' parameter was not set": "needs both limits",
    r"argument '(?:min|max)_percentile' of": "has no percentiles",
    r"Object\.getClass": "that is null",
    r"'threshold' parameter has|'axis' of the processing transformation 'binarize'|BEGIN_ARRAY": "no threshold for each",
    r"\(axes\)|its \"kwargs\"": "fails without axes",
}
# And where it deviates from the format; it leaves out an operation that is not here.
DEVIATIONS = {
    "percentiles": "takes values of pixels for percentiles",
    "statistics of channels": "is wrong: each changes all others",
    "gains of channels": "takes the first gain and offset for all channels",
    "reference tensor": "ignores the reference tensor",
    "eps": "adds 1e-6",
    "casts": "leaves out the cast",
    "ensure_dtype": "leaves out the cast|the result is float32",
    "global": "each value depends on the whole image",
    "statistics of tiles": "takes its statistics of each tile",
    "tiles without overlap": "there are seams",
    "other axes": "is over y and x, whatever its axes are",
    "clip percentiles": "has no percentiles",
}
# These change a result by less than a hundredth of its largest value, and are a remark.
_MINOR = {"percentiles"}
# These change nothing of what is computed of an image in one tile, but what is beyond its border.
_OF_TILES = {"global", "statistics of tiles", "tiles without overlap"}
# Processing that the RDF cannot describe, which no model knows.
_OUTSIDE = re.compile("it has to be given the image that|it gives the maps, not the labels")
# Of the largest output: what two runtimes, and float32 against float64 in the processing, may differ by.
TOLERANCE = 2e-4
MINOR_TOLERANCE = 0.01


@dataclass(frozen=True)
class Outcome:
    """Outcome of a model of a program for the test input of a package.

    Attributes:
        refusal: what it throws, empty if it runs.
        deviations: on this image and on any larger one.
        result: the output.
        padding: voxels that the image is mirrored by before and after each axis, if it is one tile.
    """

    refusal: str
    deviations: frozenset[str] = frozenset()
    result: NDArray[Any] | None = None
    padding: tuple[tuple[int, int], ...] | None = None


def outcome(program: str, folder: Path, image: NDArray[Any]) -> Outcome:
    """Run the model of a program on an image in the axes of the package's input."""
    try:
        return _jdll(folder, image) if program == JDLL else _qupath(folder, image)
    except RefusalError as error:
        return Outcome(str(error))


def check_agreement(program: str, folder: Path) -> None:
    """Assert that the verdicts of the table on a package are what the model of the program gives for its test input."""
    with open_package(folder) as package:
        verdicts = [v for v in consumer_table(package) if v.consumer == program]
        (verdict,) = (v for v in verdicts if v.weights_format == FORMATS[program])
        assert verdict.checked == "modelled"
        assert verdict.date
        reference = Reference.of(package)
        (raw,) = reference.raw.values()
        found = outcome(program, folder, raw.to_numpy())
        assert_same(verdict, found)
        if found.result is not None and found.deviations <= _OF_TILES | _MINOR and found.padding is not None:
            expected = _mirrored(package, reference, found.padding, FORMATS[program])
            assert found.result.shape == expected.shape
            scale = float(np.abs(expected).max()) or 1.0
            difference = float(np.abs(found.result.astype(np.float64) - expected).max()) / scale
            allowed = MINOR_TOLERANCE if found.deviations & _MINOR else TOLERANCE
            assert difference < allowed, f"{program}: {difference:.2g} of the largest output"


def assert_same(verdict: ConsumerVerdict, found: Outcome) -> None:
    """Assert that a verdict of the table is that of a model, for the same reason."""
    said = f"the table says {verdict.verdict} ({verdict.reason}), the model: {found.refusal or set(found.deviations)}"
    if found.refusal:
        assert verdict.verdict == "cannot", said
        patterns = [
            m.expand(reason) for text, reason in REASONS.items() if (m := re.search(text, found.refusal))
        ]
        assert patterns, f"no reason of the table is known for {found.refusal}"
        assert re.search(patterns[0], verdict.reason), said
        return
    expected = "differs" if found.deviations - _MINOR or _OUTSIDE.search(verdict.reason) else "runs"
    assert verdict.verdict == expected, said
    # Remarks are left out where there is more to say.
    for deviation in found.deviations - _MINOR if expected == "differs" else found.deviations:
        phrase = DEVIATIONS.get(deviation, f"it leaves out, with only a line in its log, {deviation}")
        assert re.search(phrase, verdict.reason), said
    if expected == "differs":
        reasons = [r for r in verdict.reason.split("; ") if not _OUTSIDE.search(r)]
        assert len(reasons) == len(found.deviations - _MINOR), said


def _jdll(folder: Path, image: NDArray[Any]) -> Outcome:
    model = jdll_rules.open_model(folder)
    result = model.predict(image)
    tiles, _ = model.tiles(image.shape)
    padding = tiles.padding if len(tiles.starts) == 1 else None
    return Outcome("", frozenset(model.deviations), result, padding)


def _qupath(folder: Path, image: NDArray[Any]) -> Outcome:
    model = qupath_rules.open_model(folder)
    result = model.predict(image)
    y, x = (image.shape[model.order.index(letter)] for letter in "yx")
    larger = model.deviations_of((model.tile[0] + 1, model.tile[1] + 1))
    padding = [(0, 0)] * image.ndim
    for letter, size, tile in zip("yx", (y, x), model.tile, strict=True):
        low = (tile - size) // 2
        padding[model.order.index(letter)] = (low, tile - size - low)
    fits = y <= model.tile[0] and x <= model.tile[1]
    return Outcome("", frozenset(model.deviations | larger), result, tuple(padding) if fits else None)


def _mirrored(
    package: Package, reference: Reference, padding: tuple[tuple[int, int], ...], weights_format: str
) -> NDArray[Any]:
    """Return what im2im_zoo gives for the test input once it is preprocessed and then mirrored at its border."""
    (prepared,) = reference.inputs
    assert prepared is not None
    engine = package.open_engine(weights_format)
    (output,) = engine([np.pad(prepared, padding, mode="symmetric")])
    inside = tuple(slice(low, size - high) for (low, high), size in zip(padding, output.shape, strict=True))
    (result,) = reference.finish([np.ascontiguousarray(output[inside])]).values()
    return result
