"""Packages of format 0.4 that the converter of bioimageio.spec cannot read as they are written."""

from typing import Any

import pytest

from im2im_zoo.package.format_0_4 import make_convertible


def rdf(sizes: tuple[list[int], list[int]], axes: tuple[str, str] = ("bcyx", "bcyx")) -> dict[str, Any]:
    return {
        "format_version": "0.4.9",
        "inputs": [{"name": "raw", "axes": axes[0], "shape": sizes[0]}],
        "outputs": [
            {
                "name": "out",
                "axes": axes[1],
                "shape": sizes[1],
                "halo": [8 if axis in "zyx" else 0 for axis in axes[1]],
            }
        ],
    }


def sizes_of(content: dict[str, Any], sizes: list[int]) -> list[float]:
    """The size that the shape of the output means, by the definition of format 0.4."""
    shape = content["outputs"][0]["shape"]
    known = [size * 1.0 for size in sizes]
    return [
        2 * offset if scale is None else size * scale + 2 * offset
        for scale, offset, size in zip(shape["scale"], shape["offset"], known, strict=True)
    ]


@pytest.mark.parametrize("output", [[1, 2, 256, 256], [1, 2, 512, 512], [1, 2, 128, 128], [1, 2, 72, 72]])
def test_a_fixed_size_with_a_halo_follows_the_input(output: list[int]) -> None:
    content = make_convertible(rdf(([1, 3, 256, 256], output)))
    assert content["outputs"][0]["shape"]["reference_tensor"] == "raw"
    assert sizes_of(content, [1, 3, 256, 256]) == output


def test_what_can_be_converted_stays_as_it_is() -> None:
    without = rdf(([1, 3, 256, 256], [1, 2, 256, 256]))
    without["outputs"][0]["halo"] = [0, 0, 0, 0]
    newer = rdf(([1, 3, 256, 256], [1, 2, 256, 256])) | {"format_version": "0.5.3"}
    growing = rdf(([1, 3, 256, 256], [1, 2, 256, 256]))
    growing["inputs"][0]["shape"] = {"min": [1, 3, 32, 32], "step": [0, 0, 16, 16]}
    for content in (without, newer, growing, {"format_version": "0.4.9", "outputs": "nothing"}):
        assert make_convertible(content) == content
