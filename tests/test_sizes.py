"""Sizes in bytes, from text and to text."""

import pytest

from im2im_zoo.core.sizes import bytes_text, parse_size


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
