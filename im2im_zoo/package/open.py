"""Open a bioimage.io model package from a folder, a zip, an RDF file, a name or an address; no code of it is run.

Only the given address is downloaded (`package.remote`), never anything that a package refers to.

bioimageio.spec reads the RDF (formats 0.4 and 0.5, the former upgraded) without its file and network checks: a dead link
of a weight format that is not used does no harm. The files are checked when they are used: `Package.weights`,
`Package.path` and `hashes.check_hashes`.
"""

import atexit
import functools
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.core.resources import packaged_models
from im2im_zoo.core.unzip import ZipLimits, extract_zip
from im2im_zoo.engines import Engine, engines_of, is_runnable, open_engine, weights_formats
from im2im_zoo.package.rdf import describe_rdf, find_rdf, has_rdf, read_rdf
from im2im_zoo.package.remote import fetch_package, is_address

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import InputTensorDescr, ModelDescr, OutputTensorDescr

    from im2im_zoo.instances.grouping import AnyGrouping
    from im2im_zoo.processing import Operation


@dataclass(frozen=True, eq=False)
class Package:
    """A package whose description is valid and whose files lie in `root`.

    A package from a zip owns its folder, which is removed by `close`, by leaving a `with`, or when Python ends.

    Attributes:
        source: the folder, file, name or address that it was opened from.
        root: folder of the RDF and its files.
        description: the RDF as bioimageio.spec reads it.
        raw: the RDF as it is written.
    """

    source: str
    root: Path
    description: "ModelDescr" = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False)
    _remove: Callable[[], None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name in the RDF."""
        return str(self.description.name)

    @property
    def version(self) -> str | None:
        """The version in the RDF, if any."""
        return None if self.description.version is None else str(self.description.version)

    @property
    def inputs(self) -> "tuple[InputTensorDescr, ...]":
        """The input tensors."""
        return tuple(self.description.inputs)

    @functools.cached_property
    def outputs(self) -> "tuple[OutputTensorDescr, ...]":
        """The output tensors. Where a library makes labels of them (StarDist, Cellpose), the network's maps, not the labels.

        Raises:
            PackageError: the RDF's labels do not match any maps.
        """
        from im2im_zoo.instances.library.grouping import maps_tensor

        try:
            return tuple(maps_tensor(t) for t in self.description.outputs)
        except PackageError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def before_rdf(self) -> "Mapping[str, tuple[Operation, ...]]":
        """The operations before the RDF's own preprocessing, by input tensor; the RDF's cannot hold custom ones.

        They are read from `config.im2im_zoo.preprocessing`. The RDF's input tensor, and the test tensor, is their result.

        Raises:
            PackageError: the section is not valid.
        """
        from im2im_zoo.processing.before_rdf import read_before_rdf

        try:
            return read_before_rdf(self.raw.get("config"), [str(t.id) for t in self.inputs], self.root)
        except ProcessingError as error:
            raise PackageError(f"{self.source}: {error}") from error

    @functools.cached_property
    def grouping(self) -> "AnyGrouping | None":
        """The post-processing that makes instance labels of dense output maps; None if there is none.

        It is read from `config.im2im_zoo.grouping`, from a postprocessing operation of a library, or from `config.stardist`.

        Raises:
            PackageError: the section is not valid, or its library does not support it.
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
        """The weight formats that can run here and whose file is present, the preferred one first."""
        return tuple(f for f in weights_formats() if self._is_present(f) and is_runnable(f))

    def weights_entry(self, weights_format: str) -> Any:
        """Return the spec's description of one weight format.

        Raises:
            PackageError: the package has no weights of this format.
        """
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            raise PackageError(
                f"{self.source}: there are no weights of the format {weights_format!r}; "
                f"choose one of {', '.join(self.formats())}"
            )
        return entry

    def open_engine(self, weights_format: str, **options: Any) -> Engine:
        """Load the network from its weights of one format; the options are those of `engines.open_engine`.

        Raises:
            PackageError: there are no such weights, or they cannot be loaded.
        """
        entry = self.weights_entry(weights_format)
        return open_engine(
            weights_format,
            self.path(entry),
            architecture=getattr(entry, "architecture", None),
            root=self.root,
            description=self.description,
            **options,
        )

    def formats(self) -> tuple[str, ...]:
        """Return all weight formats of the RDF, whether they can run here or not."""
        return tuple(str(name) for name, entry in self.description.weights if entry is not None)

    def path(self, source: object) -> Path:
        """Return the path inside `root` of a file that the RDF names.

        Args:
            source: a spec `FileDescr`, its `source`, or a string.

        Raises:
            PackageError: a URL, or a path that leads out of the package.
        """
        text = str(getattr(source, "source", source))
        if "://" in text:
            raise PackageError(
                f"{self.source}: {text} is not inside the package and is not downloaded; download the complete package"
            )
        try:
            path = (self.root / text).resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
            raise PackageError(
                f"{self.source}: the RDF names {text[:200]!r}, which is not a path: {error}; please report this to its authors"
            ) from error
        if not path.is_relative_to(self.root.resolve()):
            raise PackageError(
                f"{self.source}: the RDF names {text}, which is outside the package; please report this to its authors"
            )
        return path

    @property
    def rdf(self) -> Path:
        """The path of the RDF."""
        return find_rdf(self.root, self.source)

    def close(self) -> None:
        """Remove the folder that a zip was extracted to; do nothing for a package that is a folder."""
        if self._remove is not None:
            atexit.unregister(self._remove)
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_present(self, weights_format: str) -> bool:
        entry = getattr(self.description.weights, weights_format, None)
        if entry is None:
            return False
        try:
            return self.path(entry).is_file()
        except PackageError:
            return False


def open_package(source: str | Path, *, limits: ZipLimits | None = None, must_run: bool = True) -> Package:
    """Open a package.

    Args:
        source: a folder, a `.zip`, an `rdf.yaml` or `bioimageio.yaml`, or the name of a packaged model,
            optionally with its version (`nuclei_2d` or `nuclei_2d/0.1.0`; default: the newest); or an address, `https://...`
            or `bioimage.io/NAME`, which is downloaded into the user's cache.
        limits: on the unpacked size of a zip.
        must_run: whether a package without weights that can run here is an error.

    Raises:
        PackageError: not a package, an invalid field of the RDF, no weights that can run here, a zip that is not safe
            to extract, or an address that cannot be downloaded.
    """
    path = _find_package(source)
    if path.is_dir():
        return _load(find_rdf(path, str(source)), str(source), None, must_run)
    if zipfile.is_zipfile(path):
        folder = Path(tempfile.mkdtemp(prefix="im2im_zoo_"))
        remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(remove)
        try:
            extract_zip(path, folder, limits or ZipLimits())
            return _load(find_rdf(folder, str(source)), str(source), remove, must_run)
        except BaseException:
            atexit.unregister(remove)
            remove()
            raise
    if path.suffix.lower() in (".yaml", ".yml"):
        return _load(path, str(source), None, must_run)
    if path.suffix.lower() == ".zip":
        raise PackageError(
            f"{source} is not a valid zip: it is incomplete, damaged or empty; download it again"
        )
    raise PackageError(
        f"{source} is not a bioimage.io package: it is a file of the type {path.suffix or 'unknown'}; "
        "give a folder with an rdf.yaml, the rdf.yaml itself, or a .zip of it"
    )


def _find_package(source: str | Path) -> Path:
    if is_address(source):
        return fetch_package(str(source))
    path = Path(source).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise PackageError(
            f"{str(source)[:200]!r} is not a path: {error}; give a folder or a file"
        ) from error
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


def _load(rdf: Path, source: str, remove: Callable[[], None] | None, must_run: bool) -> Package:
    raw = read_rdf(rdf, source)
    package = Package(source, rdf.parent.resolve(), describe_rdf(raw, rdf, source), raw, remove)
    _ = package.before_rdf, package.outputs, package.grouping  # raise now if they are not valid
    if must_run and not package.weights:
        files = {name: str(package.weights_entry(name).source) for name in package.formats()}
        raise PackageError(_explain_no_weights(source, files))
    return package


def _explain_no_weights(source: str, files: Mapping[str, str]) -> str:
    """Return a message that explains why none of a package's weights can run here.

    Args:
        source: the package's path, name or address.
        files: names of the weights' files, by format.
    """
    runnable = weights_formats()
    missing = [file for name, file in files.items() if name in runnable and is_runnable(name)]
    if missing:
        return f"{source}: files are missing: {', '.join(missing)}; they are not downloaded, so download the complete package"
    needed = [name for name in files if name in runnable]
    if needed:
        engine = engines_of(needed[0])[0]
        return (
            f"{source}: needs {engine.backend}, which runs its {', '.join(needed)} weights: pip install "
            f"'im2im_zoo[{engine.extra}]', or use a package with ONNX or TorchScript weights"
        )
    return (
        f"{source}: its weights are of the format {', '.join(n for n in files if n not in runnable)}, which cannot be run; use "
        f"a package with {', '.join(runnable)}"
    )
