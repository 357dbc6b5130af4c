"""What must be gone once every job's retention is over: keys, blobs, temporary files, leases, processes."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from tasks.settings import Settings

# Keys that stay, each bounded by the number of endpoints, accounts, keys, processes or days; docs/redis.md
# has them all. The list of an account's deliveries forgets by age.
STAYING = (
    r"lh:counts:[^:]+",
    r"lh:waiting",
    r"lh:deliveries:[^:]+",
    r"lh:clock:[^:]+",
    r"lh:flow:[^:]+:\d+/.+",
    r"lh:slots:[^:]+",
    r"lh:workers?:[^:]+",
    r"lh:audio:[^:]+:\d+",
    r"lh:reape[rd]",
    r"lh:link_key",
    r"lh:circuit:.+",
)


def keys_left(client: "Redis") -> Iterator[str]:
    """Keys that should have gone."""
    for key in client.scan_iter(match="*", count=1_000):
        name = key.decode()
        if not any(re.fullmatch(pattern, name) for pattern in STAYING):
            yield name


def counts_wrong(client: Any) -> Iterator[str]:
    """Counters of what is going on, which are nought when nothing is."""
    for key in client.scan_iter(match="lh:counts:*"):
        for status, count in client.hgetall(key).items():
            if status in (b"queued", b"running") and count != b"0":
                yield f"{key.decode()} counts {count.decode()} {status.decode()} jobs"
    for account, count in client.hgetall("lh:waiting").items():
        if count != b"0":
            yield f"lh:waiting counts {count.decode()} jobs of {account.decode()}"


def files_left(settings: Settings) -> list[str]:
    """Blobs, and downloads in progress."""
    folders = (settings.data_path / "blobs", settings.scratch_path)
    return [str(file) for folder in folders for file in folder.rglob("*") if file.is_file()]


def commits(logs: Path) -> Counter[tuple[str, int]]:
    """How often workers said that a chunk of a job is done, by (job, index)."""
    found: Counter[tuple[str, int]] = Counter()
    for line in (logs / "transcribe.log").read_text(encoding="utf-8", errors="replace").splitlines():
        if '"chunk_done"' in line:
            try:
                fields = json.loads(line)
            except ValueError:
                continue  # its writer was killed
            found[fields["job_id"], fields["chunk"]] += 1
    return found
