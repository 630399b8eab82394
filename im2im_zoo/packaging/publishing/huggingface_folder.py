"""Folder of a model's repository on the Hugging Face Hub, as bioimageio.spec lays it out: a model card, pictures, the package."""

import copy
import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_zoo.core.errors import PublishingError
from im2im_zoo.package import Package

if TYPE_CHECKING:
    from bioimageio.spec import ValidationContext
    from bioimageio.spec.model.v0_5 import ModelDescr


def write_huggingface_folder(package: Package, repository: str, folder: Path) -> None:
    """Write what `push_to_hub` of bioimageio.spec would upload; works offline.

    Args:
        package: an open package.
        repository: `OWNER/NAME`.
        folder: a folder that does not exist.

    Raises:
        PublishingError: bioimageio.spec cannot describe the package.
    """
    owner, _, name = repository.partition("/")
    description = describe_for_hub(package, name)
    with warnings.catch_warnings(), unchecked(package):
        warnings.simplefilter("ignore")  # about its guesses for the model card
        try:
            find_push_to_hub()(description, owner, prep_dir=folder, prep_only_no_upload=True)
            gc.collect()  # files that it leaves open
        except Exception as error:  # its model card may fail with anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise PublishingError(
                f"{package.source}: bioimageio.spec cannot write a model card for the Hugging Face Hub: {reason}; "
                f"check the package with im2im-zoo validate"
            ) from error


def describe_for_hub(package: Package, name: str) -> "ModelDescr":
    """Return the description of a package with the name of its repository as `id`.

    Raises:
        PublishingError: the name is not an `id`, or the package is not valid.
    """
    from bioimageio.spec import build_description
    from bioimageio.spec.model.v0_5 import ModelDescr

    raw = copy.deepcopy(dict(package.raw))
    raw["id"] = name
    description = build_description(raw, context=unchecked(package), format_version="latest")
    if not isinstance(description, ModelDescr):
        raise PublishingError(
            f"{package.source} cannot be published as {name!r}: {_reasons(description)}; choose another --repository OWNER/NAME, "
            "with lower-case letters, digits, - and . only"
        )
    return description


def unchecked(package: Package) -> "ValidationContext":
    """Return a context in which bioimageio.spec reads a package without hashing files and looking up people."""
    from bioimageio.spec import ValidationContext

    root = package.root.resolve()
    return ValidationContext(root=root, perform_io_checks=False, log_warnings=False, progressbar=False)


def find_push_to_hub() -> Callable[..., None]:
    """Return bioimageio.spec's function that uploads to the Hub; some of its versions have it in a private module.

    Raises:
        PublishingError: the installed version has none.
    """
    import bioimageio.spec

    found = getattr(bioimageio.spec, "push_to_hub", None)
    if found is None:
        try:
            from bioimageio.spec import _hf as module
        except ImportError as error:
            raise PublishingError(
                "the installed bioimageio.spec cannot upload to the Hugging Face Hub: pip install -U bioimageio.spec"
            ) from error
        found = module.push_to_hub
    function: Callable[..., None] = found
    return function


def _reasons(description: Any) -> str:
    summary = description.validation_summary
    errors = [e for detail in summary.details for e in detail.errors] if summary else []
    return "; ".join(" ".join(e.msg.split()) for e in errors[:3]) or "it is not valid"
