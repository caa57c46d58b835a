"""The download against a server on this machine with the routes of a Girder, which also misbehaves."""

import argparse
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import h5py
import numpy as np
import pytest
from ase.io import write

from fnqs.errors import InputError
from fnqs_data.commands import main
from fnqs_data.download.command import add_arguments, download
from fnqs_data.download.fetching import Patience, Server
from fnqs_data.download.qmc_hamm import fetch_items, list_items
from fnqs_data.store.store import open_dataset

# Short enough for tests; a connection on this machine answers within milliseconds.
PATIENCE = Patience(timeout=0.5, attempts=4, pause=0.01, longest_pause=0.2, slowest=2000)


class Girder(ThreadingHTTPServer):
    """Items by id (name, bytes, T, P), and what goes wrong with each on its first requests."""

    daemon_threads = True

    def __init__(self, files: dict[str, tuple[str, bytes]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.trouble: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.honours_ranges, self.table_trouble = True, ""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Girder

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/api/v1/qmc/table":
            self._table({key: values[0] for key, values in parse_qs(parts.query).items()})
        elif parts.path.startswith("/api/v1/item/"):
            self._item(parts.path.split("/")[4])
        else:
            self.send_error(404)

    def _table(self, query: dict[str, str]):
        self.server.asked["table"] += 1
        rows = []
        for i, (key, (name, _)) in enumerate(self.server.files.items()):
            if float(query.get("Tmin", 0)) <= 1000 + 100 * i <= float(query.get("Tmax", 1e9)):
                rows.append({"name": name, "T": 1000 + 100 * i, "P": 150.0, "DT_RowData": {"itemId": key}})
        rows = rows[int(query["offset"]) :][: min(int(query["limit"]), 3)]
        body = json.dumps({"data": rows, "recordsTotal": 99}).encode()
        if self.server.table_trouble:
            body = self.server.table_trouble.encode()
        self._send(body)

    def _item(self, key: str):
        self.server.asked[key] += 1
        data = self.server.files[key][1]
        trouble = self.server.trouble.get(key, [])
        now = trouble.pop(0) if trouble else ""
        start, code = 0, 200
        if (asked := self.headers.get("Range")) and self.server.honours_ranges:
            self.server.ranges.append(asked)
            start, code = int(asked[6:-1]), 206
        if now == "500":
            return self.send_error(500)
        if now == "404":
            return self.send_error(404)
        if now == "429":
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if now.startswith("redirect "):
            self.send_response(302)
            self.send_header("Location", now.split(" ")[1])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if now == "too long":
            return self._send(data, announced=len(data) + 500)
        if now == "too short":
            return self._send(data, announced=len(data) // 2)
        if now == "huge":
            return self._send(data, announced=1 << 40)
        if now == "other bytes":
            return self._send(b"<html>not found</html>")
        if now == "other part":
            return self._send(data[:-7], code=206, start=7, total=len(data))
        if now == "slow":
            self._send(b"", announced=len(data))
            for byte in data[:200]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)
            return None
        self._send(data[start : start + 700 if now == "cut" else None], code, start, len(data), len(data) - start)
        return None

    def _send(self, body: bytes, code: int = 200, start: int = 0, total: int = 0, announced: int | None = None):
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, make_atoms):
    """Five items: three trajectories of two frames, one of each HDF5 layout."""
    files = {}
    for i in range(5):
        key, path = f"{i}" * 24, tmp_path / "made"
        frames = [make_atoms(8, energy=-100.0 - i), make_atoms(8, energy=-110.0 - i)]
        if i < 3:
            write(path, frames, format="traj")
        else:
            with h5py.File(path, "w") as file:
                file.attrs.update(natoms=8, method="DMC", temperature=50.0 * i)
                file["structure/lattice_vectors"] = np.array(frames[0].cell)
                file["structure/positions"] = frames[0].positions
                file["observables/total_energy"] = np.array([-100.0])
        files[key] = (f"item {i}/../x.{'traj' if i < 3 else 'h5'}", path.read_bytes())
        path.unlink()
    girder = Girder(files)
    thread = threading.Thread(target=girder.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield girder
    girder.shutdown()
    girder.server_close()


def run(server: Girder, tmp_path, *arguments: str):
    """Run the subcommand with little patience."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, int)
    words = ["qmc-hamm", "--url", server.url, "--output", str(tmp_path / "set"), *arguments]
    return download(parser.parse_args(words), PATIENCE)


def test_the_whole_command(server, tmp_path, capsys):
    assert main(["download", "qmc-hamm", "--url", server.url, "--output", str(tmp_path / "set")]) == 0
    assert "8 configurations" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "set")
    # The table's temperature where the file has none, the file's where it has one.
    assert [r.temperature for r in dataset.read(range(8))] == [1000, 1000, 1100, 1100, 1200, 1200, 150, 200]
    assert {r.pressure for r in dataset.read(range(8))} == {150.0}
    assert server.url in dataset.manifest.note
    # Names from the server stay inside the folder: no slash is left of them.
    kept = sorted(p.name for p in (tmp_path / "set-files").iterdir())
    assert kept[0] == f"{'0' * 24}-item_0_.._x.traj"
    assert len(kept) == 5


def test_filters_limit_and_offset(server, tmp_path):
    assert len(run(server, tmp_path, "--tmin", "1100", "--tmax", "1200")[0]) == 4
    asker = Server(server.url, PATIENCE)
    assert [i.identifier[0] for i in list_items(asker, {}, limit=2, offset=2)] == ["2", "3"]
    with pytest.raises(InputError, match="no item"):
        list_items(asker, {"Tmin": 5000.0})


@pytest.mark.parametrize("trouble", ["500", "429", "cut", "slow", "too long", "too short", "other part"])
def test_passing_trouble_is_outlasted(server, tmp_path, trouble):
    key = "1" * 24
    server.trouble[key] = [trouble, trouble]
    if trouble == "too short":
        # Half a file that ends as announced can only be told by reading it: not fetched again, but refused.
        server.trouble[key] = [trouble] * 9
        with pytest.raises(InputError, match="no configuration"):
            run(server, tmp_path)
        return
    dataset, skipped = run(server, tmp_path)
    assert (len(dataset), skipped) == (8, [])
    assert (tmp_path / "set-files" / f"{key}-item_1_.._x.traj").read_bytes() == server.files[key][1]


@pytest.mark.parametrize("honours", [True, False])
def test_a_cut_file_is_resumed_by_a_later_run(server, tmp_path, honours):
    key = "2" * 24
    server.honours_ranges = honours
    server.trouble[key] = ["cut", "404"]
    with pytest.raises(InputError, match="404"):
        run(server, tmp_path, "--connections", "1")
    part = tmp_path / "set-files" / f".part-{key}-item_2_.._x.traj"
    assert part.stat().st_size == 700
    before = server.asked["0" * 24]
    server.ranges.clear()
    dataset, _ = run(server, tmp_path)
    assert len(dataset) == 8
    assert server.ranges == (["bytes=700-"] if honours else [])
    assert server.asked["0" * 24] == before
    assert not part.exists()


def test_pieces_that_do_not_fit_are_fetched_anew(server, tmp_path):
    (tmp_path / "set-files").mkdir()
    name = f"{'0' * 24}-item_0_.._x.traj"
    (tmp_path / "set-files" / f".part-{name}").write_bytes(b"of another file" * 20)
    dataset, _ = run(server, tmp_path)
    assert len(dataset) == 8
    assert (tmp_path / "set-files" / name).read_bytes() == server.files["0" * 24][1]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("500", "given up after 4 attempts"),
        ("404", "404"),
        ("other bytes", "no configuration"),
        ("huge", "larger than"),
        ("redirect http://example.org/x", "not https"),
        ("redirect file:///etc/passwd", "file:"),
    ],
)
def test_lasting_trouble_is_one_sentence_and_nothing_is_imported(server, tmp_path, trouble, says):
    server.trouble["3" * 24] = [trouble] * 20
    with pytest.raises(InputError, match=says) as error:
        run(server, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()
    dataset, skipped = run(server, tmp_path, "--skip-bad")
    assert (len(dataset), len(skipped)) == (7, 1)
    assert says in skipped[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("<html>hello</html>", "not JSON"),
        ('{"message": "hello"}', "not the table"),
        ('[{"name": "x"}]', "names no item"),
        ('[{"_id": "../../etc/passwd"}]', "names no item"),
        ('[{"_id": {"a": 1}}, 3]', "names no item"),
        ("[]", "no item"),
    ],
)
def test_an_odd_table_is_one_sentence(server, answer, says):
    server.table_trouble = answer
    with pytest.raises(InputError, match=says):
        list_items(Server(server.url, PATIENCE), {})


@pytest.mark.parametrize("row", ['{"_id": "ab1"}', '{"itemId": "ab1"}', '{"id": "ab1"}', '{"_id": {"$oid": "ab1"}}'])
def test_rows_are_understood_under_several_names(server, row):
    # The same page for every offset: it ends all the same.
    server.table_trouble = f"[{row}]"
    (item,) = list_items(Server(server.url, PATIENCE), {})
    assert (item.identifier, item.file_name, item.temperature) == ("ab1", "ab1", None)


def test_the_folder_and_the_address_are_checked_first(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "something").touch()
    with pytest.raises(InputError, match="already exists"):
        run(server, tmp_path)
    assert not server.asked
    for url in ("file:///etc", "girder", "https://"):
        with pytest.raises(InputError, match="address"):
            Server(url, PATIENCE)
    with pytest.raises(InputError, match="cannot be reached"):
        list_items(Server("http://127.0.0.1:9", PATIENCE), {})


def test_few_connections(server, tmp_path):
    items = list_items(Server(server.url, PATIENCE), {})
    running, most, lock = 0, 0, threading.Lock()
    fetch = Server.fetch

    class Counting(Server):
        def fetch(self, path, part):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            try:
                return fetch(self, path, part)
            finally:
                with lock:
                    running -= 1

    files = list(fetch_items(Counting(server.url, PATIENCE), items, tmp_path / "files", connections=2))
    assert len(files) == 5
    assert most == 2
