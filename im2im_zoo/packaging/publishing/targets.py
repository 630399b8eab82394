"""Servers that a package can be published on, with the environment variables of their addresses and tokens."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

from im2im_zoo.core.errors import PublishingError
from im2im_zoo.core.http import is_fetchable, is_local

TargetName = Literal["bioimage.io", "huggingface"]


@dataclass(frozen=True, slots=True)
class Target:
    """A server to publish on.

    Attributes:
        name: value of `--to`.
        address_variable: environment variable of its address, for another server than the default one.
        token_variables: environment variables of the token; the first that is set is used.
        token_page: page on which a user creates a token.
    """

    name: TargetName
    address_variable: str
    token_variables: tuple[str, ...]
    token_page: str


TARGETS: Mapping[TargetName, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target(
                "bioimage.io",
                "BIOIMAGEIO_HYPHA_UPLOAD",
                ("BIOIMAGEIO_HYPHA_UPLOAD_TOKEN",),
                "https://bioimage.io/#/api?tab=hypha-rpc",
            ),
            Target(
                "huggingface",
                "HF_ENDPOINT",
                ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
                "https://huggingface.co/settings/tokens",
            ),
        )
    }
)


def target_of(name: str) -> Target:
    """Return a target by its name.

    Raises:
        PublishingError: there is none of this name.
    """
    if name not in TARGETS:
        names = " or ".join(get_args(TargetName))
        raise PublishingError(f"invalid target {name!r}: choose {names}")
    return TARGETS[cast(TargetName, name)]


def read_token(target: Target) -> str:
    """Return the token of a target from the environment; it is not read from files or options.

    Raises:
        PublishingError: none is set, or it has characters that no token has.
    """
    found = (os.environ.get(variable, "").strip() for variable in target.token_variables)
    token = next((text for text in found if text), "")
    variable = target.token_variables[0]
    if not token:
        raise PublishingError(
            f"no token for {target.name}: create one at {target.token_page} and set the environment variable {variable} to it"
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise PublishingError(
            f"{variable} is not a token: it has spaces or other characters; copy it again from {target.token_page}"
        )
    return token


def server_of(target: Target) -> str:
    """Return the address of a target's server: the default one, or that of its environment variable.

    Raises:
        PublishingError: an address that would send the token without encryption, or not an address.
    """
    address = os.environ.get(target.address_variable, "").strip() or _default_server(target)
    if not is_fetchable(address, local_http=is_local(address)):
        raise PublishingError(
            f"{target.address_variable}={address} is not an https address, so a token sent there could be read on the way; "
            "give one that begins with https://, or unset the variable"
        )
    if target.name == "bioimage.io" and not address.endswith("/create"):
        raise PublishingError(
            f"{target.address_variable}={address} does not end with /create, so the other steps of an upload are not known; "
            "give the address of an artifact manager's `create`, or unset the variable"
        )
    return address.rstrip("/")


def _default_server(target: Target) -> str:
    if target.name == "huggingface":
        return "https://huggingface.co"
    from bioimageio.spec import settings

    # Not the value of the settings: they also read a file `.env` in the current folder, which may come from others.
    return str(type(settings).model_fields["hypha_upload"].default)
