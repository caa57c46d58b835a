"""Which process this is, and how they find each other, without any training."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from free_port import free_port

from fnqs.errors import InputError
from fnqs_train.distributed import rendezvous, watchdog
from fnqs_train.distributed.processes import Place, find_place, first_host
from fnqs_train.distributed.rendezvous import gather, join
from fnqs_train.distributed.watchdog import Watchdog

SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-010]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
}
OURS = {"FNQS_PROCESSES": "3", "FNQS_PROCESS": "1", "FNQS_COORDINATOR": "head.cluster:4321"}


def test_alone_unless_told_otherwise():
    assert find_place({}) == Place()
    # In a batch script itself there are tasks, but no step that started this process.
    assert find_place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == Place()
    assert find_place(SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == Place()
    assert find_place(OURS | {"FNQS_PROCESSES": "1"}) == Place()


def test_by_hand_by_variables_by_slurm_and_by_kubernetes():
    by_hand = find_place({}, processes="2", process="1", coordinator="localhost:5000")
    assert by_hand == Place(1, 2, "localhost", 5000)
    assert find_place(OURS) == Place(1, 3, "head.cluster", 4321)
    assert find_place(OURS, process="2") == Place(2, 3, "head.cluster", 4321)  # an option comes before its variable
    assert find_place(SLURM | OURS) == Place(1, 3, "head.cluster", 4321)
    slurm = find_place(SLURM)
    assert (slurm.process, slurm.processes, slurm.host) == (2, 4, "gpu007")
    others = [find_place(SLURM | change).port for change in ({"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "1235"})]
    assert len({slurm.port, *others}) == 3
    assert all(1024 < port < 65534 for port in (slurm.port, *others))
    pod = {"JOB_COMPLETION_INDEX": "2", "FNQS_PROCESSES": "3", "FNQS_COORDINATOR": "train-0.train:4321"}
    assert find_place(pod) == Place(2, 3, "train-0.train", 4321)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[007-010,12],login1", "gpu007"),
        ("a-b.c[1,3]", "a-b.c1"),
        ("rack[2-3]-ib,x", "rack2-ib"),
    ],
)
def test_first_host_of_a_slurm_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("environment", "options", "sentence"),
    [
        ({}, {"processes": "2"}, r"2 processes were announced, but --process \(or FNQS_PROCESS\) is missing"),
        ({}, {"process": "0", "coordinator": "a:1"}, r"--processes \(or FNQS_PROCESSES\) is missing"),
        ({}, {"processes": "2", "process": "2", "coordinator": "a:1"}, "--process is '2' but must be .* from 0 to 1"),
        ({}, {"processes": "x", "process": "0", "coordinator": "a:1"}, "--processes is 'x' but must be"),
        (OURS | {"FNQS_COORDINATOR": "head"}, {}, "FNQS_COORDINATOR is 'head' but must be HOST:PORT"),
        (OURS | {"FNQS_COORDINATOR": "head:99999"}, {}, "the port from 1 to 65534"),
        (SLURM | {"SLURM_PROCID": "4"}, {}, "SLURM_PROCID is '4' but must be a whole number from 0 to 3"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_PROCID"}, {}, "srun announces 4 tasks, but SLURM_PROCID"),
        (SLURM | {"SLURM_STEP_NODELIST": "[]"}, {}, "names no host"),
        ({"JOB_COMPLETION_INDEX": "1"}, {}, "this is pod 1 of an indexed Kubernetes Job, but nothing says how many"),
    ],
)
def test_wrong_settings_are_one_sentence(environment, options, sentence):
    with pytest.raises(InputError, match=sentence):
        find_place(environment, **options)


def meet(*places: Place, identities: tuple[str, ...] = (), seconds: float = 10.0) -> list:
    """What each process gets from the meeting: its connections or the sentence of its failure."""
    results: list = [None] * len(places)

    def one(i: int, place: Place):
        try:
            function = gather if place.first else join
            results[i] = function(place, identities[i] if identities else "", seconds)
        except InputError as error:
            results[i] = str(error)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_processes_meet_whoever_else_calls():
    port = free_port()
    stop = threading.Event()

    def stranger():
        while not stop.is_set():
            try:
                with socket.create_connection(("localhost", port), timeout=1) as connection:
                    connection.sendall(b"GET / HTTP/1.1\n")
            except OSError:
                pass
            time.sleep(0.05)

    thread = threading.Thread(target=stranger)
    thread.start()
    found = meet(*(Place(i, 3, "localhost", port) for i in (2, 0, 1)))
    stop.set()
    thread.join()
    assert [set(connections) for connections in found] == [{0}, {1, 2}, {0}]
    for connections in found:
        for connection in connections.values():
            connection.close()


def test_processes_that_do_not_fit_are_told_why():
    port = free_port()
    assert (
        meet(Place(0, 2, "localhost", port), Place(1, 3, "localhost", port))
        == ["process 1 was told of 3 processes, process 0 of 2; give all the same number"] * 2
    )
    port = free_port()
    two = meet(Place(0, 3, "localhost", port), Place(1, 3, "localhost", port), Place(1, 3, "localhost", port))
    assert two == ["two processes say that they are number 1; number them from 0 on"] * 3
    port = free_port()
    places = (Place(0, 2, "localhost", port), Place(1, 2, "localhost", port))
    for sentence in meet(*places, identities=("a", "b")):
        assert sentence == ("process 1 was started with another command or config than process 0; give all the same")


def test_processes_that_do_not_come_are_missed():
    port = free_port()
    (alone,) = meet(Place(1, 2, "localhost", port), seconds=0.3)
    assert f"process 1: no process 0 at localhost:{port} within 0.3 s" in alone
    first, second = meet(Place(0, 3, "localhost", port), Place(2, 3, "localhost", port), seconds=0.5)
    assert first == second == "1 of 3 processes did not come within 0.5 s (number 1); start one for each number"
    with socket.create_server(("", port)):
        (taken,) = meet(Place(0, 2, "localhost", port))
    assert f"process 0 cannot listen at port {port}" in taken


# The watching thread ends by an exception here, where it would end the process.
ends_in_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def pair(monkeypatch):
    """Two ends of a connection, the first of them guarded; its end is recorded instead of taking place."""
    said: list[str] = []
    ends: list[tuple[str, int]] = []

    def leave(code):
        ends.append((said[-1].removeprefix("fnqs-train: "), code))
        raise SystemExit  # ends the watching thread alone

    monkeypatch.setattr(watchdog, "say_last", said.append)
    monkeypatch.setattr(watchdog.os, "_exit", leave)
    monkeypatch.setattr(watchdog, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.0)
    ours, theirs = socket.socketpair()
    guard = Watchdog("fnqs-train", Place(0, 2), {1: ours})
    yield guard, theirs, ends
    theirs.close()
    ours.close()


@ends_in_thread
def test_a_closed_connection_is_a_lost_process(pair):
    guard, theirs, ends = pair
    theirs.close()
    guard.wait_for_news(5)
    ((sentence, code),) = ends
    assert sentence == (
        "process 1 of 2 was lost (its connection was closed); go on from the last checkpoint with --resume"
    )
    assert code == watchdog.LOST


@ends_in_thread
def test_a_silent_process_is_lost(pair):
    guard, _, ends = pair
    guard.wait_for_news(5)
    assert "was lost (silent for 1 s)" in ends[0][0]


@ends_in_thread
def test_a_failure_is_passed_on(pair):
    guard, theirs, ends = pair
    rendezvous.send_line(theirs, {"beat": True})
    rendezvous.send_line(theirs, {"failed": "no space left on device"})
    guard.wait_for_news(5)
    assert "process 1 of 2 was lost (it stopped: no space left on device)" in ends[0][0]


CHATTER = """
import os, threading, time
from fnqs_train.distributed.watchdog import say_last

def complain():
    while True:
        os.write(2, b"so does the runtime")

threading.Thread(target=complain, daemon=True).start()
time.sleep(0.2)
say_last("\\nprocess 1 of 2 was lost")
time.sleep(0.2)
os._exit(3)
"""


def test_nothing_follows_the_last_sentence():
    """The runtime, in threads of its own, complains of the same loss at the same time."""
    ended = subprocess.run([sys.executable, "-c", CHATTER], stderr=subprocess.PIPE)
    assert ended.returncode == 3
    assert ended.stderr.endswith(b"\nprocess 1 of 2 was lost\n")


ABORT = """
import ctypes, os, threading, time
from fnqs_train.distributed.watchdog import delay_aborts, say_last

delay_aborts()
threading.Thread(target=ctypes.CDLL(None).abort).start()
time.sleep(0.5)
say_last("process 0 of 2 was lost")
os._exit(3)
"""


def test_an_abort_of_the_runtime_waits_for_the_sentence():
    ended = subprocess.run([sys.executable, "-c", ABORT], stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (3, b"process 0 of 2 was lost\n")


def test_a_good_bye_is_no_failure(pair):
    guard, theirs, ends = pair
    rendezvous.send_line(theirs, {"bye": True})
    theirs.close()
    guard.close()
    assert ends == []


MEETING = """
import os, sys
from fnqs_train.distributed.broadcast import broadcast_result
from fnqs_train.distributed.processes import Place
from fnqs_train.distributed.session import distributed_session
with distributed_session("meeting", Place(int(sys.argv[1]), 2, "localhost", int(sys.argv[2]))):
    agreed = broadcast_result(lambda: 42)
    print("agreed on", agreed, "with", os.environ["http_proxy"], os.environ["no_grpc_proxy"], flush=True)
"""


def test_a_proxy_does_not_come_between_processes():
    """The proxy is a port where nobody listens: a call that goes there waits for minutes and then aborts."""
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        proxy, port = f"http://127.0.0.1:{taken.getsockname()[1]}", free.getsockname()[1]
        free.close()
        variables = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "elsewhere", "JAX_PLATFORMS": "cpu"}
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        both = [
            subprocess.Popen(
                [sys.executable, "-c", MEETING, str(i), str(port)],
                env=os.environ | variables | {"PYTHONPATH": paths},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        try:
            ends = [process.communicate(timeout=100) for process in both]
        finally:
            for process in both:
                process.kill()
    for out, err in ends:
        assert f"agreed on 42 with {proxy} elsewhere,localhost,localhost,127.0.0.1,::1" in out
        assert "proxy" not in err
