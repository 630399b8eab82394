"""Operations that the packages of these tests have."""

from bioimageio.spec.model import v0_5 as spec

NORMALISE_2D = spec.ZeroMeanUnitVarianceDescr(
    kwargs=spec.ZeroMeanUnitVarianceKwargs(axes=["channel", "y", "x"])
)
NORMALISE_3D = spec.ZeroMeanUnitVarianceDescr(
    kwargs=spec.ZeroMeanUnitVarianceKwargs(axes=["channel", "z", "y", "x"])
)
SIGMOID = spec.SigmoidDescr()
