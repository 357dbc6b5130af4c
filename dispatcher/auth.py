"""API keys of the settings: who submits."""

import hmac

ANONYMOUS = "anonymous"


def key_of(header: str | None) -> str:
    """The key of an `Authorization` header: `KEY` or `Bearer KEY`; "" if there is none."""
    scheme, _, rest = (header or "").strip().partition(" ")
    given = rest.strip() if scheme.lower() == "bearer" else (header or "").strip()
    # HTTP gives a header's bytes as latin-1.
    return given.encode("latin-1", "replace").decode("utf-8", "replace")


def account_of(key: str, keys: dict[str, str]) -> str | None:
    """The account of a key; None if there is no such key. Every key is compared, in constant time each."""
    given = key.encode()
    found = [name for known, name in keys.items() if hmac.compare_digest(known.encode(), given)]
    return found[0] if found else None
