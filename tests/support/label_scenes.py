"""Label images of random scenes: objects that touch, nest, have holes and several parts, with ids of any size."""

import numpy as np
from hypothesis import strategies as st
from scipy.ndimage import label


@st.composite
def scenes(draw: st.DrawFn, ndim: int) -> np.ndarray:
    """Random label images (z,) y, x of int64."""
    shape = draw(st.tuples(*[st.integers(1, 24 if ndim == 2 else 9)] * ndim))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = draw(st.integers(0, 6))
    blobs = rng.integers(0, count + 1, shape) * (rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 0.95])))
    ids = np.concatenate(
        [[0], np.sort(rng.choice(draw(st.sampled_from([50, 2**40])), count, replace=False)) + 1]
    )
    return ids[blobs]


def disc(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """Where a ball is."""
    return sum((a - c) ** 2 for a, c in zip(np.indices(shape), centre, strict=True)) <= radius**2


def components(mask: np.ndarray) -> np.ndarray:
    """The labels of a mask."""
    return label(mask)[0]
