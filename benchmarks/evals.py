"""What the eval harness costs, beside other runners: ``python -m benchmarks.evals [--install] [--store DIR] [NAME …]``.

1,000 trivial cases: an async task returns its input, one exact check, 16 at a time where the runner can. CPU per case
is the slope between 1 and 1,000 cases; each figure is the best of a few in a process of its own (CPU time, so that
neighbours matter less). Only ours, inspect_ai and promptfoo keep results. Peers live in ``benchmarks/.envs``, see
``benchmarks/peers/environments.py``.

Further lines: a flow replayed from a tape, assertions over histories that are loaded, ``evals list`` and ``evals
compare`` as processes, and mining, of a million stored runs or of the store that ``--store`` names.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ENVS = Path(__file__).parent / ".envs"
ROOT = Path(__file__).parents[1]
CASES = 1_000
PEERS = ("pydantic_evals", "inspect_ai", "agently_devtools", "promptfoo")
TARGETS = {
    "flowdeck ms_per_case": ("evals: a trivial case, results stored", "ms", 0.10),
    "flowdeck_compare five_rounds_ms": ("evals compare, 10,000 cases of five rounds, CPU", "ms", 500.0),
    "flowdeck_mine wall_s": ("evals: mining all stored runs, wall", "s", 10.0),
}
"""Figures that have a target: what they are called in a table, and the target."""
ABOUT = {
    "flowdeck": "results stored",
    "flowdeck_flow": "a flow of one step, results and its events stored",
    "flowdeck_recorded": "the flow replayed from a tape, one call, results and its events stored",
    "flowdeck_history": "assertions over loaded histories",
    "flowdeck_list": "evals list, a process of its own",
    "flowdeck_compare": "evals compare of two sessions of 10,000 cases, a process of its own",
    "flowdeck_mine": "mining a million stored runs: failures, slow ones, answered ones",
    "pydantic_evals": "nothing stored",
    "inspect_ai": "log written",
    "agently_devtools": "the reference's runner, bare callable, nothing observed or stored",
    "promptfoo": "its echo provider, results in its SQLite file; unstored: --no-write",
}


async def task(value: str) -> str:
    """What is evaluated."""
    return value


def _slope(run: Callable[[int], Any], rounds: int = 3) -> dict[str, float]:
    def cpu(count: int) -> float:
        best = float("inf")
        for _ in range(rounds):
            begun = time.process_time()
            run(count)
            best = min(best, time.process_time() - begun)

        return best

    run(1)
    one, many = cpu(1), cpu(CASES)
    return {"fixed_ms": one * 1e3, "ms_per_case": (many - one) / (CASES - 1) * 1e3}


# -- ours ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _suite(target: Any, **case: Any) -> Iterator[Callable[[int], None]]:
    from flowdeck_evals import Case, Suite

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as store:  # a publisher may still be at it

        def run(count: int) -> None:
            cases = [
                Case(**{"input": f"q{n}", "expect": {"output": {"equals": f"q{n}"}}} | case | {"id": f"c{n}"})
                for n in range(count)
            ]
            assert Suite("bench", target, tuple(cases)).run_sync(store=store, jobs=16).judge().ok

        yield run


def flowdeck() -> dict[str, float]:
    with _suite(task) as run:
        found = _slope(run, 5)
        run(10_000)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found | {"rss_mb_10000": peak / (1024 if sys.platform == "linux" else 1024**2)}


def _one_call() -> Any:
    from flowdeck import TriggerFlow

    flow = TriggerFlow(name="bench")

    async def step(data: Any) -> None:
        await data.async_set_state("got", await data.call("web", "get", task, data.input))

    flow.to(step)
    return flow


def flowdeck_flow() -> dict[str, float]:
    with _suite(_one_call(), input="q", expect={"output": {"equals": {"got": "q"}}}) as run:
        return _slope(run)


def flowdeck_recorded() -> dict[str, float]:
    from flowdeck_evals.single import record_live

    with tempfile.TemporaryDirectory() as folder:
        tape = asyncio.run(record_live(_one_call(), "q")).tape.save(Path(folder) / "one.tape")
        case = {"input": "q", "level": "recorded", "tape": tape, "expect": {"output": {"equals": {"got": "q"}}}}
        with _suite(_one_call(), **case) as run:
            return _slope(run)


def flowdeck_history() -> dict[str, float]:
    """Three clauses over 20,000 runs of ten events each."""
    from flowdeck_evals.happenings import Happening
    from flowdeck_evals.history import matching
    from flowdeck_evals.single import record_live

    lines = asyncio.run(record_live(_one_call(), "q")).tape.lines
    runs = [[Happening.of_line(line) for line in lines] for _ in range(20_000)]
    path = [
        {"in_order": ["run.start", "call.done web.get", "run.end"]},
        {"never": "call.failed *"},
        {"count": {"of": "node.start", "eq": 1}},
    ]
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        assert list(matching(path, runs)) == [None] * len(runs)
        best = min(best, time.process_time() - begun)

    return {"events_per_run": len(lines), "rounds_per_s": len(runs) / best}


def flowdeck_list() -> dict[str, float]:
    """CPU of the process, over the examples and over 1,000 cases in JSON lines."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"suite": "bench", "target": "benchmarks.evals:task"})]
        lines += [json.dumps({"case": f"c{n}", "input": n, "expect": {"output": {"equals": n}}}) for n in range(CASES)]
        (Path(folder) / "many.jsonl").write_text("\n".join(lines))
        found = {}
        for name, path in (("examples_ms", str(ROOT / "examples")), ("cases_1000_ms", folder)):
            argv = [sys.executable, "-m", "flowdeck_evals", "list", path]
            found[name] = min(_child(argv, folder) for _ in range(5))

    return found


def flowdeck_compare() -> dict[str, float]:
    """CPU and wall of the process: one round each, and five rounds of which some fail on either side."""
    from flowdeck_evals.session_files import SessionFile, write_session

    rng = random.Random(1)
    found = {}
    for name, rounds in (("one_round", 1), ("five_rounds", 5)):
        with tempfile.TemporaryDirectory() as folder:
            for session in ("a", "b"):
                rows: dict[str, list[Any]] = {}
                for n in range(10_000):
                    passed = sum(rng.random() < 0.95 for _ in range(rounds))
                    state = "passed" if passed == rounds else "failed"
                    wall = int(rng.lognormvariate(9, 1))
                    rows[f"c{n}"] = [f"{n:024x}", state, passed, rounds, False, False, "many.jsonl", n, wall]

                body = SessionFile(session, 0, {"many": "many.jsonl"}, None, rounds, {}, code=1, cases={"many": rows})
                write_session(Path(folder) / "store", body)

            argv = [sys.executable, "-m", "flowdeck_evals", "compare", "a", "b"]
            begun = time.perf_counter()
            found[f"{name}_ms"] = min(_child(argv, folder, (0, 1)) for _ in range(5))
            found[f"{name}_wall_ms"] = (time.perf_counter() - begun) / 5 * 1e3

    return found


def flowdeck_mine() -> dict[str, float]:
    """Seconds for all three questions at once; two threads of DuckDB."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import store_make
    from flowdeck_evals.mining import mine
    from flowdeck_sinks.store import query

    with tempfile.TemporaryDirectory() as folder:
        store = os.environ.get("FLOWDECK_BENCH_STORE") or f"{folder}/store"
        if not os.environ.get("FLOWDECK_BENCH_STORE"):
            store_make.make(Path(store), 2_880_000)

        ((executions, runs),) = query(store, "SELECT count(DISTINCT execution_id), count(DISTINCT run_id) FROM events")
        begun = time.process_time(), time.perf_counter()
        clusters = mine(store)
        cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]

    return {"runs": runs, "executions": executions, "clusters": len(clusters), "cpu_s": cpu, "wall_s": wall}


def _child(argv: list[str], folder: str, codes: tuple[int, ...] = (0,)) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environ = os.environ | {"FLOWDECK_STORE": f"{folder}/store"}
    assert subprocess.run(argv, stdout=subprocess.DEVNULL, env=environ).returncode in codes
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


# -- peers -----------------------------------------------------------------------------------------------------------


def pydantic_evals() -> dict[str, float]:
    from pydantic_evals import Case, Dataset  # type: ignore[import-not-found, unused-ignore]
    from pydantic_evals.evaluators import EqualsExpected  # type: ignore[import-not-found, unused-ignore]

    def run(count: int) -> None:
        cases = [Case(name=f"c{n}", inputs=f"q{n}", expected_output=f"q{n}") for n in range(count)]
        dataset = Dataset(name="bench", cases=cases, evaluators=[EqualsExpected()])
        dataset.evaluate_sync(task, max_concurrency=16, progress=False)

    return _slope(run)


def inspect_ai() -> dict[str, float]:
    from inspect_ai import Task, eval  # type: ignore[import-not-found, unused-ignore]
    from inspect_ai.dataset import MemoryDataset, Sample  # type: ignore[import-not-found, unused-ignore]
    from inspect_ai.scorer import exact  # type: ignore[import-not-found, unused-ignore]
    from inspect_ai.solver import solver  # type: ignore[import-not-found, unused-ignore]

    @solver  # type: ignore[untyped-decorator, unused-ignore]
    def echo() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            state.output.completion = await task(state.input_text)
            return state

        return solve

    with tempfile.TemporaryDirectory() as folder:

        def run(count: int) -> None:
            samples = [Sample(id=f"c{n}", input=f"q{n}", target=f"q{n}") for n in range(count)]
            evaluated = Task(dataset=MemoryDataset(samples), solver=echo(), scorer=exact())
            (log,) = eval(evaluated, model="mockllm/model", display="none", log_dir=folder, max_samples=16)
            assert log.results.scores[0].metrics["mean"].value == 1.0

        return _slope(run, 2)


def agently_devtools() -> dict[str, float]:
    from agently_devtools import (  # type: ignore[import-not-found, unused-ignore]
        EvaluationBridge,
        EvaluationCase,
        EvaluationRule,
        EvaluationRunner,
    )

    bridge = EvaluationBridge(observe=False, ensure_listener=False)
    bridge.register = bridge.unregister = lambda event_center: None  # else each round is posted to a server
    runner = EvaluationRunner(bridge=bridge)
    rules = [EvaluationRule(name="equal", evaluator=lambda record: record.output == record.input)]

    def run(count: int) -> None:
        binding = bridge.bind_callable(
            lambda case: task(case.input), suite_id="bench", target_type="callable", target_name="task"
        )
        cases = [EvaluationCase(case_id=f"c{n}", input=f"q{n}") for n in range(count)]
        assert runner.run(binding, cases=cases, rules=rules).passed_rounds == count

    return _slope(run)


def promptfoo() -> dict[str, float]:
    """CPU of its process. Telemetry is off; what it sends all the same goes to a port where nobody listens.

    50 at a time: at 16, some of its runs ended with exit code 0 and without a verdict (Node 20, a busy machine).
    """
    entry = ENVS / "promptfoo" / "node_modules" / "promptfoo" / "dist" / "src" / "entrypoint.js"
    flags = ("--no-cache", "--no-progress-bar", "--no-table", "--max-concurrency", "50")
    nowhere = "http://127.0.0.1:9"
    environ = os.environ | {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    environ |= {f"PROMPTFOO_DISABLE_{what}": "1" for what in ("TELEMETRY", "UPDATE", "REMOTE_GENERATION", "SHARING")}

    def once(count: int, *further: str) -> float | None:
        tests = [{"vars": {"q": f"q{n}"}, "assert": [{"type": "equals", "value": f"q{n}"}]} for n in range(count)]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            suite, out = Path(folder) / "suite.json", Path(folder) / "out.txt"
            suite.write_text(json.dumps({"prompts": ["{{q}}"], "providers": ["echo"], "tests": tests}))
            argv = ["node", str(entry), "eval", "--config", str(suite), *flags, *further]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with out.open("w") as file:
                subprocess.run(argv, stdout=file, cwd=folder, env=environ | {"PROMPTFOO_CONFIG_DIR": folder})

            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            passed = re.search(r"([\d,]+) passed", out.read_text())

        if not passed or int(passed[1].replace(",", "")) != count:
            return None

        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3

    def cpu(count: int, *further: str) -> float:
        """Return the best of two runs that came to a verdict, of four at most."""
        found: list[float] = []
        for _ in range(4):
            taken = once(count, *further)
            found += [taken] if taken is not None else []
            if len(found) == 2:
                break

        if not found:
            raise SystemExit(f"promptfoo did not come to a verdict on {count} cases")

        return min(found)

    one, many = cpu(1), cpu(CASES)
    bare, unstored = cpu(1, "--no-write"), cpu(CASES, "--no-write")
    return {
        "fixed_ms": one,
        "ms_per_case": (many - one) / (CASES - 1),
        "ms_per_case_unstored": (unstored - bare) / (CASES - 1),
    }


# -- all of them -----------------------------------------------------------------------------------------------------


def _python(name: str, install: bool) -> Path | None:
    """Return the interpreter that measures a runner, or None where it is not there."""
    from benchmarks.peers import environments

    if name == "promptfoo":
        there = environments.make_promptfoo() if install else environments.promptfoo_ready()
        return Path(sys.executable) if there else None

    if name not in PEERS:
        return Path(sys.executable)

    there = environments.make(name) if install else environments.ready(name)
    return environments.python_of(name) if there else None


def main() -> None:
    """Measure everything, or the names given."""
    if "--one" in sys.argv:
        name = sys.argv[-1]
        with contextlib.redirect_stdout(io.StringIO()):
            found = globals()[name]()

        print(json.dumps({key: round(value, 4) for key, value in found.items()}))
        return

    given = sys.argv[1:]
    if "--store" in given:
        os.environ["FLOWDECK_BENCH_STORE"] = str(Path(given.pop(given.index("--store") + 1)).resolve())

    from benchmarks.harness import Target, judged, table

    every: dict[str, float] = {}
    wanted = [name for name in given if not name.startswith("-")] or list(ABOUT)
    for name in wanted:
        python = _python(name, "--install" in sys.argv)
        label = f"{name:18} {ABOUT[name]:75}"
        if python is None:
            print(f"{label} not installed, run with --install")
            continue

        # A peer's interpreter must not find the package that has its name beside this file.
        done = subprocess.run(
            [str(python), "-P", __file__, "--one", name], capture_output=True, text=True, cwd=tempfile.gettempdir()
        )
        print(label, done.stdout.strip() or done.stderr[-2000:], flush=True)
        measured = json.loads(done.stdout) if done.returncode == 0 else {}
        every |= {f"{name} {key}": value for key, value in measured.items()}

    figures = judged(every, {key: Target(*target) for key, target in TARGETS.items()})
    if figures:
        print(f"\n{table(figures)}")


if __name__ == "__main__":
    main()
