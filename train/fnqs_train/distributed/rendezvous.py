"""How the processes of a run find each other before JAX starts: all of them meet at process 0 over TCP.

JAX aborts with a stack trace when a process cannot be reached or the numbers of processes differ; here each of these
is one sentence, in every process.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from typing import Any

from fnqs.errors import InputError
from fnqs_train.distributed.processes import Place

PROTOCOL = "fnqs processes 1"
LONGEST_LINE = 1 << 16
HANDSHAKE_SECONDS = 10.0
"""Time that a connection has to say who it is."""

TAKEN_SECONDS = 5.0
"""Time to wait for a port that is taken, perhaps by an outgoing connection of a process that waits for this one."""


def gather(place: Place, identity: str, seconds: float) -> dict[int, socket.socket]:
    """Wait, as process 0, for all others; returns a connection to each.

    Args:
        place: of this process.
        identity: text that must be the same in all processes.
        seconds: to wait.

    Raises:
        InputError: some do not come, or they were started with other settings.
    """
    deadline = time.monotonic() + seconds
    joined: dict[int, socket.socket] = {}
    with _listen(place.port) as server:
        _listen(place.port + 1).close()  # JAX's own service aborts where it finds its port taken
        while len(joined) < place.processes - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, place.processes)) - set(joined))
                _refuse(
                    joined,
                    None,
                    f"{len(missing)} of {place.processes} processes did not come within {seconds:g} s (number "
                    f"{', '.join(map(str, missing[:8]))}); start one for each number",
                )
            hello = _greeting(connection)
            if hello is None:  # not one of ours
                connection.close()
                continue
            process = hello["process"]
            if hello["processes"] != place.processes:
                _refuse(
                    joined,
                    connection,
                    f"process {process} was told of {hello['processes']} processes, process 0 of {place.processes}; "
                    f"give all the same number",
                )
            if process in joined or process == 0:
                _refuse(joined, connection, f"two processes say that they are number {process}; number them from 0 on")
            if hello["identity"] != identity:
                _refuse(
                    joined,
                    connection,
                    f"process {process} was started with another command or config than process 0; give all the same",
                )
            joined[process] = connection
    for connection in joined.values():
        send_line(connection, {"go": True})
    return joined


def join(place: Place, identity: str, seconds: float) -> dict[int, socket.socket]:
    """Report, as another process, to process 0; returns the connection to it.

    Raises:
        InputError: nobody listens there, or process 0 refuses.
    """
    deadline = time.monotonic() + seconds
    where = f"{place.host}:{place.port}"
    while True:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=HANDSHAKE_SECONDS)
            if connection.getsockname() != connection.getpeername():  # a port can be connected to itself
                break
            connection.close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"process {place.process}: no process 0 at {where} within {seconds:g} s "
                    f"({error.strerror or error}); is it started, and is the coordinator its address?"
                ) from None
        time.sleep(0.1)
    send_line(
        connection,
        {"protocol": PROTOCOL, "process": place.process, "processes": place.processes, "identity": identity},
    )
    connection.settimeout(max(HANDSHAKE_SECONDS, deadline - time.monotonic()) + HANDSHAKE_SECONDS)
    answer = _read_line(connection)
    if answer is None:
        raise InputError(f"process {place.process}: {where} does not answer as a process of fnqs; is the port right?")
    if "failed" in answer:
        raise InputError(str(answer["failed"]))
    return {0: connection}


def send_line(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message.

    Raises:
        OSError: the connection is closed.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")


def _listen(port: int) -> socket.socket:
    end = time.monotonic() + TAKEN_SECONDS
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise InputError(
                    f"process 0 cannot listen at port {port} ({error.strerror}); choose another port for the "
                    "coordinator"
                ) from None
        time.sleep(0.1)


def _greeting(connection: socket.socket) -> dict[str, Any] | None:
    connection.settimeout(HANDSHAKE_SECONDS)
    hello = _read_line(connection)
    kinds = {"protocol": str, "process": int, "processes": int, "identity": str}
    valid = hello is not None and all(isinstance(hello.get(key), kind) for key, kind in kinds.items())
    return hello if hello is not None and valid and hello["protocol"] == PROTOCOL else None


def _read_line(connection: socket.socket) -> dict[str, Any] | None:
    """Read one message; None for the end of the connection, silence or anything that is not a message."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < LONGEST_LINE:
            part = connection.recv(1)  # no byte of what follows
            if not part:
                return None
            data += part
        message = json.loads(data)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _refuse(joined: dict[int, socket.socket], newcomer: socket.socket | None, sentence: str) -> None:
    for connection in [*joined.values(), *([newcomer] if newcomer else [])]:
        try:
            send_line(connection, {"failed": sentence})
        except OSError:  # it has ended by itself
            continue
    raise InputError(sentence)
