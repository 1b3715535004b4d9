"""Recording and replaying: the same world gives the same run, and what differs is named."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.evals.licence_bugs import FLOW, edited
from tests.evals.replaying import RULES, orders, recorded

from flowdeck import Runtime, TriggerFlow, TriggerFlowRuntimeData
from flowdeck.execution.ports import Question, Reply
from flowdeck_evals.history import evidence_of, stored_evidence
from flowdeck_evals.planning import cut_of
from flowdeck_evals.plans import Missing
from flowdeck_evals.recording import NoSuchRun, record_stored, stored_runs
from flowdeck_evals.single import Single, record_live, replay_tape
from flowdeck_evals.tapes import BadTape, Tape


@pytest.fixture(scope="module")
def run() -> Single:
    """One recorded run of the orders flow; nobody changes it."""
    return recorded()


async def nobody(*_: Any) -> Any:
    """Stand for a world that must not be asked."""
    raise AssertionError("the world was asked")


def replay(tape: Tape, flow: TriggerFlow, *args: Any, **options: Any) -> Single:
    """Replay from a script."""
    return asyncio.run(replay_tape(tape, flow, *args, **options))


def test_two_hundred_shuffled_concurrent_replays_are_identical(run: Single) -> None:
    """However branches interleave, every replay ends in the recorded state and notices nothing."""

    async def all_of_them() -> list[Single]:
        def one(seed: int) -> Any:
            chance = random.Random(seed)
            return replay_tape(run.tape, orders(lambda: chance.randrange(4), nobody))

        return list(await asyncio.gather(*(one(seed) for seed in range(200))))

    replays = asyncio.run(all_of_them())
    orders_of_calls = {tuple(call.scope for call in each.tape.calls) for each in replays}
    assert len(orders_of_calls) > 20, "the replays were not shuffled"
    assert all(each.evidence.output == run.evidence.output for each in replays)
    assert [each.findings for each in replays] == [[]] * 200


def test_results_come_back_exactly(run: Single) -> None:
    """A tuple stays a tuple, a float its last digit; time, ids and chance are the recorded ones."""
    quotes = replay(run.tape, orders(fetch=nobody)).evidence.output["quotes"]
    assert quotes == run.evidence.output["quotes"]
    assert all(type(each[0]) is tuple for each in _leaves(quotes))


def _leaves(quotes: Any) -> list[Any]:
    return [quotes] if isinstance(quotes, list) else [leaf for each in quotes.values() for leaf in _leaves(each)]


def test_a_recorded_error_is_raised_again(run: Single) -> None:
    """The first try of order 4 fails with the recorded class and message, and its retry gets the second result."""
    failures = [call for call in replay(run.tape, orders(fetch=nobody)).tape.calls if call.failure]
    assert [(call.scope, call.failure and call.failure["type"]) for call in failures] == [
        ("for_each[4]/quote", "builtins.ConnectionError")
    ]


def test_an_edited_flow_is_told_its_first_divergence_by_scope_and_line(tmp_path: Path) -> None:
    """A run of one version replayed against an edited one names the place, both sides and the line of the code."""
    tape = Tape.load(FLOW.parent / "evals" / "tapes" / "real-environment.tape")
    flow, file = edited(tmp_path, 'str(answer.get("note") or "")', '"lost"')
    divergence = replay(tape, flow).divergence
    assert divergence is not None
    assert divergence.scope == "for_each[0]/record_weak_copyleft"
    assert "note: 'MPL-2.0 is fine for us' -> 'lost'" in divergence.message
    lines = file.read_text().splitlines()
    assert divergence.source == f"{file}:{next(i for i, x in enumerate(lines, 1) if 'async def record(' in x)}"


def test_changed_arguments_are_named_with_the_line_that_calls(tmp_path: Path) -> None:
    """A call with other arguments names the nearest entry, what differs in it, and the calling line."""
    tape = Tape.load(FLOW.parent / "evals" / "tapes" / "real-environment.tape")
    flow, file = edited(tmp_path, '"utf-8" if data.attempt == 1 else "detect"', '"latin-1"')
    divergence = replay(tape, flow).divergence
    assert divergence is not None
    assert divergence.detail["cause"] == "changed"
    assert "1: 'utf-8' -> 'latin-1'" in divergence.message
    lines = file.read_text().splitlines()
    assert divergence.source == f"{file}:{next(i for i, x in enumerate(lines, 1) if '_read, data.input' in x)}"


@pytest.mark.parametrize(
    ("calls", "cause", "said"),
    [
        ([("a", 1), ("a", 1)], "exhausted", "recorded 1, called 2"),
        ([("a", 2)], "changed", "0: 1 -> 2"),
        ([("b", 1)], "unknown", "no such call at this place"),
        ([], "unused", "recorded and never called"),
    ],
)
def test_every_kind_of_miss_has_its_name(calls: list[tuple[str, int]], cause: str, said: str) -> None:
    """Exhausted, changed, unknown and unused are told apart."""

    def flow(wanted: list[tuple[str, int]]) -> TriggerFlow:
        made = TriggerFlow(name="misses")

        async def only(data: TriggerFlowRuntimeData) -> None:
            for name, argument in wanted:
                await data.call("tool", name, lambda value: value, argument)

        made.to(only)
        return made

    tape = asyncio.run(record_live(flow([("a", 1)]), None)).tape
    found = [each for each in replay(tape, flow(calls)).findings if each.detail["cause"] == cause]
    assert len(found) == 1
    assert said in found[0].message
    assert found[0].scope == "only"


def test_a_redacted_result_fails_by_name_where_it_is_needed() -> None:
    """A tape that lost a result says which and why; an argument may be redacted, its digest was taken before."""
    flow = TriggerFlow(name="secrets")

    async def only(data: TriggerFlowRuntimeData) -> Any:
        return await data.call("vault", "read", lambda who: {"password": "hunter2"}, {"token": "t-1"})

    flow.to(only)
    tape = asyncio.run(record_live(flow, None)).tape
    assert b"hunter2" not in tape.encoded and b"t-1" not in tape.encoded
    assert tape.lossy == ["vault.read at only: redacted"]
    (finding,) = [each for each in replay(tape, flow).findings if each.kind == "missing"]
    assert "vault.read at only: its result is lossy (redacted)" in finding.message


def test_redaction_by_path_and_by_shape() -> None:
    """What the author names is masked, and so is what looks like a credential; the header lists both."""
    flow = TriggerFlow(name="private")

    async def only(data: TriggerFlowRuntimeData) -> Any:
        await data.call("crm", "read", lambda: {"iban": "DE00 1234", "note": "key sk-abcdefgh12345678ijkl"})

    flow.to(only)
    tape = asyncio.run(record_live(flow, None, redact=["*.iban"])).tape
    assert b"DE00" not in tape.encoded and b"sk-abc" not in tape.encoded
    assert tape.header["redacted"] == ["result.iban", "result.note"]


def test_volatile_arguments_do_not_count() -> None:
    """A declared request id may differ between recording and replay; any other argument may not."""
    flow = TriggerFlow(name="volatile")
    given = {"request_id": 1, "q": "x"}

    async def only(data: TriggerFlowRuntimeData) -> Any:
        return await data.call("web", "get", lambda query: query["request_id"], dict(given))

    flow.to(only)
    tape = asyncio.run(record_live(flow, None, volatile=["web.*:0.request_id"])).tape
    given["request_id"] = 2
    assert replay(tape, flow).findings == []
    given["q"] = "y"
    divergence = replay(tape, flow).divergence
    assert divergence is not None and divergence.detail["cause"] == "changed"


def test_a_digest_key_must_be_the_same(run: Single) -> None:
    """Digests made with a secret key cannot be found without it, and that is said."""
    tape = Tape(run.tape.lines, {**run.tape.header, "key_id": "deadbeef"})
    with pytest.raises(Missing, match=r"ports\.digest_key"):
        replay(tape, orders())


def test_a_tape_survives_its_file(run: Single, tmp_path: Path) -> None:
    """Saved and loaded it replays the same; hash and bytes are stable."""
    path = run.tape.save(tmp_path / "tapes" / "one.tape")
    loaded = Tape.load(path)
    assert loaded.encoded == path.read_bytes()
    assert loaded.hash == run.tape.hash
    assert replay(loaded, orders(fetch=nobody)).findings == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no tape"),
        (b"", "no tape"),
        (b'{"tape":1}\n{', ":2: no JSON"),
        (b'{"tape":99}\n', "format 99 is newer"),
        (b"[1]\n", ":1: expected an object"),
        (b'{"tape":1}\n{"event_type":1}\n', ":2: no event of a journal"),
        (b'{"tape":1}\n{"event_type":"x","run":[]}\n', ":2: no event of a journal"),
    ],
)
def test_a_bad_tape_is_one_clear_error(content: bytes | None, said: str, tmp_path: Path) -> None:
    """Missing, empty, torn, newer or foreign: each is said with the file."""
    path = tmp_path / "bad.tape"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BadTape, match=said):
        Tape.load(path)


def test_nothing_is_imported_on_a_tapes_word(run: Single) -> None:
    """A result whose class nobody has imported is refused, not imported."""
    lines = json.loads(json.dumps(run.tape.lines))
    for line in lines:
        if line["event_type"] == "triggerflow.port_returned" and line["payload"]["name"] == "price":
            line["payload"]["result"] = {"$type": "dataclass", "v": ["antigravity:Fly", {}]}

    single = replay(Tape(lines, run.tape.header), orders(fetch=nobody))
    assert "has not imported" in single.evidence.error_message


def test_a_call_that_was_cancelled_is_cancelled_again() -> None:
    """A call that a timeout cut off while recording waits on virtual time until the same timeout does."""
    flow = TriggerFlow(name="slow")

    async def never() -> None:
        await asyncio.Event().wait()

    async def only(data: TriggerFlowRuntimeData) -> None:
        await data.call("web", "slow", never)

    flow.to(only, timeout=0.05)
    single = asyncio.run(record_live(flow, None))
    again = replay(single.tape, flow)
    assert single.evidence.error_type == again.evidence.error_type == "TimeoutError"
    assert again.findings == []


def test_streams_keep_their_chunks_and_their_end() -> None:
    """Chunks come back one by one; a stream that broke breaks at the same chunk; one left early is no failure."""
    flow = TriggerFlow(name="streaming")
    world = [True]

    async def tokens(text: str) -> AsyncIterator[str]:
        assert world, "the world was asked"
        for token in text.split():
            if token == "break":
                raise ConnectionError("gone")

            yield token

    async def only(data: TriggerFlowRuntimeData) -> None:
        whole = [token async for token in data.call_stream("model", "say", tokens, "a b c")]
        early = None
        async for token in data.call_stream("model", "say", tokens, "d e f"):
            early = token
            break

        broken = []
        try:
            async for token in data.call_stream("model", "say", tokens, "g break"):
                broken.append(token)
        except ConnectionError as exc:
            broken.append(str(exc))

        await data.async_set_state("got", [whole, early, broken])

    flow.to(only)
    single = asyncio.run(record_live(flow, None))
    assert single.evidence.output["got"] == [["a", "b", "c"], "d", ["g", "gone"]]
    world.clear()
    again = replay(single.tape, flow)
    assert again.findings == []
    assert again.evidence.output == single.evidence.output


# -- a fork ----------------------------------------------------------------------------------------------------------


def test_a_fork_plays_the_prefix_and_then_goes_live(run: Single) -> None:
    """Up to the place the tape answers, from there on the world; the new tape says what it was forked from."""
    asked: list[int] = []

    async def price(order: Any) -> Any:
        asked.append(order["id"])
        return ("EUR", 99.0)

    single = replay(run.tape, orders(fetch=price), live_from="for_each[4]")
    cut = cut_of(run.tape, "for_each[4]")
    later = [call.args[0]["id"] for call in run.tape.calls if call.name == "price" and call.position >= cut]
    assert 4 in later
    assert set(asked) == set(later) < set(range(6))
    assert single.tape.header["forked_from"][0] == run.tape.header["run_id"]
    with pytest.raises(Missing, match="never came to 'nowhere'"):
        replay(run.tape, orders(), live_from="nowhere")


# -- stored runs -----------------------------------------------------------------------------------------------------


class Signer:
    """Signs whatever it is asked."""

    def answer(self, question: Question) -> Reply:
        return Reply("signed", "ada")


def test_any_stored_run_can_become_a_tape(tmp_path: Path) -> None:
    """A run nobody meant to record, chosen by SQL, replays without the world, blobs and sub flows included."""
    store = tmp_path / "store"
    child, flow = TriggerFlow(name="child"), TriggerFlow(name="parent")

    async def fetch(data: TriggerFlowRuntimeData) -> Any:
        return await data.call("web", "page", lambda n: {"n": n, "text": "x" * 300_000}, data.input)

    async def keep(data: TriggerFlowRuntimeData) -> None:
        await data.async_set_state("lengths", [len(str(each)) for each in data.input])

    async def split(data: TriggerFlowRuntimeData) -> list[int]:
        return [1, 2]

    async def sign(data: TriggerFlowRuntimeData) -> Any:
        return await data.async_pause_for(type="sign", payload={"n": 1})

    child.to(fetch).to(sign)
    flow.to(split).for_each().to_sub_flow(child).end_for_each().to(keep)

    async def live() -> Any:
        runtime = Runtime()
        runtime.services.answerer = Signer()
        observed = runtime.observe(store)
        with runtime.use():
            execution = flow.create_execution(auto_close_timeout=0.0)
            snapshot = await execution.async_start("go")

        observed.close()
        return execution.id, snapshot

    execution_id, snapshot = asyncio.run(live())
    (run_id,) = stored_runs(store, "flow_name = 'parent'")
    tape = record_stored(store, run_id)
    assert record_stored(store, execution_id).encoded == tape.encoded
    assert tape.lossy == []
    assert [call.scope for call in tape.calls] == ["for_each[0]/child/fetch", "for_each[1]/child/fetch"]
    assert [(each.scope, each.value, each.actor) for each in tape.answers] == [
        ("for_each[0]/child/sign", "signed", "ada"),
        ("for_each[1]/child/sign", "signed", "ada"),
    ]
    single = replay(tape, flow)
    assert single.findings == []
    assert single.evidence.output == snapshot
    (found,) = stored_evidence(store, "flow_name = 'parent'")
    assert found[1].output == evidence_of(tape).output == snapshot
    with pytest.raises(NoSuchRun, match="no stored flow run satisfies"):
        stored_runs(store, "flow_name = 'unknown'")

    with pytest.raises(NoSuchRun, match="has no run 'unknown'"):
        record_stored(store, "unknown")


def test_a_person_who_answers_otherwise_is_named(run: Single) -> None:
    """A question with another payload than the recorded one is a divergence with its difference."""
    lines = json.loads(json.dumps(run.tape.lines))
    for line in lines:
        if line["event_type"] == "triggerflow.interrupt_raised":
            line["payload"]["interrupt"]["payload"] = {"price": "another"}

    found = replay(Tape(lines, run.tape.header), orders(fetch=nobody)).findings
    assert any("the question is another one: price: 'another'" in each.message for each in found)
    assert RULES
