"""What accounts are given beside one another: of weights 3 and 1, one gets three times the other's audio."""

import re

_ENTRY = re.compile(r"(?P<name>.+)=(?P<weight>\d{1,4}(\.\d{1,3})?)")
LEAST, MOST = 0.01, 1000


def weights_of(entries: tuple[str, ...]) -> dict[str, str]:
    """The weight of each account that `name=weight` gives one. Raises ValueError, which quotes the entry."""
    found: dict[str, str] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None or not LEAST <= float(match["weight"]) <= MOST:
            raise ValueError(f"{entry!r}: write it as name=weight, of {LEAST} to {MOST}")
        if match["name"] in found:
            raise ValueError(f"{match['name']} is given two weights")
        found[match["name"]] = match["weight"]
    return found
