"""Split preprocessing into the two parts of a package: the operations of its `config`, then those of its RDF. Runs nothing.

The spec (0.5.12) has `custom` operations only behind a network. Those before it are in

    config.im2im_zoo.preprocessing: [{tensor: ID, operations: [...]}]

and are done first, on the whole image; the tensor of the RDF is what they make (docs/decisions/0011).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from bioimageio.spec.model import v0_5
from pydantic import Field, TypeAdapter, ValidationError

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.nested import our_entry
from im2im_zoo.processing.requirements import Operation


def split_custom(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Return the operations for the `config`, and those for the RDF.

    The first part ends with the last custom operation and a cast to float32, the type of the tensor between the parts;
    it is empty if there is no custom operation.
    """
    ends = [number for number, operation in enumerate(operations, 1) if operation.id == "custom"]
    if not ends:
        return [], list(operations)
    cast = v0_5.EnsureDtypeDescr(kwargs=v0_5.EnsureDtypeKwargs(dtype="float32"))
    return [*operations[: ends[-1]], cast], list(operations[ends[-1] :])


def read_before_rdf(
    config: object, tensors: Sequence[str], root: Path
) -> Mapping[str, tuple[Operation, ...]]:
    """Return the operations of a package's `config`, by the id of the input tensor.

    Args:
        config: of the RDF, plain.
        tensors: the ids of the input tensors.
        root: folder of the package.

    Raises:
        ProcessingError: they are not described as this module's docstring says.
    """
    entries = our_entry(config, "preprocessing")
    if not entries:
        return {}
    where = "config.im2im_zoo.preprocessing"
    if not isinstance(entries, Sequence) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ProcessingError(
            f"{where} is not a list of mappings with the keys tensor and operations; write it as one"
        )
    found: dict[str, tuple[Operation, ...]] = {}
    for number, entry in enumerate(entries):
        tensor = str(entry.get("tensor"))
        if tensor not in tensors or tensor in found:
            raise ProcessingError(
                f"{where}[{number}].tensor is {tensor!r}: name each input once, of {', '.join(tensors)}"
            )
        found[tensor] = _read_operations(entry.get("operations"), f"{where}[{number}].operations", root)
    return found


def _read_operations(plain: Any, where: str, root: Path) -> tuple[Operation, ...]:
    from bioimageio.spec import ValidationContext

    described = TypeAdapter(tuple[Annotated[Operation, Field(discriminator="id")], ...])
    try:
        with ValidationContext(root=root, perform_io_checks=False, log_warnings=False):
            return described.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ProcessingError(f"{where}: {key}: {first['msg']}") from error
