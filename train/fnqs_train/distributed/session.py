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
from fnqs_train.distributed.watchdog import Watchdog

RENDEZVOUS_SECONDS = 300.0
"""Time that processes wait for each other at the start."""

NEWS_SECONDS = 10.0
"""Time to wait, after a failed operation, for news that another process has died, which is then the cause."""

NO_PROXY = ("no_grpc_proxy", "no_proxy")
"""Variables with the hosts that gRPC reaches without a proxy; the first one that is set counts."""

HEARTBEAT_SECONDS = 300
"""Time after which JAX itself aborts: later than our watchdog, which gives the reason."""


@contextmanager
def distributed_session(
    name: str, place: Place, identity: str = "", seconds: float = RENDEZVOUS_SECONDS
) -> Iterator[None]:
    """Run a command's body as one process of a distributed run; a single process needs no set-up.

    A failure in one process ends all of them, each with one sentence; otherwise the others would wait for ever.

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
    watchdog = Watchdog(name, place, connections)
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
        _finish(watchdog)
        raise
    except (InputError, OSError, KeyboardInterrupt) as error:
        watchdog.leave(*explain(name, error))
    except BaseException as error:
        watchdog.wait_for_news(NEWS_SECONDS)
        watchdog.leave(*explain(name, error))
    else:
        _finish(watchdog)


@contextmanager
def without_proxies(host: str) -> Iterator[None]:
    """Keep the connections between the processes of a run off any proxy.

    JAX's coordination service uses gRPC, which reads http_proxy when the service starts and sends even calls to
    localhost through it; they time out after minutes. The proxy variables are removed for the length of this block and
    then restored, with the hosts of the run exempt.

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


def _finish(watchdog: Watchdog) -> None:
    watchdog.close()
    jax.distributed.shutdown()
