"""API keys: who submits."""

import hmac

ANONYMOUS = "anonymous"


def account_of(header: str | None, keys: dict[str, str]) -> str | None:
    """The account of an `Authorization` header: `KEY` or `Bearer KEY`; None if there is no such key.

    Without any key configured everybody is "anonymous".
    """
    if not keys:
        return ANONYMOUS
    scheme, _, rest = (header or "").strip().partition(" ")
    given = rest.strip() if scheme.lower() == "bearer" else (header or "").strip()
    # HTTP gives a header's bytes as latin-1. Every key is compared, in constant time each.
    found = [
        name
        for key, name in keys.items()
        if hmac.compare_digest(key.encode(), given.encode("latin-1", "replace"))
    ]
    return found[0] if found else None
