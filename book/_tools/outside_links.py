"""Ask for every address outside of the course, and say which are dead.

    python book/_tools/outside_links.py [--report FILE]

Run weekly by `.github/workflows/links.yml`, never by the tests. An address is dead if its host does
not exist or answers 404 or 410. Where a host refuses programs or is out of order, nobody can tell:
such addresses are listed apart, and count for nothing. A DOI is asked for at its registry, since
publishers refuse programs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.links import Published, outside_addresses
from _tools.repository import ROOT

REPORT = ROOT / "_build" / "links" / "report.json"
AGENT = "Mozilla/5.0 (compatible; course-link-check/1.0)"
REGISTRY = "https://doi.org/api/handles/"
TRIES = 3
PAUSE_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0
HOSTS_AT_ONCE = 8  # and one address of a host at a time
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


@dataclass(frozen=True)
class Answer:
    """What became of one address: `state` is alive, dead or unknown, `why` a few words."""

    address: str
    state: str
    why: str
    files: tuple[str, ...] = ()


def asked_instead(address: str) -> str:
    """Return what is really asked for: a DOI's registry entry, or the address itself."""
    found = re.match(r"https?://(?:dx\.)?doi\.org/(10\..+)", address)
    return REGISTRY + found[1] if found else quote(address, safe=":/?#[]@!$&'()*+,;=%~")


def request(address: str, method: str, timeout: float) -> int:
    """Return the status that the host answers with, after following redirections."""
    asked = urllib.request.Request(address, method=method, headers={"User-Agent": AGENT})
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def ask(address: str, *, tries: int = TRIES, pause: float = PAUSE_SECONDS,
        timeout: float = TIMEOUT_SECONDS) -> tuple[str, str]:  # fmt: skip
    """Return the state of an address and why: first its head, then all of it, then once more."""
    why = ""
    for attempt in range(tries):
        for method in ("HEAD", "GET"):
            try:
                status = request(asked_instead(address), method, timeout)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                why = f"no answer ({type(reason).__name__})"
                if isinstance(reason, socket.gaierror):
                    why = "there is no such host"
                break
            why = f"answers {status}"
            if status < 400:
                return ALIVE, why
        else:
            if status in (404, 410):
                return DEAD, why
            if status not in (408, 425, 429) and status < 500:
                return UNKNOWN, why  # it refuses programs
        if attempt + 1 < tries:
            time.sleep(pause * 2**attempt)
    return (DEAD if why == "there is no such host" else UNKNOWN), why


def ask_all(addresses: dict[str, list[str]], asking: Callable = ask) -> list[Answer]:
    """Ask for every address, hosts beside one another and the addresses of a host in turn."""
    hosts: dict[str, list[str]] = {}
    for address in addresses:
        hosts.setdefault(urlsplit(address).netloc, []).append(address)

    def ask_host(several: list[str]) -> list[Answer]:
        return [Answer(one, *asking(one), files=tuple(addresses[one])) for one in several]

    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        answers = [answer for some in pool.map(ask_host, hosts.values()) for answer in some]
    return sorted(answers, key=lambda answer: answer.address)


def to_markdown(answers: list[Answer]) -> str:
    """Return the report as a person reads it; an empty string if nothing is dead."""
    def rows(state: str) -> list[str]:
        return [f"- {answer.address} {answer.why}; in {', '.join(answer.files)}"
                for answer in answers if answer.state == state]  # fmt: skip

    dead, unknown = rows(DEAD), rows(UNKNOWN)
    if not dead:
        return ""
    lines = [f"{len(dead)} of {len(answers)} addresses outside of the course are dead:", "", *dead]
    if unknown:
        lines += ["", "Nobody could tell of these, whose hosts refuse programs or do not answer:",
                  "", *unknown]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Ask, print, and write the report; 1 if an address is dead."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE")
    given = parser.parse_args()
    answers = ask_all(outside_addresses(Published()))
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps([asdict(answer) for answer in answers], indent=1), "utf-8")
    states = [answer.state for answer in answers]
    print(to_markdown(answers) or "No address is dead.")
    print(f"==> {len(answers)} addresses: {states.count(ALIVE)} alive, {states.count(DEAD)} dead, "
          f"{states.count(UNKNOWN)} unknown. See {given.report}")  # fmt: skip
    return 1 if DEAD in states else 0


if __name__ == "__main__":
    sys.exit(main())
