"""Which of how many processes this is: from options, from our environment variables, from SLURM or Kubernetes.

The same command is started once for every process. One of them runs alone unless it is told of others:

- by hand: `--processes P --process I --coordinator HOST:PORT`, or the variables FNQS_PROCESSES, FNQS_PROCESS and
  FNQS_COORDINATOR; options come before variables;
- SLURM: `srun` says all of it; the first host of the step is the coordinator;
- Kubernetes: an indexed Job says which pod this is (JOB_COMPLETION_INDEX), FNQS_PROCESSES and FNQS_COORDINATOR (pod 0's
  name in the headless service) say the rest. No permission to ask the cluster is needed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fnqs.errors import InputError

FIRST_PORT, PORTS = 49152, 8192
"""Ports from which a SLURM job takes one by its number, so that two jobs on a node do not meet."""


@dataclass(frozen=True)
class Place:
    """One process among those of a run.

    Attributes:
        process: which, from 0.
        processes: P, how many.
        host: of process 0.
        port: where process 0 listens for the others; JAX takes the port after it.
    """

    process: int = 0
    processes: int = 1
    host: str = "localhost"
    port: int = FIRST_PORT

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the record of the run."""
        return self.process == 0


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Options that start a run in several processes by hand."""
    group = parser.add_argument_group(
        "several processes",
        "The same command, once for each process. Under srun, or with FNQS_PROCESSES, FNQS_PROCESS and "
        "FNQS_COORDINATOR in the environment, without these options.",
    )
    group.add_argument("--processes", metavar="P", help="how many")
    group.add_argument("--process", metavar="I", help="which this is, from 0")
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="where process 0 listens; the port after it is used too"
    )


def find_place(
    environment: Mapping[str, str],
    processes: str | None = None,
    process: str | None = None,
    coordinator: str | None = None,
) -> Place:
    """Work out the place of this process.

    Args:
        environment: variables, as in os.environ.
        processes: option --processes, as typed.
        process: option --process.
        coordinator: option --coordinator.

    Raises:
        InputError: what is given is incomplete or contradicts itself.
    """
    given = {
        "processes": (processes, "--processes", "FNQS_PROCESSES"),
        "process": (process, "--process", "FNQS_PROCESS"),
        "coordinator": (coordinator, "--coordinator", "FNQS_COORDINATOR"),
    }
    values = {name: option or environment.get(variable) for name, (option, _, variable) in given.items()}
    where = {name: option if text else variable for name, (text, option, variable) in given.items()}
    pod = environment.get("JOB_COMPLETION_INDEX")
    if values["process"] is None and pod is not None:
        values["process"], where["process"] = pod, "JOB_COMPLETION_INDEX"
        if values["processes"] is None:
            raise InputError(
                f"this is pod {pod} of an indexed Kubernetes Job, but nothing says how many share the run; set "
                f"FNQS_PROCESSES and FNQS_COORDINATOR in the pod, or FNQS_PROCESSES=1 for a run in every pod"
            )
    if all(value is None for value in values.values()):
        return _from_slurm(environment)
    if values["processes"] is None:
        raise InputError("--processes (or FNQS_PROCESSES) is missing: several processes must know how many they are")
    total = _whole(values["processes"], where["processes"], 1, None)
    if total == 1:
        return Place()
    for name in ("process", "coordinator"):
        if values[name] is None:
            _, option, variable = given[name]
            raise InputError(f"{total} processes were announced, but {option} (or {variable}) is missing")
    index = _whole(values["process"] or "", where["process"], 0, total - 1)
    host, port = _address(values["coordinator"] or "", where["coordinator"])
    return Place(index, total, host, port)


def _from_slurm(environment: Mapping[str, str]) -> Place:
    """Place of a task of `srun`; alone outside of one, as in a batch script itself."""
    nodes, total = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_STEP_NUM_TASKS")
    if not nodes or not total or total == "1":
        return Place()
    count = _whole(total, "SLURM_STEP_NUM_TASKS", 1, None)
    for name in ("SLURM_PROCID", "SLURM_JOB_ID"):
        if name not in environment:
            raise InputError(
                f"srun announces {count} tasks, but {name} is not set; pass the environment on to the tasks"
            )
    process = _whole(environment["SLURM_PROCID"], "SLURM_PROCID", 0, count - 1)
    job = _whole(environment["SLURM_JOB_ID"], "SLURM_JOB_ID", 0, None)
    # Two ports each, and steps of one job apart from each other.
    step = int(environment["SLURM_STEP_ID"]) if environment.get("SLURM_STEP_ID", "").isdigit() else 0
    return Place(process, count, first_host(nodes), FIRST_PORT + 2 * ((job + 61 * step) % PORTS))


def first_host(nodes: str) -> str:
    """Return the first of SLURM's list of nodes, such as "gpu[007-010,12],login1".

    Raises:
        InputError: it is no such list.
    """
    found = re.match(r"^([\w.-]+)(?:\[(\w+)[^\]]*\]([\w.-]*))?(?:,|$)", nodes)
    if not found:
        raise InputError(
            f"SLURM_STEP_NODELIST = {nodes!r} names no host; give --coordinator HOST:PORT and its companions"
        )
    return "".join(part or "" for part in found.groups())


def _whole(text: str, where: str, least: int, most: int | None) -> int:
    wanted = f"a whole number from {least} to {most}" if most is not None else f"a whole number, {least} or more"
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < least or (most is not None and int(text) > most):
        raise InputError(f"{where} is {text!r} but must be {wanted}")
    return int(text)


def _address(text: str, where: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[\w:.]+\]|[\w.-]+):(\d{1,5})", text.strip())
    if not found or not 1 <= int(found[2]) <= 65534:
        raise InputError(f"{where} is {text!r} but must be HOST:PORT, the port from 1 to 65534")
    return found[1].strip("[]"), int(found[2])
