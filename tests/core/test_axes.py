"""Axes that a recipe or a user writes: any value gives axes or a message."""

from typing import Any

import pytest

from im2im_zoo.core.axes import parse_axes
from im2im_zoo.core.errors import AxesError


@pytest.mark.parametrize("axes", [["y", 2**63], [None, "x"], [["y"]], 5, {}, "", "yy", "q"])
def test_what_is_no_axes_is_refused_with_those_that_there_are(axes: Any) -> None:
    with pytest.raises(AxesError, match=r"use letters of 'bitczyx'|occurs more than once"):
        parse_axes(axes)


def test_axes_are_letters_or_names() -> None:
    assert (
        parse_axes("cyx")
        == parse_axes(["channel", "Y", "x"])
        == parse_axes("c, y, x")
        == ("channel", "y", "x")
    )
