"""Time zero-shot energies of many configurations, and say what the time goes to.

    python tests/benchmarks/evaluate_many.py runs/quickstart --configurations SET --frames 0:50 --error 0.001

Prints the parts of the cost for one configuration, then the whole evaluation with its number of measurements.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from fnqs.precision import configure
from fnqs.system import make_system
from fnqs.wavefunction import WaveFunction
from fnqs_eval.devices import use_every_core
from fnqs_eval.energies.energy import Active, EvaluationSettings, Sampler, empty_slots, evaluate_in_turns
from fnqs_eval.energies.sampling_progress import SamplingProgress
from fnqs_eval.energies.slots import MEASUREMENTS, put
from fnqs_train.checkpointing.checkpoint import resolve_checkpoint
from fnqs_train.config import load_config
from fnqs_train.loading import load_params, read_selected


def seconds(function, repeats=3):
    """Median seconds of a call, after one that compiles."""
    first = time.perf_counter()
    function()
    first = time.perf_counter() - first
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times)), first


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--configurations", type=Path, required=True)
    parser.add_argument("--frames", default=None)
    parser.add_argument("--error", type=float, default=1e-3)
    parser.add_argument("--walkers", type=int, default=64)
    parser.add_argument("--equilibration", type=int, default=0)
    parser.add_argument("--between", type=int, default=10)
    parser.add_argument("--parts-only", action="store_true", help="the parts of the cost, without the whole")
    options = parser.parse_args()
    configure()
    use_every_core()
    checkpoint = resolve_checkpoint(options.checkpoint)
    config = load_config(checkpoint.run_folder)
    params, wavefunction = load_params(checkpoint, config), WaveFunction(config.model)
    records = read_selected(options.configurations, options.frames)
    settings = EvaluationSettings(
        walkers=options.walkers,
        equilibration_sweeps=options.equilibration,
        sweeps_between=options.between,
        target_error=options.error,
        max_measurements=4096,
    )
    number = records[0].n_atoms
    sampler = Sampler(wavefunction, params, settings, number, False, len(records), SamplingProgress())
    turn = list(enumerate([record for record in records if record.n_atoms == number][: sampler.slots.number]))
    one, _ = seconds(lambda: [make_system(record.configuration, config.model) for _, record in turn])
    systems = sampler.prepare(turn)
    ready, compile_ready = seconds(lambda: list(sampler.equilibrated(turn, systems)))
    ready_ones = list(sampler.equilibrated(turn, systems))
    state = empty_slots(ready_ones[0][2], sampler.slots.number)
    for slot, (_, _, own) in zip(sampler.slots.order, ready_ones, strict=False):
        put(state, int(slot), own)
    parts, compile_parts = seconds(
        lambda: sampler.measure_part(state, [Active(item.record, item.start) for _, item, _ in ready_ones])
    )
    each = len(turn)
    slots = sampler.slots
    place = f"{slots.number} slots in groups of {slots.size} on {slots.devices} devices"
    print(f"N = {number}, {options.walkers} walkers, {place}")
    print(f"first calls, compilation included: {compile_ready:.1f} and {compile_parts:.1f} s")
    print(f"integrals of a configuration        {1e3 * one / each:8.1f} ms (while others are sampled)")
    print(f"equilibration                        {1e3 * ready / each:8.1f} ms")
    print(f"{MEASUREMENTS} measurements                     {1e3 * parts / each:8.1f} ms")
    if options.parts_only:
        return
    began = time.perf_counter()
    results = {}
    for batch in evaluate_in_turns(wavefunction, params, dict(enumerate(records)), settings):
        results.update(batch)
        print(f"{len(results)} of {len(records)} after {time.perf_counter() - began:.0f} s", flush=True)
    whole = time.perf_counter() - began
    errors = np.array([result.error_per_atom for result in results.values()])
    variances = np.array([result.variance_per_atom for result in results.values()])
    print(f"{len(results)} configurations to {1e3 * options.error:g} mHa per atom: {whole:.1f} s")
    print(f"{whole / len(results):.2f} s each; {np.sum(errors > options.error)} stopped before")
    print(f"median variance/N {np.median(variances):.3f} Ha^2, median error {1e3 * np.median(errors):.2f} mHa per atom")


if __name__ == "__main__":
    main()
