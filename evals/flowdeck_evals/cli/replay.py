"""``evals replay``: one recorded run in today's code, up to its first divergence; or a fork from a place on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowdeck.errors import EvalError
from flowdeck_evals.cli.guard import guarded, note, out
from flowdeck_evals.cli.people import read_people
from flowdeck_evals.looping import run_loop

__all__ = ["replay"]

_FAILED, _INCOMPLETE, _DIVERGED = 1, 3, 4


@guarded(verdict=True)
def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A tape's file, or a stored run by run or execution id.")],
    target: Annotated[
        str | None, typer.Option(metavar="MODULE:FLOW", help="The flow; by default the one the run names.")
    ] = None,
    live_from: Annotated[
        str | None,
        typer.Option("--from", metavar="SCOPE", help="Play everything before this place (or @N), then go live."),
    ] = None,
    stub: Annotated[
        list[str] | None, typer.Option("--stub", metavar="PORT", help="Only these ports play; others go live.")
    ] = None,
    people: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who answers instead of the tape's people (with --from: after it)."),
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="TAPE", help="Keep the new run as a tape.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="Default: $FLOWDECK_STORE, else ./.flowdeck.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="On the wall.")] = 60.0,
    show: Annotated[bool, typer.Option("--show", help="List what is on the tape; nothing runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object to stdout.")] = False,
) -> None:
    """Replay one run. Exit 0: the same; 1: a question or intervention failed; 3: not replayable; 4: diverged."""
    from flowdeck_evals.plans import Missing
    from flowdeck_evals.recording import record_stored
    from flowdeck_evals.single import replay_tape
    from flowdeck_evals.tapes import Tape
    from flowdeck_evals.targets import find_target, is_flow

    tape = Tape.load(run) if Path(run).is_file() or run.endswith(".tape") else record_stored(store, run)
    if show:
        _show(tape)
        return

    named = target or str(tape.header.get("target") or "")
    if not named:
        raise EvalError(f"{run} does not say where its flow {tape.header.get('flow')!r} is: --target module:flow")

    flow = find_target(named)
    if not is_flow(flow):
        raise EvalError(f"target {named} is no flow")

    ports = {name: "tape" for each in stub or [] for name in each.split(",")}
    modes = {"clock": "live", "random": "live", "id": "live", **ports, "*": "live"} if ports else None
    human = read_people(people)
    try:
        single = run_loop(replay_tape(tape, flow, live_from=live_from, human=human, stub=modes, timeout=timeout))
    except Missing as problem:
        note(f"evals: {problem}")
        _end("incomplete", _INCOMPLETE, as_json, {"reason": str(problem)})
        return

    if save is not None:
        single.tape.save(save)

    kinds = {finding.kind for finding in single.findings}
    verdict, code = (
        ("incomplete", _INCOMPLETE)
        if "missing" in kinds or single.evidence.timed_out
        else ("fail", _FAILED)
        if "failed" in kinds
        else ("diverged", _DIVERGED)
        if "divergence" in kinds
        else ("pass", 0)
    )
    if not as_json:
        for finding in single.findings:
            out(f"{finding.kind}: {finding.message}" + (f"\n  code: {finding.source}" if finding.source else ""))

        if (
            live_from is not None
            and people is None
            and any("no human rule answers" in f.message for f in single.findings)
        ):
            out("after --from people are asked anew: --people FILE says who answers")

        if single.evidence.timed_out:
            out(f"timed out: {single.evidence.error_message}")

    more = {
        "run": tape.header.get("run_id"),
        "replayed": single.evidence.run_id,
        "error": single.evidence.error_message or None,
        "findings": [finding.to_dict() for finding in single.findings],
    }
    _end(verdict, code, as_json, more)


def _end(verdict: str, code: int, as_json: bool, more: dict[str, Any]) -> None:
    if as_json:
        out(json.dumps({"verdict": verdict, "code": code, **more}, default=str))
    else:
        out(f"verdict={verdict} code={code} run={more.get('run') or '-'}")

    if code:
        raise typer.Exit(code)


def _show(tape: Any) -> None:
    """List calls and answers in the order of the run, one a line."""
    rows = [(call.position, f"call    {call}  {_given(call)}") for call in tape.calls]
    rows += [
        (each.position, f"answer  {each.kind} at {each.scope}  {each.status} {_short(each.value)} by {each.actor}")
        for each in tape.answers
    ]
    for position, text in sorted(rows):
        out(f"@{position:<5} {text}")


def _given(call: Any) -> str:
    if call.loss:
        return f"lossy: {call.loss}"

    return f"raised {call.failure.get('type')}" if call.failure else _short(call.result)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
