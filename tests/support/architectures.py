"""The networks that recipes name, at narrow widths and with what can be counted of each: their grid and how far they reach."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from known_networks import Layer, basic_unet_path

MONAI = "monai.networks.nets."
OURS = "im2im_zoo.networks."

CONV, POOL, DOUBLE = Layer(3, padding=1), Layer(2, 2, pool=True), Layer(2, 2, up=True)
HALVE = Layer(3, 2, padding=1)
DOUBLE3 = Layer(3, 2, padding=1, up=True)
Path = tuple[Layer, ...]


@dataclass(frozen=True)
class Architecture:
    """A network as a recipe names it, and what is known of it.

    Attributes:
        path: dotted.
        kwargs: as narrow as they may be; depth and kernels are those whose grid and reach are given.
        ndim: space axes.
        step: of its grid, along each space axis; 0 along one that has a single size.
        smallest: of its grid, if that is not the step.
        longest: per space axis, the layers of its longest way through; None if it reaches everywhere.
        fixed: the only size that it takes.
        without_gradient: part of the names of parameters that it has and does not use.
        slow: its grid takes seconds.
    """

    path: str
    kwargs: Mapping[str, Any]
    ndim: int
    step: tuple[int, ...]
    longest: tuple[Path, ...] | None
    smallest: tuple[int, ...] | None = None
    without_gradient: str | None = None
    needs: str = ""
    slow: bool = field(default=False)

    @property
    def name(self) -> str:
        return f"{self.path.rpartition('.')[2]}-{self.ndim}d"

    @property
    def radius(self) -> tuple[int, ...] | None:
        """How far a voxel reaches, counted."""
        if self.longest is None:
            return None
        return tuple(reach_of(path, step) for path, step in zip(self.longest, self.step, strict=True))


def reach_of(path: Path, step: int) -> int:
    """How far a voxel reaches through some layers, from the place in the pooling windows where that is most."""
    furthest = 0
    for place in range(1000 * step, 1001 * step):
        first = last = place
        for layer in path:
            first, last = layer.first(first), layer.last(last)
        furthest = max(furthest, place - first, last - place)
    return furthest


def fnet(depth: int) -> Path:
    two = (CONV, CONV)
    return (*two, *depth * (Layer(2, 2), *two), *depth * (DOUBLE, *two), CONV)


def anisotropic_unet(levels: int, pooled: bool) -> Path:
    two = (CONV, CONV)
    down, up = ((POOL,), (DOUBLE,)) if pooled else ((), ())
    return (*two, *(levels - 1) * (*down, *two), *(levels - 1) * (*up, *two))


def residual_unet() -> Path:
    """MONAI's UNet with two halvings: a strided and a plain convolution each, then back with one behind each doubling."""
    return (HALVE, CONV, HALVE, CONV, CONV, CONV, DOUBLE3, CONV, DOUBLE3, CONV)


def dynunet(strides: tuple[int, ...], kernels: tuple[int, ...]) -> Path:
    """MONAI's DynUNet: two convolutions a level, the first one strided; doublings by the stride."""
    layers: list[Layer] = []
    for stride, kernel in zip(strides, kernels, strict=True):
        plain = Layer(kernel, padding=kernel // 2)
        layers += [Layer(kernel, stride, padding=kernel // 2), plain]
    for stride, kernel in list(zip(strides, kernels, strict=True))[:0:-1]:
        layers += [Layer(stride, stride, up=True), *2 * (Layer(kernel, padding=kernel // 2),)]
    return tuple(layers)


def erfnet() -> Path:
    def residual(dilation: int) -> Path:
        return (CONV, Layer(3, dilation=dilation, padding=dilation))

    dilated = [layer for dilation in 2 * (2, 4, 8, 16) for layer in residual(dilation)]
    decoder = (DOUBLE3, *2 * residual(1), DOUBLE3, *2 * residual(1), DOUBLE)
    return (HALVE, HALVE, *5 * residual(1), HALVE, *dilated, *decoder)


def residual_generator(blocks: int) -> Path:
    wide = Layer(7, padding=3)
    return (wide, HALVE, HALVE, *2 * blocks * (CONV,), DOUBLE3, DOUBLE3, wide)


def blur_pool_unet(depth: int) -> Path:
    """A maximum of 2, then two means of 2, the last with a stride of 2, lie around a pair of voxels: a window of 4."""
    two = (CONV, CONV)
    return (*two, *depth * (Layer(4, 2, padding=1), *two), *depth * (DOUBLE, *two))


def self2self_unet(depth: int) -> Path:
    return (CONV, *depth * (CONV, POOL), CONV, *depth * (DOUBLE, CONV, CONV), CONV)


def _spatial(ndim: int, **kwargs: Any) -> dict[str, Any]:
    return {"spatial_dims": ndim, "in_channels": 1, "out_channels": 1, **kwargs}


def _of(ndim: int) -> list[Architecture]:
    """Those that there are in 2D and in 3D."""
    narrow = {"features": [2, 4, 6]}
    return [
        Architecture(
            OURS + "fnet.FNet",
            _spatial(ndim, features=2),
            ndim,
            (16,) * ndim,
            ndim * (fnet(4),),
            slow=ndim == 3,
        ),
        Architecture(
            OURS + "resnet_generator.ResnetGenerator",
            _spatial(ndim, width=2),
            ndim,
            (4,) * ndim,
            ndim * (residual_generator(9),),
            slow=ndim == 3,
        ),
        Architecture(
            MONAI + "BasicUNet",
            _spatial(ndim, features=[2, 2, 2, 4, 4, 2], norm="batch"),
            ndim,
            (16,) * ndim,
            ndim * (basic_unet_path().layers,),
            slow=ndim == 3,
        ),
        Architecture(
            MONAI + "UNet",
            _spatial(ndim, channels=[4, 8, 16], strides=[2, 2], num_res_units=2, norm="batch"),
            ndim,
            (4,) * ndim,
            ndim * (residual_unet(),),
        ),
        # The convolution behind each attention gate has instance norm, whatever is asked for.
        Architecture(
            MONAI + "AttentionUnet",
            _spatial(ndim, channels=[4, 8, 16], strides=[2, 2]),
            ndim,
            (4,) * ndim,
            None,
            slow=ndim == 3,
        ),
        Architecture(
            MONAI + "DynUNet",
            _spatial(
                ndim,
                kernel_size=[3, 3, 3],
                strides=[1, 2, 2],
                upsample_kernel_size=[2, 2],
                filters=[4, 8, 8],
                norm_name="batch",
            ),
            ndim,
            (4,) * ndim,
            ndim * (dynunet((1, 2, 2), (3, 3, 3)),),
            slow=ndim == 3,
        ),
        Architecture(
            OURS + "blur_pool_unet.BlurPoolUNet",
            _spatial(ndim, features=2),
            ndim,
            (4,) * ndim,
            ndim * (blur_pool_unet(2),),
        ),
        Architecture(
            OURS + "self2self_unet.Self2SelfUNet",
            {"spatial_dims": ndim, "depth": 2, "features": 3, "passes": 3, "period": 8},
            ndim,
            (8,) * ndim,
            ndim * (self2self_unet(2),),
            slow=ndim == 3,
        ),
        Architecture(
            OURS + "erfnet.ERFNet",
            _spatial(ndim, **narrow),
            ndim,
            (8,) * ndim,
            ndim * (erfnet(),),
            slow=ndim == 3,
        ),
        Architecture(
            OURS + "erfnet.BranchedERFNet",
            {"spatial_dims": ndim, "in_channels": 1, "out_channels": [2 * ndim, 1], **narrow},
            ndim,
            (8,) * ndim,
            ndim * (erfnet(),),
            slow=ndim == 3,
        ),
    ]


ANISOTROPIC = [
    Architecture(
        OURS + "anisotropic_unet.AnisotropicUNet",
        {"in_channels": 1, "out_channels": 1, "features": [2, 4, 4, 4]},
        3,
        (1, 8, 8),
        (anisotropic_unet(4, False), anisotropic_unet(4, True), anisotropic_unet(4, True)),
    ),
    Architecture(
        MONAI + "DynUNet",
        _spatial(
            3,
            kernel_size=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            strides=[1, [1, 2, 2], 2],
            upsample_kernel_size=[[1, 2, 2], 2],
            filters=[4, 8, 8],
            norm_name="batch",
        ),
        3,
        (2, 4, 4),
        (dynunet((1, 1, 2), (1, 3, 3)), dynunet((1, 2, 2), (3, 3, 3)), dynunet((1, 2, 2), (3, 3, 3))),
        slow=True,
    ),
]

TRANSFORMERS = [
    Architecture(
        MONAI + "SwinUNETR",
        _spatial(ndim, feature_size=12, window_size=4),
        ndim,
        (0,) * ndim,
        None,
        (64,) * ndim,
        needs="einops",
        slow=ndim == 3,
    )
    for ndim in (2, 3)
] + [
    Architecture(
        MONAI + "UNETR",
        _spatial(ndim, img_size=size, feature_size=4, hidden_size=12, mlp_dim=16, num_heads=2),
        ndim,
        (0,) * ndim,
        None,
        (size,) * ndim,
        # Each of its transformer blocks has a norm for cross-attention, which it does not have.
        without_gradient="norm_cross_attn",
        needs="einops",
        slow=ndim == 3,
    )
    for ndim, size in ((2, 64), (3, 32))
]

ARCHITECTURES = [*_of(2), *_of(3), *ANISOTROPIC]


def parameters(architectures: list[Architecture], *, slow: bool = True) -> list[Any]:
    """For pytest.mark.parametrize: marked as slow, and skipped where a library is missing that they need."""
    result = []
    for number, architecture in enumerate(architectures):
        marks = [pytest.mark.slow] if slow and architecture.slow else []
        if architecture.needs and not importlib.util.find_spec(architecture.needs):
            marks.append(pytest.mark.skip(reason=f"MONAI's {architecture.name} needs {architecture.needs}"))
        same = [a.name for a in architectures[:number]].count(architecture.name)
        result.append(
            pytest.param(architecture, id=architecture.name + ("-anisotropic" if same else ""), marks=marks)
        )
    return result
