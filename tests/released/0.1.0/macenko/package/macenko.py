"""Stain normalisation of bright-field images of stained tissue, after Macenko. Needs numpy alone.

Two stains absorb light independently (Beer and Lambert): D = S C, with the optical density D = -log10(I / I0) of the
three colours, S the two stains' unit vectors of density as columns (3 x 2), and C their concentrations. Of each image

    1. D of all pixels; those with |D| < beta are no tissue, and left out of what follows up to 6
    2. the plane of the two largest right singular vectors of D (rows: pixels), the first one pointing to positive D
    3. the angle of each pixel's projection onto that plane, from the first vector
    4. S: the directions at the alpha-th and (100 - alpha)-th percentile of the angles; the one with more red first
    5. C by least squares
    6. m: the 99th percentile of each stain's concentration
    7. the image with the reference's stains: I0 10^(-S_ref diag(m_ref / m) C), of all pixels

Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009, 1107-1110,
doi:10.1109/ISBI.2009.5193250, with beta = 0.15 and alpha = 1. (Programs that want D >= beta in each colour lose the
pixels of pure eosin, which hardly absorbs red, and find a wrong second stain.) The reference for haematoxylin and eosin
is the one that most programs have (M. Veta's, 2013): its maxima 1.9705 and 1.0308, of natural logarithms, are here
divided by ln 10.

Statistics are of the whole image, never of a tile. An image that has not two stains (no tissue, one colour, grey) is
given back as it is.
"""

import numpy as np
from numpy.typing import NDArray

REFERENCE_STAINS = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
REFERENCE_MAXIMA = (0.8558, 0.4477)

# Pixels that are worked on at once; and of tissue, less is no image of tissue.
_BLOCK = 2**18
_FEWEST_PIXELS = 16
# Radians between two stains; percentiles of rounded 8-bit values of a single colour differ by less.
_LEAST_ANGLE = 0.01


class Macenko:
    """See the file's own text; made by `macenko`."""

    def __init__(
        self,
        axes: str,
        intensity: float,
        beta: float,
        alpha: float,
        stains: tuple[tuple[float, ...], ...],
        maxima: tuple[float, ...],
    ) -> None:
        if "c" not in axes or len(set(axes)) != len(axes):
            raise ValueError(
                f"axes {axes!r}: give each axis of the image once, c among them, for example cyx"
            )
        if not (intensity > 0 and beta > 0 and 0 <= alpha < 50):
            raise ValueError(
                f"intensity {intensity}, beta {beta}, alpha {alpha}: the first two are above 0, alpha is 0 to 50"
            )
        self.axes = axes.removeprefix("b")
        self.intensity, self.beta, self.alpha = float(intensity), float(beta), float(alpha)
        self.stains = np.array(stains, np.float64)
        self.maxima = np.array(maxima, np.float64)
        if self.stains.shape != (3, 2) or self.maxima.shape != (2,):
            raise ValueError("the reference has 3 x 2 numbers of stains (colours x stains) and 2 maxima")
        self.stains /= np.linalg.norm(self.stains, axis=0)

    def density(self, pixels: NDArray[np.generic]) -> NDArray[np.float64]:
        """The optical density of intensities: 0 for I0 and above; black is taken for I0 / 255, which has a logarithm."""
        shares = np.clip(np.divide(pixels, self.intensity), 1 / 255, 1.0)
        return np.asarray(-np.log10(shares), np.float64)

    def measure(self, pixels: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The stains S (3, 2) and the maxima m (2,) of an image's pixels (3, n); None if it has not two stains."""
        starts = range(0, pixels.shape[1], _BLOCK)
        products, count = np.zeros((3, 3)), 0
        for start in starts:
            tissue = self._tissue(pixels, start)
            products += tissue @ tissue.T
            count += tissue.shape[1]
        if count < _FEWEST_PIXELS:
            return None
        # The eigenvectors of D^T D, in ascending order, are the right singular vectors of D.
        plane = np.linalg.eigh(products)[1][:, [2, 1]]
        plane[:, 0] *= np.sign(plane[:, 0].sum())
        ends = np.percentile(
            np.concatenate([_angles(plane.T @ self._tissue(pixels, start)) for start in starts]),
            [self.alpha, 100 - self.alpha],
        )
        if ends[1] - ends[0] < _LEAST_ANGLE:
            return None
        stains = plane @ np.stack([np.cos(ends), np.sin(ends)])
        if stains[0, 0] < stains[0, 1]:
            stains = stains[:, ::-1]
        separate = np.linalg.pinv(stains)
        concentrations = [separate @ self._tissue(pixels, start) for start in starts]
        maxima = np.percentile(np.concatenate(concentrations, axis=1), 99, axis=1)
        return (stains, maxima) if (maxima > 0).all() else None

    def exchange(self, stains: NDArray[np.float64], maxima: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix (3, 3) from an image's density to that with the reference's stains: S_ref diag(m_ref / m) S^+."""
        scaled = self.stains * (self.maxima / maxima)
        return np.asarray(scaled @ np.linalg.pinv(stains), np.float64)

    def __call__(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """The image with the reference's stains, float32 from 0 to I0, of the same shape."""
        if array.ndim == len(self.axes) + 1:
            return np.stack([self._of_sample(sample) for sample in array])
        return self._of_sample(array)

    def _of_sample(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        channel = self.axes.index("c")
        if array.ndim != len(self.axes) or array.shape[channel] != 3:
            raise ValueError(
                f"an image of shape {array.shape} does not have the axes {self.axes}, or not 3 channels: red, green, blue"
            )
        moved = np.moveaxis(array, channel, 0)
        pixels = moved.reshape(3, -1)
        found = self.measure(pixels)
        result = pixels.astype(np.float32)
        if found is not None:
            exchange = self.exchange(*found)
            for start in range(0, pixels.shape[1], _BLOCK):
                density = exchange @ self.density(pixels[:, start : start + _BLOCK])
                result[:, start : start + _BLOCK] = np.minimum(10.0**-density, 1.0) * self.intensity
        return np.ascontiguousarray(np.moveaxis(result.reshape(moved.shape), 0, channel))

    def _tissue(self, pixels: NDArray[np.generic], start: int) -> NDArray[np.float64]:
        """The densities (3, ...) of the tissue in a block of pixels."""
        density = self.density(pixels[:, start : start + _BLOCK])
        return density[:, np.linalg.norm(density, axis=0) >= self.beta]


def _angles(projections: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of projections (2, n) onto a plane, from its first direction."""
    return np.asarray(np.arctan2(projections[1], projections[0]), np.float64)


def macenko(
    axes: str = "cyx",
    intensity: float = 255.0,
    beta: float = 0.15,
    alpha: float = 1.0,
    stains: tuple[tuple[float, ...], ...] = REFERENCE_STAINS,
    maxima: tuple[float, ...] = REFERENCE_MAXIMA,
) -> Macenko:
    """The operation, a function of an array.

    Args:
        axes: of the array, as letters, c being red, green, blue; a batch axis b may come first in the array whether
            it is named or not.
        intensity: I0, of light that nothing absorbs.
        beta: the length of the three colours' density below which a pixel is no tissue.
        alpha: the percentile of the angles that counts as their extreme.
        stains: of the reference, colours x stains; the stain with more red first.
        maxima: of the reference, the 99th percentiles of the concentrations (density to base 10).
    """
    return Macenko(axes, intensity, beta, alpha, stains, maxima)
