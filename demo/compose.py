"""`make compose`: the stack of compose.yaml on this machine's CPU. Needs Docker, and no Python packages."""

import argparse
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROFILE = "cpu"
READY_S = 900


def settings_of(file: Path) -> dict[str, str]:
    """The names and values in a .env file; none where there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    pairs = [line.partition("=") for line in lines if not line.lstrip().startswith("#")]
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def complete(file: Path) -> dict[str, str]:
    """Add what compose.yaml requires and the file has not, with random secrets; gives all of it."""
    found = settings_of(file)
    wanted = {
        "REDIS_PASSWORD": secrets.token_hex(24),
        "LONGHAND_API_KEYS": f"compose:{secrets.token_hex(24)}",
        "WEBHOOK_SECRET": secrets.token_hex(24),
        "LONGHAND_FLOWER_LOGIN": f"admin:{secrets.token_hex(12)}",
    }
    missing = {name: value for name, value in wanted.items() if not found.get(name)}
    if missing:
        # Nobody else may read it, at no time.
        file.touch(mode=0o600)
        file.chmod(0o600)
        text = file.read_text(encoding="utf-8")
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n" if text and not text.endswith("\n") else "")
            # Of two lines with one name the later counts.
            lines.writelines(f"{name}={value}\n" for name, value in missing.items())
        print(f"Wrote {', '.join(missing)} into {file.name}.", flush=True)
    return found | missing


def compose(*arguments: str) -> int:
    """Run Docker Compose; its exit status."""
    try:
        return subprocess.run(["docker", "compose", *arguments], cwd=ROOT, check=False).returncode
    except FileNotFoundError:
        sys.exit("compose: Docker is not installed: see https://docs.docker.com/engine/install/")


def main() -> None:
    """Write what .env lacks, build, start, wait until all is healthy, and say how to use it."""
    parser = argparse.ArgumentParser(prog="python -m demo.compose", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="containers that transcribe")
    options = parser.parse_args()
    settings = complete(ROOT / ".env")
    scale = f"--scale=transcribe-{PROFILE}={options.workers}"
    wait = ("--wait", f"--wait-timeout={READY_S}")
    if status := compose("--profile", PROFILE, "up", "--build", "--detach", *wait, scale):
        compose("--profile", PROFILE, "logs", "--tail=5")
        sys.exit(status)
    print(told(settings))


def told(settings: dict[str, str]) -> str:
    """How to use the running stack."""
    api = settings.get("API_ADDRESS", "127.0.0.1:8000")
    flower = settings.get("FLOWER_ADDRESS", "127.0.0.1:5555")
    key = settings["LONGHAND_API_KEYS"].split(",")[0].partition(":")[2]
    login = settings["LONGHAND_FLOWER_LOGIN"]
    body = """printf '{"input": {"blob": "%s"}}' "$(base64 < demo/sample.opus | tr -d '\\n')\""""
    headers = f"-H 'Authorization: {key}' -H 'Content-Type: application/json'"
    return f"""
Transcribe the sample:

  {body} | curl -s http://{api}/v2/longhand/runsync {headers} --data-binary @-

Flower: http://{flower}, login {login}
Stop:   docker compose --profile {PROFILE} down"""


if __name__ == "__main__":
    main()
