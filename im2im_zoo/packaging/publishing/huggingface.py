"""Upload to the Hugging Face Hub by bioimageio.spec's `push_to_hub`: a pull request if the model has a version, else a branch `draft`."""

import gc
import tempfile
import warnings
from pathlib import Path

from im2im_zoo.core.errors import PublishingError
from im2im_zoo.packaging.publishing.huggingface_folder import describe_for_hub, find_push_to_hub, unchecked
from im2im_zoo.packaging.publishing.publication import Publication

_INSTALL = 'publishing on the Hugging Face Hub needs huggingface_hub: pip install "im2im_zoo[huggingface]"'


def push_to_huggingface(publication: Publication, token: str) -> str:
    """Upload a publication and return the address of its repository.

    Raises:
        PublishingError: huggingface_hub is not installed, or the upload failed.
    """
    try:
        import huggingface_hub  # noqa: F401 imported by bioimageio.spec
    except ModuleNotFoundError as error:
        raise PublishingError(_INSTALL) from error
    owner, _, name = publication.repository.partition("/")
    description = describe_for_hub(publication.package, name)
    address = f"{publication.server}/{publication.repository}"
    with (
        tempfile.TemporaryDirectory(prefix="im2im_zoo_") as temporary,
        warnings.catch_warnings(),
        unchecked(publication.package),
    ):
        warnings.simplefilter("ignore")  # about its guesses for the model card, and a tag that it moves
        try:
            find_push_to_hub()(description, owner, prep_dir=Path(temporary) / "model")
            gc.collect()  # files that bioimageio.spec leaves open
        except Exception as error:
            raise PublishingError(_explain(error, publication, token)) from error
    return address


def _explain(error: Exception, publication: Publication, token: str) -> str:
    """Return the message for a failed upload, without the token."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    reason = " ".join(str(error).split())[:300].replace(token, "***")
    page, variable = publication.target.token_page, publication.target.token_variables[0]
    remedies = {
        401: f"the token in {variable} is wrong or has expired; create one with write access at {page}",
        403: f"the token in {variable} may not write to {publication.repository}; create one with write access at {page}, or "
        "choose another --repository OWNER/NAME",
        413: "a file is larger than the Hub accepts; leave out a weight format",
    }
    text = remedies.get(status or 0, f"{type(error).__name__}: {reason}")
    known = f" with status {status}" if status else ""
    return (
        f"{publication.server} did not take {publication.repository}{known}: {text}\n"
        "The main branch of the repository is unchanged, but it may have an unfinished pull request or draft. Run the same "
        f"command to try again, and close what is unfinished: {publication.server}/{publication.repository}/discussions"
    )
