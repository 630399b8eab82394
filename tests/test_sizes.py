"""Sizes in bytes, from text and to text."""

import pytest

from im2im_zoo.core.sizes import bytes_text, counted, parse_size, size_option


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GB", 4 * 10**9),
        ("500 MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("1000000", 10**6),
        ("1.5k", 1500),
        (" 3b ", 3),
    ],
)
def test_sizes_are_read_with_decimal_and_binary_units(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "-1", "GB", "4 PB", "1e9", "4GiBB"])
def test_a_text_that_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="4GB"):
        parse_size(text)


def test_sizes_are_written_in_binary_units() -> None:
    assert [bytes_text(n) for n in (3, 2048, 3 * 2**20, 3 * 2**29)] == ["3 B", "2 KiB", "3 MiB", "1.5 GiB"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999B"),
        (1001, "1.01KB"),
        (678_288_588, "679MB"),
        (1_234_567_890, "1.24GB"),
        (5 * 10**13, "50.0TB"),
    ],
)
def test_a_size_as_an_option_is_rounded_up_and_read_again(count: int, text: str) -> None:
    assert size_option(count) == text
    assert count <= parse_size(text) <= 1.01 * count


def test_only_one_thing_is_in_the_singular() -> None:
    assert [counted(n, "tile") for n in (0, 1, 2, 1200)] == ["0 tiles", "1 tile", "2 tiles", "1,200 tiles"]
