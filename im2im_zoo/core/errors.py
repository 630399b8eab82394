"""All errors that a user can cause; the command line prints these, and only these, without a traceback.

    Im2ImError
    ├── AxesError          axes that are missing, doubled, unknown or do not fit
    ├── ComponentError     a dotted path that cannot be imported, called, or trusted
    ├── RecipeError        a key or value of a recipe
    ├── ImageError         an image file that cannot be read or written
    ├── DataError          images that do not pair or match, or are too few for training
    ├── ProcessingError    a pre- or postprocessing operation that cannot be done
    ├── PackageError       a bioimage.io package that is invalid or cannot run here
    │   └── MissingLibraryError   weights whose library is not installed
    ├── PublishingError    a package that cannot be published, or an upload that failed
    ├── TrainingError      training that cannot start, continue or be resumed
    │   └── InterruptionError   training that was interrupted and can be resumed
    ├── PlanError          a prediction that cannot be planned within its limits
    └── EvaluationError    a prediction and a target that cannot be compared

A message states what is wrong, where (file, key, axis), and what to do about it.
"""

import errno

# Error numbers of a full disk, an exceeded quota and an exceeded file size.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Im2ImError(Exception):
    """Base of all errors whose message is meant for the user."""


class AxesError(Im2ImError):
    """Axes that are missing, doubled, unknown or do not fit."""


class ComponentError(Im2ImError):
    """A dotted path that cannot be imported, called, or trusted."""


class RecipeError(Im2ImError):
    """A key or value of a recipe."""


class ImageError(Im2ImError):
    """An image file that cannot be read or written."""


class DataError(Im2ImError):
    """Images that do not pair or match, or are too few for training."""


class ProcessingError(Im2ImError):
    """A pre- or postprocessing operation that cannot be done."""


class PackageError(Im2ImError):
    """A bioimage.io package that is invalid or cannot run here."""


class MissingLibraryError(PackageError):
    """Weights whose library is not installed here."""


class PublishingError(Im2ImError):
    """A package that cannot be published, or an upload that failed."""


class TrainingError(Im2ImError):
    """Training that cannot start, continue or be resumed."""


class InterruptionError(TrainingError):
    """Training that was interrupted and can be resumed."""


class PlanError(Im2ImError):
    """A prediction that cannot be planned within its limits."""


class EvaluationError(Im2ImError):
    """A prediction and a target that cannot be compared."""
