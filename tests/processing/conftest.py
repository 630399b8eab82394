"""A lazy image that records what is read of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing


@dataclass
class Reads:
    """Bytes of each region that was read."""

    sizes: list[int] = field(default_factory=list)


class RecordingArray(BackendArray):
    def __init__(self, values: NDArray[Any], reads: Reads) -> None:
        self.values, self.reads = values, reads
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Any:
        part = self.values[key]
        self.reads.sizes.append(part.nbytes)
        return np.array(part)


Lazy = Callable[..., tuple[xr.DataArray, Reads]]


@pytest.fixture(scope="session")
def lazy() -> Lazy:
    def make(values: NDArray[Any], dims: tuple[str, ...], chunks: dict[str, int] | None = None) -> Any:
        reads = Reads()
        variable = xr.Variable(
            dims,
            indexing.LazilyIndexedArray(RecordingArray(values, reads)),
            encoding={"preferred_chunks": chunks or {}},
        )
        return xr.DataArray(variable, name="raw"), reads

    return make
