"""`make demo`: start everything, run the main job, show what came of it, end everything."""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from demo.server import Site, serve
from demo.wer import word_error_rate
from dispatcher.cli import follow
from dispatcher.client import Client, transcript_of
from dispatcher.local import Machine, Plan
from dispatcher.processes import end_on_signals, ignore_signals
from tasks.errors import LonghandError
from tasks.model_names import model_of
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store
from tasks.transcript import Transcript

HERE = Path(__file__).parent
SAMPLE = HERE / "sample.opus"
WORKERS = 2


def main() -> None:
    """Print the whole story; the last line is for machines."""
    options = _options()
    end_on_signals()
    with tempfile.TemporaryDirectory(prefix="longhand-demo-", ignore_cleanup_errors=True) as folder:
        settings = Settings.from_env(
            data_dir=Path(folder),
            webhook_secret=secrets.token_urlsafe(32),
            allow_private_addresses=True,
            progress_interval_ms=1_000,
            progress_step=0.0,
            api_keys={},
        )
        settings = settings.model_copy(update={"model": model_of(options.model, settings)})
        site = Site(settings.webhook_secret, None if options.url else SAMPLE)
        machine = Machine(settings, Plan(port=0, workers=WORKERS))
        failure = ""
        try:
            with serve(site):
                _run(machine, site, options)
        except LonghandError as error:
            failure = f"{error.code}: {error}"
        except KeyboardInterrupt:
            failure = "interrupted"
        finally:
            ignore_signals()
            machine.stop()
    if failure:
        sys.exit(f"demo: failed {failure}")


def _run(machine: Machine, site: Site, options: argparse.Namespace) -> None:
    print(
        f"Starting Redis, {WORKERS} transcribing workers ({machine.settings.model}) and the API ...",
        flush=True,
    )
    machine.start()
    url = options.url or f"{site.url}/sample.opus"
    print(f"POST {machine.url}/v2/longhand/run for {url}", flush=True)
    client = Client(f"{machine.url}/v2/longhand")
    arguments = {"language": options.language} if options.language else {}
    job_input: dict[str, Any] = {
        "url": url,
        "transcribe_args": arguments,
        "webhook_url": f"{site.url}/webhook",
        "recording_id": "demo-1",
    }
    started_s = time.monotonic()
    job_id = client.submit(job_input)
    follow(client, job_id)
    wall_s = time.monotonic() - started_s
    ended = site.wait_for_last(15)
    _show_webhooks(site)
    status = client.status(job_id)
    if status["status"] != "COMPLETED":
        raise LonghandError(f"the job is {status['status']}: {status.get('error', '')}")
    transcript = transcript_of(status)
    _show_transcript(transcript)
    if not ended:
        raise LonghandError("the last webhook did not come")
    _summary(machine, site, job_id, transcript, wall_s, sample=not options.url)


def _summary(
    machine: Machine, site: Site, job_id: str, transcript: Transcript, wall_s: float, *, sample: bool
) -> None:
    client = connect(machine.settings.state_url)
    store = Store(client, machine.settings)
    job = store.job(job_id)
    workers = store.workers(job_id)
    client.close()
    audio_s = (job.duration_ms or 0) / 1000 if job else 0.0
    wer = "-"
    if sample:
        spoken = (HERE / "sample.txt").read_text(encoding="utf-8")
        heard = " ".join(segment.text for segment in transcript.segments)
        wer = f"{100 * word_error_rate(spoken, heard):.1f}"
    print(
        f"demo: ok chunks={job.total if job else 0} workers={len(workers)} webhooks={len(site.received)} "
        f"verified={sum(hook.verified for hook in site.received)} rtfx={audio_s / wall_s:.1f} wer={wer}"
    )


def _show_webhooks(site: Site) -> None:
    print(f"\nWebhooks received ({len(site.received)}):")
    for hook in site.received:
        payload = dict(hook.payload)
        if "transcription" in payload:
            payload["transcription"] = f"[{len(payload['transcription'])} segments]"
        print(f"  {'signature ok   ' if hook.verified else 'SIGNATURE WRONG'} {payload}")


def _show_transcript(transcript: Transcript) -> None:
    print("\nTranscript:")
    for segment in transcript.segments:
        print(f"  {_clock(segment.start_ms)} - {_clock(segment.end_ms)}  {segment.text}")
    print()


def _clock(ms: int) -> str:
    return f"{ms // 3_600_000}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000 // 100}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--url", default="", help="a recording of your own instead of the sample")
    parser.add_argument("--model", default="")
    parser.add_argument("--language", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
