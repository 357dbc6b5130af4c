"""Who is at work on a job."""

from typing import Any

from tests.conftest import Stack


def leases_of(stack: Stack, job_id: str) -> list[str]:
    """The units of a job that somebody is at work on."""
    found: list[Any] = []
    for stage in ("ingest", "transcribe", "assemble"):
        found += stack.redis.zrange(f"lh:leases:{stage}", 0, -1)
    units = [member.decode() if isinstance(member, bytes) else member for member in found]
    return [unit for unit in units if unit.startswith(f"{job_id}/")]
