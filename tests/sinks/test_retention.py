"""Retention: what is old goes, what somebody still needs stays, and the report says both."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.sinks.publishing import AT_ONCE

from flowdeck.layout import Layout, WriterLock
from flowdeck_sinks.store.maintenance import Policy, compact, doctor, prune, publish
from flowdeck_sinks.store.parts import events_select, visible_sources

DAY_MS = 86_400_000
NOW_MS = int(time.time() * 1000)


class Past:
    """Writes journal segments whose events happened long ago."""

    def __init__(self, store: Path) -> None:
        self.layout = Layout.create(store)
        self.wseq: dict[str, int] = {}
        self.lines: dict[str, list[str]] = {}

    def tell(
        self, days_ago: float, event_type: str, execution: str | None = None, writer: str = "w1", **payload: Any
    ) -> str:
        """Write one event and return its id."""
        number = self.wseq[writer] = self.wseq.get(writer, 0) + 1
        run = {"run_id": f"run-{execution}", "execution_id": execution, "run_kind": "workflow_execution", "meta": {}}
        event_id = f"{writer}-{number:06d}"
        line = {
            "wseq": number, "event_id": event_id, "event_type": event_type, "source": "test", "level": "INFO",
            "message": None, "payload": payload, "error": None, "run": run if execution else None,
            "meta": {"v": 1, "us": 0, "epoch": 1, "seq": number}, "timestamp": NOW_MS - int(days_ago * DAY_MS),
        }  # fmt: skip
        self.lines.setdefault(writer, []).append(json.dumps(line))
        return event_id

    def publish(self) -> None:
        """Turn what was told since the last call into one part per writer."""
        for writer, lines in self.lines.items():
            path = self.layout.segment_path(writer, self.wseq[writer])
            path.write_text("\n".join(lines) + "\n")
        self.lines = {}
        assert publish(self.layout, timing=AT_ONCE).problems == []
        publish(self.layout, timing=AT_ONCE)

    def ids(self) -> set[str]:
        """Return the ids of the events that are visible."""
        with duckdb.connect() as connection:
            return {
                row[0]
                for row in connection.execute(
                    f"SELECT event_id FROM ({events_select(visible_sources(self.layout))})"
                ).fetchall()
            }


def test_age_and_what_a_pause_of_forty_days_needs(tmp_path: Path) -> None:
    """Of an execution that has waited 40 days its life, its question and its definition stay; ended ones go."""
    past = Past(tmp_path / "store")
    definition = past.tell(50, "triggerflow.definition_declared", "old", flow_name="audit", fingerprint="f1")
    past.tell(50, "triggerflow.execution_started", "old", definition="f1")
    past.tell(50, "triggerflow.execution_completed", "old")
    life = {
        past.tell(40, "triggerflow.execution_started", "waits", definition="f1"),
        past.tell(40, "triggerflow.interrupt_raised", "waits", interrupt={"id": "i1", "type": "approval"}),
        past.tell(40, "triggerflow.intervention_received", "waits", intervention={"id": "v1"}),
        past.tell(40, "triggerflow.execution_waiting", "waits"),
    }
    past.tell(40, "chunk.started", "waits")
    past.tell(40, "model.completed", "waits", text="x" * 2000)
    young = past.tell(10, "triggerflow.execution_started", "young")
    past.publish()
    report = prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert past.ids() == {definition, young, *life}
    assert (report.events_removed, report.events_kept, report.files_rewritten, report.files_removed) == (4, 5, 1, 0)
    assert report.oldest is not None
    assert report.oldest.startswith(time.strftime("%Y-%m-%d", time.gmtime(NOW_MS / 1000 - 10 * 86400)))
    assert doctor(past.layout)[0].level == "ok", "what retention took is not missing"
    again = prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert (again.events_removed, again.events_kept) == (0, 5)
    assert past.ids() == {definition, young, *life}

    past.tell(0, "triggerflow.execution_completed", "waits")
    past.publish()
    prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert not past.ids() & life, "it has ended: nothing holds its beginning any more"
    assert definition in past.ids()


def test_a_recovered_execution_is_open_again(tmp_path: Path) -> None:
    """A newer epoch without an end counts, whatever an older one says."""
    past = Past(tmp_path / "store")
    started = past.tell(40, "triggerflow.execution_started", "e1")
    past.tell(39, "triggerflow.execution_failed", "e1")
    recovered = past.tell(38, "triggerflow.execution_recovered", "e1")
    line = json.loads(past.lines["w1"][-1])
    line["meta"]["epoch"] = 2
    past.lines["w1"][-1] = json.dumps(line)
    past.publish()
    prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert {started, recovered} <= past.ids()


def test_a_lost_execution_is_not_kept_for_ever(tmp_path: Path) -> None:
    """Told what is open, retention lets go of executions of dead writers that nobody can resume."""
    past = Past(tmp_path / "store")
    lock = WriterLock(past.layout, "w2")
    lost = past.tell(40, "triggerflow.execution_started", "lost")
    contrary = past.tell(40, "triggerflow.execution_failed", "contrary")
    resumable = past.tell(40, "triggerflow.execution_started", "resumable")
    alive = past.tell(40, "triggerflow.execution_started", "alive", writer="w2")
    past.publish()
    prune(past.layout, Policy(max_age_days=30), open_executions=["resumable", "contrary"], timing=AT_ONCE)
    assert past.ids() == {resumable, alive, contrary}, "state.db knows better than events, some of which may be lost"
    assert lost not in past.ids()
    lock.release()


def test_evaluations_stay(tmp_path: Path) -> None:
    """Sessions, rounds and baselines are kept however old, unless that is switched off."""
    past = Past(tmp_path / "store")
    kept = {past.tell(400, f"eval.{what}", baseline=True) for what in ("session_started", "round", "session_completed")}
    past.tell(400, "my.event")
    past.publish()
    prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert past.ids() == kept
    report = prune(past.layout, Policy(max_age_days=30, keep_evals=False), timing=AT_ONCE)
    assert past.ids() == set()
    assert report.files_removed == 1


def test_size_removes_the_oldest(tmp_path: Path) -> None:
    """While the files are larger than the limit the oldest go; the newest are never touched before them."""
    past = Past(tmp_path / "store")
    ids = []
    for day in range(10, 0, -1):
        ids.append(past.tell(day, "my.event", text=os.urandom(20_000).hex()))
        past.publish()
    total = sum(path.stat().st_size for path in past.layout.parts.glob("0*.parquet"))
    report = prune(past.layout, Policy(max_bytes=total // 2), timing=AT_ONCE)
    assert past.ids() == set(ids[-4:]) or past.ids() == set(ids[-5:])
    assert report.bytes_after <= total // 2 < report.bytes_before == total
    assert report.files_removed == report.events_removed == 10 - len(past.ids())


def test_hostile_times_do_not_live_for_ever(tmp_path: Path) -> None:
    """Events of the year 9999, or of no year at all, are as old as the file they came in."""
    past = Past(tmp_path / "store")
    past.tell(-2_900_000, "from.the.future")
    past.tell(10**12, "out.of.range")
    past.publish()
    prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    assert len(past.ids()) == 2
    report = prune(past.layout, Policy(max_age_days=-1), timing=AT_ONCE)
    assert past.ids() == set()
    assert report.events_removed == 2


def test_what_was_not_exported_is_told_or_kept(tmp_path: Path) -> None:
    """Per exporter the report counts removed events it had not delivered; on demand they stay."""
    past = Past(tmp_path / "store")
    first = [past.tell(40, "my.event") for _ in range(10)]
    other = [past.tell(40, "my.event", writer="w2") for _ in range(3)]
    past.layout.cursors.mkdir()
    (past.layout.cursors / "otlp.json").write_text(json.dumps({"name": "otlp", "writers": {"w1": 6}, "checkpoint": 1}))
    (past.layout.cursors / "broken.json").write_text("{")
    past.publish()
    dry = prune(past.layout, Policy(max_age_days=30), dry_run=True)
    assert dry.not_exported == {"otlp": 7, "broken": 13}
    assert (dry.events_removed, dry.files_removed) == (13, 2)
    assert past.ids() == {*first, *other}, "a dry run changes nothing"
    (past.layout.cursors / "broken.json").unlink()
    kept = prune(past.layout, Policy(max_age_days=30, require_export=True), timing=AT_ONCE)
    assert past.ids() == {*first[6:], *other}
    assert (kept.events_removed, kept.events_kept, kept.not_exported) == (6, 7, {})
    assert prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE).not_exported == {"otlp": 7}


def test_blobs_go_with_the_last_event_that_names_them(tmp_path: Path) -> None:
    """A blob stays while an event names it, in whatever field, or while it is young."""
    past = Past(tmp_path / "store")
    shas = {name: f"{number:064x}" for number, name in enumerate(("old", "shared", "young", "unnamed", "fresh"))}
    past.tell(40, "my.event", **{"$blob": shas["old"], "size": 1})
    past.tell(40, "my.event", **{"$blob": shas["shared"], "size": 1})
    past.tell(1, "my.event", deep=[{"$blob": shas["shared"], "size": 1}])
    past.tell(1, "my.event", **{"$blob": shas["young"], "size": 1})
    for name, sha in shas.items():
        (past.layout.blobs / sha).write_text("x")
        if name != "fresh":
            os.utime(past.layout.blobs / sha, (1, 1))
    past.publish()
    report = prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE)
    left = {path.name for path in past.layout.blobs.iterdir()}
    assert left == {shas["shared"], shas["young"], shas["fresh"]}
    assert report.blobs_removed == 2


def test_a_file_whose_inputs_still_stand_is_left(tmp_path: Path) -> None:
    """Removing a merged file would bring back what it was made of: it waits until that is gone."""
    past = Past(tmp_path / "store")
    for _ in range(3):
        past.tell(40, "my.event")
        past.publish()
    from flowdeck_sinks.store._keeping import Timing

    slow = Timing(visible_after_ms=0, keep_ms=600_000)
    assert compact(past.layout, force=True, timing=slow).merged == 3
    assert prune(past.layout, Policy(max_age_days=30), timing=slow).events_removed == 0
    assert len(past.ids()) == 3
    assert prune(past.layout, Policy(max_age_days=30), timing=AT_ONCE).events_removed == 3
    assert past.ids() == set()


@pytest.mark.parametrize("policy", [Policy(), Policy(max_age_days=90), Policy(max_bytes=10**9)])
def test_nothing_old_nothing_done(tmp_path: Path, policy: Policy) -> None:
    """A policy that everything meets changes no file."""
    past = Past(tmp_path / "store")
    past.tell(40, "my.event")
    past.publish()
    before = {path: path.stat().st_mtime_ns for path in past.layout.parts.iterdir()}
    report = prune(past.layout, policy, timing=AT_ONCE)
    assert (report.events_removed, report.files_removed, report.files_rewritten) == (0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in past.layout.parts.iterdir()} == before
    assert doctor(past.layout)[0].level == "ok"
