"""Open a bioimage.io model package from a folder, a zip, an RDF file, a name or an address; it runs nothing.

Only an address that is given as such is fetched (`remote_package`); nothing that a package names is.

What the package says is read by bioimageio.spec (formats 0.4 and 0.5, the former upgraded), without its file
and network checks: a dead link of a weight format that is not used does not matter. What matters is asked of
the files that are there: `Package.weights`, `Package.path` and `package_hashes.check_hashes`.
"""

import atexit
import functools
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.resources import packaged_models
from im2im_zoo.core.unzip import ZipLimits, extract_zip
from im2im_zoo.engines import engines_of, is_runnable, weights_formats
from im2im_zoo.package.rdf import describe_rdf, has_rdf, rdf_in, read_rdf
from im2im_zoo.package.remote import fetch_package, is_address

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import InputTensorDescr, ModelDescr, OutputTensorDescr

    from im2im_zoo.instances.grouping import AnyGrouping
    from im2im_zoo.processing import Operation


@dataclass(frozen=True, eq=False)
class Package:
    """A package whose description is valid and whose files lie in `root`.

    A package from a zip owns its folder: it is removed by `close`, by leaving a `with`, or when Python ends.
    """

    source: str
    root: Path
    description: "ModelDescr" = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False)
    _remove: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name that the RDF gives."""
        return str(self.description.name)

    @property
    def version(self) -> str | None:
        """The version that the RDF gives, if any."""
        return None if self.description.version is None else str(self.description.version)

    @property
    def inputs(self) -> "tuple[InputTensorDescr, ...]":
        """The input tensors."""
        return tuple(self.description.inputs)

    @functools.cached_property
    def outputs(self) -> "tuple[OutputTensorDescr, ...]":
        """The output tensors; one that a library groups (StarDist, Cellpose) is the maps that the network gives, not the labels.

        Raises:
            PackageError: the RDF's labels cannot be made of any maps.
        """
        from im2im_zoo.instances.library.grouping import maps_tensor

        try:
            return tuple(maps_tensor(t) for t in self.description.outputs)
        except PackageError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def before_rdf(self) -> "Mapping[str, tuple[Operation, ...]]":
        """By input tensor, what is done before the RDF's own preprocessing, which can hold no custom operations.

        It is in `config.im2im_zoo.preprocessing`. The RDF's tensor, and the test tensor, is what it makes.

        Raises:
            PackageError: it is not written as this program writes it.
        """
        from im2im_zoo.processing.before_rdf import read_before_rdf

        try:
            return read_before_rdf(self.raw.get("config"), [str(t.id) for t in self.inputs], self.root)
        except ProcessingError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def grouping(self) -> "AnyGrouping | None":
        """What makes instance labels of the output, which is then dense maps.

        It is in `config.im2im_zoo.grouping`, or an operation of the output that a library does, or in `config.stardist`.

        Raises:
            PackageError: it is not written as this program writes it, or cannot be done.
        """
        from im2im_zoo.instances.grouping import read_grouping
        from im2im_zoo.instances.library.grouping import library_grouping, stardist_grouping

        axes = {str(t.id): [str(axis.id) for axis in t.axes] for t in self.outputs}
        try:
            by_file = read_grouping(self.raw.get("config"), axes)
            named = by_file or library_grouping(self.description.outputs)
            return named or stardist_grouping(self.raw.get("config"), self.description.outputs)
        except PackageError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @property
    def weights(self) -> tuple[str, ...]:
        """The weight formats that can be run here and whose file is present, the preferred first."""
        return tuple(f for f in weights_formats() if self._is_present(f) and is_runnable(f))

    def weights_entry(self, weights_format: str) -> Any:
        """The spec's description of one weight format.

        Raises:
            PackageError: the package has no weights of this format.
        """
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            raise PackageError(
                f"{self.source}: there are no weights of the format {weights_format!r}; "
                f"there are {', '.join(self.formats())}"
            )
        return entry

    def formats(self) -> tuple[str, ...]:
        """All the weight formats that the RDF names, run here or not."""
        return tuple(str(name) for name, entry in self.description.weights if entry is not None)

    def path(self, source: object) -> Path:
        """The path inside `root` of a file that the RDF names (a spec `FileDescr`, its `source`, or a string).

        Raises:
            PackageError: a URL, or a path that leads out of the package.
        """
        text = str(getattr(source, "source", source))
        if "://" in text:
            raise PackageError(
                f"{self.source}: {text} is not inside the package and nothing is fetched from the network; "
                "download the complete package"
            )
        try:
            path = (self.root / text).resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
            raise PackageError(
                f"{self.source}: the RDF names {text[:200]!r}, which is no path: {error}"
            ) from error
        if not path.is_relative_to(self.root.resolve()):
            raise PackageError(f"{self.source}: the RDF names {text}, which is outside the package")
        return path

    @property
    def rdf(self) -> Path:
        """The RDF's file."""
        return rdf_in(self.root, self.source)

    def close(self) -> None:
        """Remove the folder that a zip was extracted to. Does nothing for a package that is a folder."""
        if self._remove is not None:
            atexit.unregister(self._remove)
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_present(self, weights_format: str) -> bool:
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            return False
        try:
            return self.path(entry).is_file()
        except PackageError:
            return False


def open_package(source: str | Path, *, limits: ZipLimits | None = None) -> Package:
    """Open a package.

    Args:
        source: a folder, a `.zip`, an `rdf.yaml` or `bioimageio.yaml`, or the name of a packaged model,
            optionally with its version (`nuclei_2d` or `nuclei_2d/0.1.0`; default: the newest); or an address, `https://...`
            or `bioimage.io/NAME`, which is downloaded into the user's cache.
        limits: what a zip may unpack to.

    Raises:
        PackageError: not a package, a field of the RDF is invalid, no file of its weights is there, a zip
            that is not safe to extract, or an address that cannot be fetched.
    """
    path = _find(source)
    if path.is_dir():
        return _load(rdf_in(path, str(source)), str(source), None)
    if zipfile.is_zipfile(path):
        folder = Path(tempfile.mkdtemp(prefix="im2im_zoo_"))
        remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(remove)
        try:
            extract_zip(path, folder, limits or ZipLimits())
            return _load(rdf_in(folder, str(source)), str(source), remove)
        except BaseException:
            atexit.unregister(remove)
            remove()
            raise
    if path.suffix.lower() in (".yaml", ".yml"):
        return _load(path, str(source), None)
    if path.suffix.lower() == ".zip":
        raise PackageError(f"{source}: is no sound zip: it is cut short, damaged or empty; download it anew")
    raise PackageError(
        f"{source} is not a bioimage.io package: it is a file of the type {path.suffix or 'unknown'}; "
        "give a folder with an rdf.yaml, the rdf.yaml itself, or a .zip of it"
    )


def _find(source: str | Path) -> Path:
    if is_address(source):
        return fetch_package(str(source))
    path = Path(source).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise PackageError(f"{str(source)[:200]!r} is no path: {error}") from error
    models = packaged_models()
    if isinstance(source, str) and not path.is_absolute() and ".." not in path.parts:
        named = models / source
        if has_rdf(named):
            return named
        versions = [folder for folder in named.glob("*") if has_rdf(folder)]
        if versions:
            return max(versions, key=_version_order)
    names = sorted(folder.name for folder in models.glob("*") if folder.is_dir())
    known = f"the packaged models are {', '.join(names)}" if names else "there are no packaged models"
    raise PackageError(f"there is no file, folder or packaged model {str(source)!r}; {known}")


def _version_order(folder: Path) -> tuple[tuple[int, int | str], ...]:
    # Numbers compare as numbers (0.10 after 0.9), anything else as text before any number.
    return tuple((1, int(p)) if p.isdigit() else (0, p) for p in folder.name.split("."))


def _load(rdf: Path, source: str, remove: Callable[[], None] | None) -> Package:
    raw = read_rdf(rdf, source)
    package = Package(source, rdf.parent.resolve(), describe_rdf(raw, rdf, source), raw, remove)
    _ = package.before_rdf, package.outputs, package.grouping  # which are refused here if they are not valid
    if not package.weights:
        files = {name: str(package.weights_entry(name).source) for name in package.formats()}
        raise PackageError(_explain_no_weights(source, files))
    return package


def _explain_no_weights(source: str, files: Mapping[str, str]) -> str:
    """Return what a package lacks to be run here, in a sentence.

    Args:
        source: where the package is.
        files: of its weights, by format; none of those that can be run here is there.
    """
    runnable = weights_formats()
    missing = [file for name, file in files.items() if name in runnable and is_runnable(name)]
    if missing:
        return (
            f"{source}: files are missing: {', '.join(missing)}; nothing is fetched from the network, so "
            "download the complete package"
        )
    needed = [name for name in files if name in runnable]
    if needed:
        engine = engines_of(needed[0])[0]
        return (
            f"{source}: needs {engine.backend}, which runs its {', '.join(needed)} weights: pip install "
            f"'im2im_zoo[{engine.extra}]'; ONNX or TorchScript weights would need nothing"
        )
    return (
        f"{source}: its weights are of the format {', '.join(n for n in files if n not in runnable)}; "
        f"this program runs {', '.join(runnable)}"
    )
