"""What the eval harness costs, beside pydantic-evals: ``python -m benchmarks.evals [--install]``.

1,000 trivial cases: an async task returns its input, one exact check, 16 at a time. Ours stores every result in a
journal; pydantic-evals stores nothing. CPU per case is the slope between 1 and 1,000 cases, each figure the best of
three in a process of its own (CPU time, so that neighbours matter less). Peers live in ``benchmarks/.envs``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ENVS = Path(__file__).parent / ".envs"
PEER = "pydantic_evals"
REQUIREMENT = "pydantic-evals==2.62.0"
CASES = 1_000
ROUNDS = 3


def _cpu(run: Callable[[int], None], count: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        run(count)
        best = min(best, time.process_time() - begun)

    return best


def _slope(run: Callable[[int], None]) -> dict[str, float]:
    run(1)
    one, many = _cpu(run, 1), _cpu(run, CASES)
    return {"fixed_ms": one * 1e3, "ms_per_case": (many - one) / (CASES - 1) * 1e3}


def ours() -> dict[str, float]:
    """Results stored, then 10,000 cases for the memory."""
    from flowdeck_evals import Case, Suite

    async def task(value: str) -> str:
        return value

    with tempfile.TemporaryDirectory() as store:

        def run(count: int) -> None:
            cases = [Case(id=f"c{n}", input=f"q{n}", expect={"output": {"equals": f"q{n}"}}) for n in range(count)]
            assert Suite("bench", task, tuple(cases)).run_sync(store=store, jobs=16).judge().ok

        found = _slope(run)
        run(10_000)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found | {"rss_mb_10000": peak / (1024 if sys.platform == "linux" else 1024**2)}


def peer() -> dict[str, float]:
    """Nothing stored, no progress shown."""
    from pydantic_evals import Case, Dataset  # type: ignore[import-not-found, unused-ignore]
    from pydantic_evals.evaluators import EqualsExpected  # type: ignore[import-not-found, unused-ignore]

    async def task(value: str) -> str:
        return value

    def run(count: int) -> None:
        cases = [Case(name=f"c{n}", inputs=f"q{n}", expected_output=f"q{n}") for n in range(count)]
        dataset = Dataset(name="bench", cases=cases, evaluators=[EqualsExpected()])
        dataset.evaluate_sync(task, max_concurrency=16, progress=False)

    return _slope(run)


def main() -> None:
    if "--one" in sys.argv:
        print(json.dumps(ours() if sys.argv[-1] == "ours" else peer()))
        return

    python = ENVS / PEER / "bin" / "python"
    if "--install" in sys.argv and not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVS / PEER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", REQUIREMENT], check=True)

    for name, interpreter in (("ours", Path(sys.executable)), ("peer", python)):
        if interpreter.exists():
            done = subprocess.run([str(interpreter), __file__, "--one", name], capture_output=True, text=True)
            print(
                f"{'flowdeck, stored' if name == 'ours' else REQUIREMENT + ', nothing stored':36}",
                done.stdout.strip() or done.stderr,
            )
        else:
            print(f"{REQUIREMENT}: not installed, run with --install")


if __name__ == "__main__":
    main()
