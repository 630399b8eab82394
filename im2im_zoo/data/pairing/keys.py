"""Check that the keys of a recipe's `data` section are compatible."""

from im2im_zoo.core.errors import DataError
from im2im_zoo.recipe import Data


def check_keys(data: Data) -> None:
    """Refuse keys that contradict each other, or that have no effect with others.

    Raises:
        DataError: the message names the keys.
    """
    if not data.path.exists():
        raise DataError(
            f"data.path: {data.path.absolute()} does not exist; set --data.path to where the images are"
        )
    _check_split(data)
    _check_unpaired(data)
    if not data.has_cost and (data.cost_channels, data.cost_axes) != (None, None):
        raise DataError(
            "data.cost_channels and data.cost_axes need cost maps: set data.cost to where they are (with data.pairing: "
            "channels, data.cost_channels)"
        )
    _check_channels(data)
    if data.pairs and (data.pairing != "csv" or not data.path.is_dir()):
        raise DataError(
            f"data.pairs are the rows of a table: set data.pairing: csv (it is {data.pairing}), and data.path to the folder that "
            f"their paths are relative to (it is {data.path})"
        )
    if data.pairing == "patterns" and (data.input is None or data.target is None):
        raise DataError(
            "data.pairing: patterns needs data.input and data.target: give patterns with {name}, the part that the files of a "
            "pair share, as in 'images/{name}' and 'masks/{name}_mask'"
        )
    if data.skip_unpaired and data.pairing not in ("folders", "suffixes", "patterns"):
        raise DataError(f"data.skip_unpaired has no effect with data.pairing: {data.pairing}; remove it")
    if data.ignore and data.pairing in ("csv", "channels", "unpaired"):
        raise DataError(f"data.ignore has no effect with data.pairing: {data.pairing}; remove it")
    if len(set(data.inputs)) < len(data.inputs):
        raise DataError(f"data.input has the same entry twice: {', '.join(data.inputs)}; give each once")
    if data.pairing != "csv" and data.pairing != "channels" and not data.path.is_dir():
        raise DataError(f"data.path: {data.path} is a file; data.pairing: {data.pairing} needs a folder")


def _check_split(data: Data) -> None:
    if data.split == "column" and data.pairing != "csv":
        raise DataError(f"data.split: column needs data.pairing: csv; it is {data.pairing}")
    if data.split == "folders" and data.pairing == "csv":
        raise DataError(
            "data.split: folders cannot be combined with data.pairing: csv; use data.split: column or random"
        )
    if data.folds is not None and data.split != "random":
        raise DataError(
            f"data.folds splits the images itself, but data.split is {data.split}: remove one of them"
        )


def _check_unpaired(data: Data) -> None:
    if data.pairing == "unpaired" and (data.folds, data.group, data.time_points) != (None, None, False):
        raise DataError(
            "data.folds, data.group and data.time_points split pairs, but data.pairing: unpaired has none; put pairs into val/, all "
            "other images into train/, and set data.split: folders"
        )
    if data.pairing == "unpaired" and (data.cost, data.cost_channels, data.cost_axes) != (None, None, None):
        raise DataError(
            "data.cost, data.cost_channels and data.cost_axes have no effect with data.pairing: unpaired, whose inputs "
            "have no targets; remove them"
        )
    if data.pairing == "unpaired" and len(data.inputs) > 1:
        raise DataError(
            "data.input names several files of an input, which data.pairing: unpaired cannot match with each other; save their "
            "channels in one file"
        )


def _check_channels(data: Data) -> None:
    if data.pairing == "channels":
        if (data.input, data.target, data.cost) != (None, None, None):
            raise DataError(
                "data.input, data.target and data.cost have no effect with data.pairing: channels; name the channels in "
                "data.input_channels, data.target_channels and data.cost_channels"
            )
        if data.input_channels is None or data.target_channels is None:
            raise DataError(
                "data.pairing: channels needs data.input_channels and data.target_channels: give the names or indices of "
                "the channels of the input and the target"
            )
