"""Start and end a run in one or several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from fnqs.cli.command_line import explain
from fnqs.errors import InputError
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.rendezvous import gather, join
from fnqs_train.distributed.stopping import Stopped
from fnqs_train.distributed.watchdog import Peers

MEETING_SECONDS = 300.0
"""Time that processes wait for each other at the start."""

NEWS_SECONDS = 10.0
"""Time, after a failed operation, in which the death of another process is noticed if that was the cause."""

NO_PROXY = ("no_grpc_proxy", "no_proxy")
"""Variables with the hosts that gRPC reaches without a proxy; the first one that is set counts."""

HEARTBEAT_SECONDS = 300
"""After which JAX itself aborts: later than our own watch, which says why."""


@contextmanager
def started(name: str, place: Place, identity: str = "", seconds: float = MEETING_SECONDS) -> Iterator[None]:
    """Run a command's body as one of the processes of a run; alone, nothing happens here.

    A failure in one process ends all of them, each with a sentence: the others would wait for it for ever.

    Args:
        name: of the command.
        place: of this process.
        identity: text that must be the same in all processes.
        seconds: to wait for the others.

    Raises:
        InputError: the processes do not find each other.
    """
    if place.processes == 1:
        yield
        return
    connections = gather(place, identity, seconds) if place.first else join(place, identity, seconds)
    peers = Peers(name, place, connections)
    try:
        with without_proxies(place.host):
            jax.distributed.initialize(
                f"{place.host}:{place.port + 1}",
                place.processes,
                place.process,
                cluster_detection_method="deactivate",
                initialization_timeout=int(seconds) + 1,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        yield
    except Stopped:  # by all at the same step
        _finish(peers)
        raise
    except (InputError, OSError, KeyboardInterrupt) as error:
        peers.leave(*explain(name, error))
    except BaseException as error:
        peers.wait_for_news(NEWS_SECONDS)
        peers.leave(*explain(name, error))
    else:
        _finish(peers)


@contextmanager
def without_proxies(host: str) -> Iterator[None]:
    """Keep the processes of a run from talking to each other through a proxy.

    JAX's service uses gRPC, which sends even calls to localhost to the server that http_proxy names, where they come to
    nothing after minutes. It looks when the service starts, in this block. Everything else goes on using the proxy.

    Args:
        host: of process 0, reached directly for good.
    """
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(taken)
        exempt = taken.get(NO_PROXY[0]) or taken.get(NO_PROXY[1]) or ""
        os.environ[NO_PROXY[0]] = ",".join(filter(None, [exempt, host, "localhost", "127.0.0.1", "::1"]))


def _finish(peers: Peers) -> None:
    peers.close()
    jax.distributed.shutdown()
