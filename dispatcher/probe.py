"""`python -m dispatcher.probe URL`: exit 0 if the URL answers 200, for images that have no curl."""

import argparse
import sys

import requests

PATIENCE_S = 8


def main() -> None:
    """Ask once; what is wrong goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m dispatcher.probe", description=__doc__)
    parser.add_argument("url")
    options = parser.parse_args()
    session = requests.Session()
    # A proxy is for what is elsewhere, and Docker puts its own into every container.
    session.trust_env = False
    try:
        answer = session.get(options.url, timeout=PATIENCE_S, allow_redirects=False)
    except requests.RequestException as error:
        sys.exit(str(error))
    if answer.status_code != requests.codes.ok:
        sys.exit(f"{answer.status_code} {answer.text[:200]}")


if __name__ == "__main__":
    main()
