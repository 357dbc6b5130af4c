"""Recordings in an input that are not at an address: uploads, and those that came along."""

import re

from tasks.errors import InvalidInput
from tasks.job import UPLOAD_SCHEME

UPLOAD_ID = re.compile("[0-9a-f]{32}")


def is_upload(url: str) -> bool:
    """Whether a URL names an upload, if not necessarily one that there is.

    Raises InvalidInput where it could not name any.
    """
    if not url.startswith(UPLOAD_SCHEME):
        return False
    if not UPLOAD_ID.fullmatch(url.removeprefix(UPLOAD_SCHEME)):
        raise InvalidInput(f"{UPLOAD_SCHEME} is followed by the id of an upload, 32 hexadecimal digits")
    return True


def without_blobs(raw: object) -> object:
    """An input without the recordings that came along, in either place."""
    if not isinstance(raw, dict):
        return raw
    told = {name: value for name, value in raw.items() if name != "blob"}
    arguments = raw.get("transcribe_args")
    if isinstance(arguments, dict) and "blob" in arguments:
        told["transcribe_args"] = {name: value for name, value in arguments.items() if name != "blob"}
    return told
