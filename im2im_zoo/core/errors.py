"""Every error that a person can cause, and the only ones that the command line shows without a traceback.

    Im2ImError
    ├── AxesError          axes that are missing, doubled, unknown or do not fit
    ├── ComponentError     a dotted path that cannot be imported, called, or trusted
    ├── RecipeError        a key or value of a recipe
    ├── ImageError         an image file that cannot be read or written
    ├── DataError          images that do not pair, match or suffice for training
    ├── ProcessingError    a pre- or postprocessing operation that cannot be done
    ├── PackageError       a bioimage.io package that is not sound or cannot run here
    ├── TrainingError      training that cannot start, go on or be resumed
    │   └── InterruptionError   training that was stopped from outside and can be resumed
    ├── PlanError          a prediction that cannot be planned within its limits
    └── EvaluationError    a prediction and a target that cannot be compared

A message says what is wrong, where (file, key, axis), and what to do about it.
"""

import errno

# What the system says when a disk, a quota or a file's largest size is full.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Im2ImError(Exception):
    """Base of all errors with a message meant for a person."""


class AxesError(Im2ImError):
    """Axes that are missing, doubled, unknown or do not fit."""


class ComponentError(Im2ImError):
    """A dotted path that cannot be imported, called, or trusted."""


class RecipeError(Im2ImError):
    """A key or value of a recipe."""


class ImageError(Im2ImError):
    """An image file that cannot be read or written."""


class DataError(Im2ImError):
    """Images that do not pair, match or suffice for training."""


class ProcessingError(Im2ImError):
    """A pre- or postprocessing operation that cannot be done."""


class PackageError(Im2ImError):
    """A bioimage.io package that is not sound or cannot run here."""


class TrainingError(Im2ImError):
    """Training that cannot start, go on or be resumed."""


class InterruptionError(TrainingError):
    """Training that was stopped from outside and can be resumed."""


class PlanError(Im2ImError):
    """A prediction that cannot be planned within its limits."""


class EvaluationError(Im2ImError):
    """A prediction and a target that cannot be compared."""
