"""Operations of a recipe in the RDF.

Operations, their axes and arguments are explicit, since the defaults of the format (a cast to the input's dtype, statistics
over the batch) differ from the training.
"""

import copy
import re
from typing import Any

from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.packaging.export.plain_values import yaml_value
from im2im_zoo.packaging.export.rdf.content import Content
from im2im_zoo.processing import Operation
from im2im_zoo.processing.before_rdf import split_custom
from im2im_zoo.recipe import Recipe


def preprocessing_of(recipe: Recipe) -> list[Operation]:
    """Return the recipe's preprocessing past the custom operations, as written into the RDF: it starts and ends with a cast.

    By default, readers of the format cast the image to the declared dtype first (a float image given to a
    uint16 model would become zeros), and the preprocessed one to it again at the end.
    """
    steps: list[Operation] = copy.deepcopy(split_custom(recipe.input.preprocessing)[1])
    if not steps or steps[0].id != "ensure_dtype":
        steps.insert(0, _cast("float32"))
    if steps[-1].id != "ensure_dtype":
        steps.append(_cast("float32"))
    return steps


def postprocessing_of(recipe: Recipe, output_dtype: str) -> list[Operation]:
    """Return the recipe's postprocessing as written into the RDF: it ends with a cast."""
    steps: list[Operation] = copy.deepcopy(list(recipe.output.postprocessing))
    if not steps or steps[-1].id not in ("ensure_dtype", "binarize"):
        steps.append(_cast(output_dtype))
    return steps


def operation_entry(operation: Operation, content: Content) -> dict[str, Any]:
    """Return an operation's entry in the RDF."""
    if operation.id == "custom":
        name = file_name(str(operation.source))
        kwargs = yaml_value(operation.kwargs)
        return {"id": "custom", "callable": str(operation.callable), **content.file(name), "kwargs": kwargs}
    kwargs = getattr(operation, "kwargs", None)
    if kwargs is None or operation.id == "sigmoid":
        return {"id": operation.id}
    # exclude_none: an omitted limit of a clip is none; axes are written because the recipe names them.
    return {"id": operation.id, "kwargs": kwargs.model_dump(mode="json", exclude_none=True)}


def file_name(source: str) -> str:
    """Return the name of a custom operation's file inside the package."""
    return re.split(r"[/\\]", source)[-1]


def _cast(dtype: str) -> spec.EnsureDtypeDescr:
    return spec.EnsureDtypeDescr.model_validate({"id": "ensure_dtype", "kwargs": {"dtype": dtype}})
