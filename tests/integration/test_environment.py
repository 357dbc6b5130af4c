"""What surrounds a process leads no request elsewhere: proxies and .netrc of the environment are not used."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts import BODY, Host, connections, listening, port_of

ROOT = Path(__file__).parents[2]
FETCH = """
import sys
from pathlib import Path
from tasks.errors import LonghandError
from tasks.settings import Settings
from tests.downloads import fetch
url, target, allowed = sys.argv[1:]
try:
    print(fetch(url, Path(target), Settings(allowed_addresses=allowed), lambda *_: None))
except LonghandError as error:
    print(error.code)
"""


def fetched(url: str, target: Path, allowed: str, **environment: str) -> str:
    """What a process with these variables and no others says: how many bytes came, or the error's code."""
    ran = subprocess.run(
        [sys.executable, "-c", FETCH, url, str(target), allowed],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.strip()


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("no_proxy", ["", "recordings.test"])
def test_no_proxy_is_used(*, host: Host, target: Path, upper: bool, no_proxy: str) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    with listening() as proxy, listening() as dead:
        address = f"http://127.0.0.1:{port_of(proxy)}"
        variables = {
            "http_proxy": address,
            "https_proxy": address,
            "all_proxy": address,
            "no_proxy": no_proxy,
        }
        if upper:
            variables = {name.upper(): value for name, value in variables.items()}
        assert fetched(host.url, target, "127.0.0.1", **variables) == str(len(BODY))
        # What is refused is not asked of a proxy either, which would look the name up for itself.
        assert fetched("http://127.0.0.2/a", target, "127.0.0.1", **variables) == "address_refused"
        secure = f"https://127.0.0.1:{port_of(dead)}/a"
        dead.close()
        assert fetched(secure, target, "127.0.0.1", **variables) == "source_unreachable"
        assert connections(proxy) == 0


def test_no_password_of_netrc_is_sent(host: Host, target: Path, tmp_path: Path) -> None:
    host.scripts = [lambda request: request.file(BODY)]
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    fetched(host.url, target, "127.0.0.1", NETRC=str(netrc), HOME=str(tmp_path))
    assert "Authorization" not in host.requests[0].headers
