"""GET requests that wait, come back and take up where they were cut, over the standard library's HTTP."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from fnqs.errors import InputError

LARGEST_FILE = 256 << 20
LARGEST_ANSWER = 32 << 20
"""Bytes; the public data base's files are a thousand times smaller."""

PROGRESS = 1024
"""Bytes that a cut transfer must have brought, for the next attempt to count as the first one again."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP codes of troubles that may be over at the next attempt."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        timeout: seconds without a byte, after which a connection is given up.
        attempts: how often to try in a row without progress.
        pause: seconds before the second attempt; twice as many before each further one.
        longest_pause: seconds that no pause exceeds, not even one that the server asks for.
        slowest: bytes a second, averaged over `timeout`, below which a connection is given up.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0
    longest_pause: float = 120.0
    slowest: float = 256.0


class _Passing(Exception):
    """A trouble that may be over at the next attempt."""

    def __init__(self, reason: str, pause: float = 0.0, progress: bool = False):
        super().__init__(reason)
        self.pause, self.progress = pause, progress


class Server:
    """A web server, asked politely.

    Args:
        url: its address, https (or http where the user says so), without a path behind the host's.
        patience: how long to wait for it.

    Raises:
        InputError: if the address is none.
    """

    def __init__(self, url: str, patience: Patience):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError(f"{url!r} is not the address of a server; give one like https://girder.hub.yt")
        self.url, self.patience = url.rstrip("/"), patience
        self.stopped = threading.Event()
        # No handlers but these: nothing can lead to a file or to another protocol.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
            _Redirects(),
        ):
            self._opener.add_handler(handler)

    def json(self, path: str, query: dict[str, str | int | float]) -> object:
        """Return the decoded JSON that the server answers to a query.

        Raises:
            InputError: if it answers something else, too much, an error, or nothing in the end.
        """
        url = f"{self.url}{path}?{urlencode(query)}"

        def once() -> bytes:
            with self._open(url, {}) as response:
                expected, body = _length(response), b""
                for chunk in self._chunks(response):
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise InputError(
                            f"{url}: the answer is longer than {LARGEST_ANSWER >> 20} MB; is this the server?"
                        )
            if expected is not None and len(body) != expected:
                raise _Passing(f"{len(body)} of {expected} bytes came")
            return body

        body = self._patiently(url, once)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise InputError(f"{url}: the answer is not JSON ({error}); is this a Girder server?") from error

    def fetch(self, path: str, part: Path) -> bool:
        """Complete a file, from where an earlier attempt was cut if the server can do that.

        Args:
            path: on the server.
            part: the file; what it already holds is taken for the beginning.

        Returns:
            whether it was put together from several transfers.

        Raises:
            InputError: if it is too large, the server answers an error, or it stays incomplete.
        """
        url = f"{self.url}{path}"
        transfers = 0

        def once() -> None:
            nonlocal transfers
            transfers += self._transfer(url, part)

        transfers += part.exists()
        self._patiently(url, once)
        return transfers > 1

    def _transfer(self, url: str, part: Path) -> int:
        """Append what one request brings; 1 if that went behind or before other bytes."""
        have = part.stat().st_size if part.exists() else 0
        with self._open(url, {"Range": f"bytes={have}-"} if have else {}) as response:
            resumed = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if response.status == 206 and (not resumed or int(resumed[1]) != have):
                part.unlink(missing_ok=True)
                raise _Passing("it sent another part than was asked for")
            if response.status != 206:
                resumed, have = None, 0
            expected = int(resumed[2]) if resumed else _length(response)
            before = have
            with part.open("ab" if resumed else "wb") as file:
                try:
                    for chunk in self._chunks(response):
                        have += len(chunk)
                        if max(have, expected or 0) > LARGEST_FILE:
                            raise InputError(
                                f"{url}: the file is larger than {LARGEST_FILE >> 20} MB; it is not fetched"
                            )
                        file.write(chunk)
                except _Passing as trouble:
                    raise _Passing(str(trouble), progress=have - before >= PROGRESS) from trouble
        if expected is not None and have > expected:
            part.unlink()
        if expected is not None and have != expected:
            raise _Passing(f"{have} of {expected} bytes came", progress=PROGRESS <= have - before < expected)
        return 1

    def _chunks(self, response: HTTPResponse) -> Iterator[bytes]:
        """Bytes as they come; raises _Passing when the connection breaks or is too slow."""
        start, received = time.monotonic(), 0
        while not self.stopped.is_set():
            try:
                chunk = response.read1(1 << 16)
            except (OSError, HTTPException) as error:
                raise _Passing(f"the connection broke off ({_reason(error)})") from error
            if not chunk:
                return
            yield chunk
            received += len(chunk)
            if (passed := time.monotonic() - start) > self.patience.timeout:
                if received < self.patience.slowest * passed:
                    raise _Passing(f"only {received / passed:.0f} bytes a second came")
                start, received = time.monotonic(), 0
        raise InputError("stopped")

    def _open(self, url: str, headers: dict[str, str]) -> HTTPResponse:
        """Answer of the server to a GET; raises _Passing or InputError."""
        agent = {"User-Agent": "fnqs-data (foundation neural quantum states)", "Accept-Encoding": "identity"}
        request = urllib.request.Request(url, headers=agent | headers)
        try:
            return self._opener.open(request, timeout=self.patience.timeout)  # type: ignore[return-value]
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and "Range" in headers:
                raise _Passing("it no longer has the part that was asked for") from error
            if error.code in PASSING:
                raise _Passing(f"it answers {error.code} {error.reason}", _retry_after(error)) from error
            raise InputError(f"{url}: the server answers {error.code} {error.reason}; check the address") from error
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError):
                raise InputError(
                    f"{url}: the server cannot be reached ({_reason(cause)}); check the network"
                ) from error
            raise _Passing(f"it cannot be reached ({_reason(cause)})") from error

    def _patiently(self, url: str, action: Callable[[], Answer]) -> Answer:
        """Try until it works, with ever longer pauses; raises InputError after too many attempts without progress."""
        failures = 0
        while True:
            try:
                return action()
            except _Passing as trouble:
                failures = 1 if trouble.progress else failures + 1
                if failures >= self.patience.attempts:
                    raise InputError(
                        f"{url}: given up after {failures} attempts ({trouble}); run the command again later"
                    ) from trouble
                pause = max(trouble.pause, self.patience.pause * 2 ** (failures - 1))
                if self.stopped.wait(min(pause, self.patience.longest_pause)):
                    raise InputError("stopped") from trouble


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, or to the same host as before; to nothing else."""

    max_redirections = 5

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """Refuse to be led off; see the base class."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise InputError(f"{req.full_url}: the server leads on to {newurl}, which is not https; not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait, as a number or as a date; 0 if it does not."""
    text = error.headers.get("Retry-After", "") if error.headers else ""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _reason(error: object) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
