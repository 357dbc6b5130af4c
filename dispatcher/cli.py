"""The `longhand` command: run a machine, submit recordings, follow jobs."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import click

from dispatcher.client import TERMINAL, Client, transcript_of
from dispatcher.keys_cli import keys
from dispatcher.local import Machine, Plan
from dispatcher.processes import end_on_signals, ignore_signals
from dispatcher.sending import send_file
from dispatcher.webhooks_cli import webhooks
from tasks.errors import ConfigurationError, InvalidInput, LonghandError
from tasks.events import rfc3339
from tasks.formats import FORMATS
from tasks.job import UPLOAD_SCHEME, is_english_only
from tasks.model_names import model_of
from tasks.settings import Settings
from tasks.transcript import Transcript

# Base64 makes four bytes of three, and /run takes 16 MiB.
MAX_FILE = 11 * 1024 * 1024


class NotCompleted(LonghandError):
    """The job has no transcript."""

    code = "not_completed"


class LonghandGroup(click.Group):
    """Turns our errors into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LonghandError as error:
            click.echo(f"{error.code}: {error}", err=True)
            sys.exit(1)


@click.group(cls=LonghandGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Transcripts of long recordings.

    Start everything on this machine with `longhand up`, then in another terminal:

        longhand transcribe https://example.com/talk.mp3 --format srt

    The client commands talk to LONGHAND_API_URL with LONGHAND_API_KEY.
    """


def _client() -> Client:
    settings = Settings.from_env()
    return Client(settings.api_url, settings.api_key)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the API listens on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port of the API; 0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Processes that transcribe: one per GPU, or per core.",
)
@click.option("--model", help="Model of jobs that name none. Without it: by device, GPU or CPU.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder of state, audio and logs; without it LONGHAND_DATA_DIR, or ~/.longhand.",
)
@click.option("--redis-url", help="Use this Redis, or that of REDIS_URL; without either, an embedded one.")
@click.option(
    "--flower-port",
    type=click.IntRange(0, 65535),
    help="Also start Flower, the dashboard, on this port of 127.0.0.1.",
)
def up(
    host: str,
    port: int,
    workers: int,
    model: str | None,
    data_dir: Path | None,
    redis_url: str | None,
    flower_port: int | None,
) -> None:
    """Run everything on this machine: Redis, API, workers, Flower. Ctrl-C ends it all.

    Prints `ready http://HOST:PORT` once a worker has its model. A process that dies is started again.
    """
    settings = Settings.from_env(redis_url=redis_url) if redis_url else Settings.from_env()
    own_redis = settings.redis_url if "redis_url" in settings.model_fields_set else ""
    chosen = {"model": model_of(model or "", settings), "data_dir": data_dir or settings.data_dir}
    settings = settings.model_copy(update=chosen)
    machine = Machine(settings, Plan(host, port, workers, own_redis, flower_port))
    only = ", which knows only English (--model chooses another)" if is_english_only(settings.model) else ""
    click.echo(f"model {settings.model}{only}, data in {settings.data_path}")
    _run(machine, f"ready {machine.url}")


@main.command()
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that transcribe."
)
def runpod(workers: int) -> None:
    """Be a RunPod worker that needs nothing else: handler, workers and an embedded Redis.

    With REDIS_URL set, that Redis takes the place of the embedded one.
    """
    settings = Settings.from_env()
    own_redis = settings.redis_url if "redis_url" in settings.model_fields_set else ""
    if not own_redis:
        if settings.detach == "always":
            raise ConfigurationError(
                "LONGHAND_DETACH=always needs REDIS_URL: a job would end with its worker"
            )
        settings = settings.model_copy(update={"detach": "refused"})
    # Whoever works on the job ends with the handler, and with REDIS_URL the next worker goes on from there.
    settings = settings.model_copy(update={"handler_lease_ms": 0})
    roles = ("transcribe", "io", "deliver", "handler")
    plan = Plan(workers=workers, redis_url=own_redis, roles=roles, log_files=False, ends_without_redis=False)
    machine = Machine(settings, plan)
    _run(machine, "taking the platform's jobs")


def _run(machine: Machine, ready: str) -> None:
    """Run a machine until Ctrl-C or SIGTERM; say `ready` when it is."""
    end_on_signals()
    try:
        machine.start()
        if machine.flower_port:
            click.echo(f"flower http://127.0.0.1:{machine.flower_port}")
        click.echo(ready)
        machine.watch(click.echo)
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        ignore_signals()
        machine.stop()


@main.command()
@click.argument("recording")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="txt", show_default=True)
@click.option("--model", default="", help="Model to use; without it, the server's.")
@click.option("--language", help="Language of the recording, such as he or en; without it, it is detected.")
@click.option("--webhook-url", help="Where progress is to be posted.")
@click.option("--recording-id", help="Your own name for the recording, repeated in every webhook.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write here and not to the terminal.",
)
def transcribe(
    recording: str,
    form: str,
    model: str,
    language: str | None,
    webhook_url: str | None,
    recording_id: str | None,
    output: Path | None,
) -> None:
    """Transcribe RECORDING, a URL or a file, and print the transcript.

    A file above 11 MiB is uploaded first. Progress is shown on stderr, so that the output can be piped.
    """
    client = _client()
    if output and not output.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {output.parent} to write to")
    job_input: dict[str, Any] = {"model": model, "transcribe_args": _source(client, recording)}
    if language:
        job_input["transcribe_args"]["language"] = language
    for name, value in (("webhook_url", webhook_url), ("recording_id", recording_id)):
        if value:
            job_input[name] = value
    job_id = client.submit(job_input)
    click.echo(f"job {job_id}", err=True)
    try:
        follow(client, job_id)
    except KeyboardInterrupt:
        click.echo(f"\nThe job goes on: `longhand result {job_id}` or `longhand cancel {job_id}`", err=True)
        sys.exit(130)
    text = FORMATS[form](_finished(client, job_id))
    if output:
        output.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=not text.endswith("\n"))


@main.command()
@click.argument("file")
def upload(file: str) -> None:
    """Upload FILE and print its url, which jobs take as the url of a recording.

    It is kept for a day after its last use, unless the server is set up otherwise.
    """
    click.echo(_uploaded(_client(), _file(file)))


@main.command()
@click.argument("job_id")
def status(job_id: str) -> None:
    """Show a job's state as JSON, without its transcript."""
    shown = _client().status(job_id)
    if shown["status"] == "COMPLETED":
        shown.pop("output", None)
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@main.command()
@click.argument("job_id")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="txt", show_default=True)
def result(job_id: str, form: str) -> None:
    """Print the transcript of a job that has completed."""
    text = FORMATS[form](_finished(_client(), job_id))
    click.echo(text, nl=not text.endswith("\n"))


@main.command()
@click.argument("job_id")
def cancel(job_id: str) -> None:
    """End a job; one that has ended stays as it is."""
    click.echo(_client().cancel(job_id)["status"])


@main.command()
@click.option("--limit", default=20, show_default=True, help="How many jobs to list.")
def jobs(limit: int) -> None:
    """List your newest jobs: when, id, state, audio done, your own id for the recording, error."""
    for job in _client().jobs(limit):
        total = job["audio_seconds_total"]
        done = f"{job['audio_seconds_done']:.0f}/{total:.0f} s" if total is not None else "-"
        own = job["recording_id"] if job["recording_id"] != job["id"] else "-"
        submitted = rfc3339(job["created_ms"])[:19]
        click.echo(f"{submitted}  {job['id']}  {job['status']:<11}  {done:>13}  {own}  {job['error']}")


main.add_command(webhooks)
main.add_command(keys)


def follow(client: Client, job_id: str) -> None:
    """Show a progress bar on stderr until the job has ended."""
    with click.progressbar(length=1000, label="transcribing", file=sys.stderr) as bar:
        for share in client.progress(job_id):
            bar.update(round(1000 * share) - bar.pos)
        bar.update(1000 - bar.pos)


def _source(client: Client, recording: str) -> dict[str, str]:
    """The input that names the recording: a URL, or a file that is sent along or uploaded now."""
    if "://" in recording or recording.startswith(UPLOAD_SCHEME):
        return {"url": recording}
    path = _file(recording)
    if path.stat().st_size > MAX_FILE:
        return {"url": _uploaded(client, path)}
    return {"blob": base64.b64encode(path.read_bytes()).decode()}


def _file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InvalidInput(f"there is no file {name}; a URL starts with https://")
    return path


def _uploaded(client: Client, path: Path) -> str:
    """Upload a file with a progress bar on stderr; its url."""
    with click.progressbar(length=path.stat().st_size, label="uploading", file=sys.stderr) as bar:
        return send_file(client, path, lambda sent: bar.update(sent - bar.pos))


def _finished(client: Client, job_id: str) -> Transcript:
    """A completed job's transcript, its warnings told; raises NotCompleted for any other job."""
    shown = client.status(job_id)
    if shown["status"] not in TERMINAL:
        raise NotCompleted(f"job {job_id} is still {shown['status']}")
    if shown["status"] != "COMPLETED":
        reason = f": {shown['code']}: {shown['error']}" if "error" in shown else ""
        raise NotCompleted(f"job {job_id} is {shown['status']}{reason}")
    transcript = transcript_of(shown)
    for warning in transcript.warnings:
        click.echo(f"warning: {warning}", err=True)
    return transcript


if __name__ == "__main__":
    main()
