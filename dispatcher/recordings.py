"""Recordings that came along in an input."""


def without_blobs(raw: object) -> object:
    """An input without the recordings that came along, in either place."""
    if not isinstance(raw, dict):
        return raw
    told = {name: value for name, value in raw.items() if name != "blob"}
    arguments = raw.get("transcribe_args")
    if isinstance(arguments, dict) and "blob" in arguments:
        told["transcribe_args"] = {name: value for name, value in arguments.items() if name != "blob"}
    return told
