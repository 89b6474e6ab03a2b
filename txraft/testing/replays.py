"""
A run's commands once more, after it: on machines that were restored from a snapshot, and in processes of their own.

The replicas of a simulation share one process, and so the order in which its sets of strings are iterated. A machine
that depends on that differs only from one whose process has another PYTHONHASHSEED. Two such processes are asked: from
one of them at least it differs, whatever this process's is.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from txraft.images import IPreparedRestore
from txraft.testing.replicas import (
    Chronicle,
    Chunks,
    MachineBroken,
    ask,
    cut,
    randomness_of,
    show,
    take_snapshot,
    where_they_differ,
)

HASH_SEEDS = ("1", "2")


@attrs.frozen
class Step:
    """
    One command, and what is expected of it: its result, the digest of the snapshot after it, and answers to queries.

    `digest` is empty if nobody took a snapshot. The step of index 0 has no command: it is the machine as it begins.
    """

    index: int
    time_ms: int
    command: bytes
    result: str
    digest: str
    questions: tuple[tuple[bytes, str], ...]

    def to_json(self) -> list[Any]:
        questions = [(_text(request), answer) for request, answer in self.questions]
        return [self.index, self.time_ms, _text(self.command), self.result, self.digest, questions]

    @classmethod
    def from_json(cls, fields: Sequence[Any]) -> Step:
        index, time_ms, command, result, digest, questions = fields
        asked = tuple((_bytes(request), answer) for request, answer in questions)
        return cls(index, time_ms, _bytes(command), result, digest, asked)


@attrs.frozen
class Difference:
    """The first thing that is not as expected: `found` is a result or an answer, or `chunks` a snapshot."""

    index: int
    what: str
    found: str = ""
    chunks: Chunks = ()
    question: int = 0

    def to_json(self) -> list[Any]:
        return [self.index, self.what, self.found, list(map(_text, self.chunks)), self.question]

    @classmethod
    def from_json(cls, fields: Sequence[Any]) -> Difference:
        index, what, found, chunks, question = fields
        return cls(index, what, found, tuple(map(_bytes, chunks)), question)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def digest_of(chunks: Chunks) -> str:
    """Different for other bytes, and for the same bytes in other chunks."""
    digest = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        digest.update(b"%d " % len(chunk) + chunk)
    return digest.hexdigest()


def steps_of(chronicle: Chronicle) -> list[Step]:
    """All that a chronicle holds, in order, from index 0."""
    asked: dict[int, list[tuple[bytes, str]]] = {}
    for question in chronicle.questions:
        asked.setdefault(question.index, []).append((question.request, question.answer))
    steps = [Step(0, 0, b"", "", "", tuple(asked.get(0, ())))]
    for index, entry in sorted(chronicle.entries.items()):
        digest = "" if entry.chunks is None else digest_of(entry.chunks)
        steps.append(Step(index, entry.time_ms, entry.command, entry.result, digest, tuple(asked.get(index, ()))))
    return steps


def first_difference(machine: Any, steps: Sequence[Step]) -> Difference | None:
    """Carry out the steps on `machine`, one at a time, until something is not as expected."""
    for step in steps:
        try:
            difference = _carry_out(machine, step)
        except Exception as error:
            return Difference(step.index, "result", f"raised {type(error).__name__}: {error}")
        if difference is not None:
            return difference
    return None


def _carry_out(machine: Any, step: Step) -> Difference | None:
    if step.index:
        [result] = machine.apply(step.index, [step.command], step.time_ms)
        if show(result) != step.result:
            return Difference(step.index, "result", show(result))
    if step.digest:
        chunks = take_snapshot(machine)
        if digest_of(chunks) != step.digest:
            return Difference(step.index, "state", chunks=chunks)
    for number, (request, expected) in enumerate(step.questions):
        answer = show(ask(machine, request))
        if answer != expected:
            return Difference(step.index, "answer", answer, question=number)
    return None


def require_none(difference: Difference | None, chronicle: Chronicle, replica: str) -> None:
    """:raises StateDiverged: there is a difference; `replica` is where it was found."""
    if difference is None:
        return
    if difference.what == "state":
        chronicle.fail_state(difference.index, replica, difference.chunks)
    if difference.what == "answer":
        asked = [question for question in chronicle.questions if question.index == difference.index]
        chronicle.fail_answer(asked[difference.question], replica, difference.found)
    chronicle.fail("result", difference.index, replica, difference.found)


def check_restore(make: Callable[[], Any], chronicle: Chronicle, rng: random.Random) -> None:
    """
    A machine that is restored from a snapshot, at a time that is drawn, is the same as the one that gave it, and stays
    so; also one that held something else before, and also when the other has gone on in the meantime.

    :raises MachineBroken: it is not so.
    """
    steps, again = steps_of(chronicle), "a replica that was given the log again"
    at = rng.randrange(len(steps))
    index, questions = steps[at].index, attrs.evolve(steps[at], index=0, digest="")
    with randomness_of(f"restore {rng.random()}"):
        giver, new, prepared = make(), make(), make()
        require_none(first_difference(giver, steps[: at + 1]), chronicle, again)
        snapshot = giver.snapshot()
        expected = tuple(snapshot)
        require_none(first_difference(giver, steps[at + 1 :]), chronicle, again)
        for machine, name in (
            (new, f"a new replica, restored from the snapshot at index {index}"),
            (giver, f"a replica that was further, restored from the snapshot at index {index}"),
            (prepared, f"a new replica, prepared with the snapshot at index {index}"),
        ):
            if machine is prepared and not IPreparedRestore.providedBy(machine):
                continue
            _restore(machine, snapshot, expected, name, is_prepared=machine is prepared)
            difference = first_difference(machine, [questions])
            require_none(difference and attrs.evolve(difference, index=index), chronicle, name)
            require_none(first_difference(machine, steps[at + 1 :]), chronicle, name)


def _restore(machine: Any, snapshot: Sequence[bytes], expected: Chunks, name: str, is_prepared: bool) -> None:
    how = "restoring()" if is_prepared else "restore()"
    try:
        if is_prepared:
            restoring, before = machine.restoring(), take_snapshot(machine)
            for chunk in snapshot:
                restoring.add(chunk)
            if take_snapshot(machine) != before:
                raise MachineBroken("the state has changed before finish()")
            restoring.finish()
        else:
            machine.restore(snapshot)
        found = take_snapshot(machine)
    except Exception as error:
        raise MachineBroken(f"{how} raised: {type(error).__name__}: {cut(str(error))}, on {name}") from error
    if found != expected:
        place, wanted, got = where_they_differ(expected, found)
        raise MachineBroken(
            f"{how} loses something: the snapshots before and after differ from {place} on, on {name}\n"
            f"  {wanted} before\n  {got} after"
        )


def check_in_other_processes(machine: str, options: Mapping[str, str], chronicle: Chronicle) -> None:
    """
    Other processes, with other hash seeds, come to the same.

    @param machine: what `state_machine=` in raft.conf would say; `options` are the machine's there.
    :raises StateDiverged: one of them does not.
    """
    steps = [step.to_json() for step in steps_of(chronicle)]
    order = json.dumps({"machine": machine, "options": dict(options), "path": sys.path, "steps": steps})
    processes = [_process(hash_seed) for hash_seed in HASH_SEEDS]
    for process in processes:
        process.send(order)
    for hash_seed, difference in [(process.hash_seed, process.receive()) for process in processes]:
        require_none(difference, chronicle, f"a replica with PYTHONHASHSEED={hash_seed}")


class _Process:
    """Carries out one order a line, until its input ends."""

    def __init__(self, hash_seed: str) -> None:
        self.hash_seed = hash_seed
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from txraft.testing.replays import obey; obey()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        atexit.register(self._end)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def receive(self) -> Difference | None:
        """:raises RuntimeError: the process has ended; why, it has said on the standard error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process with PYTHONHASHSEED={self.hash_seed} has ended, status {self._end()}")
        fields = json.loads(line)
        return None if fields is None else Difference.from_json(fields)

    def _end(self) -> int:
        with contextlib.suppress(OSError):
            self._process.communicate()
        return self._process.wait()


_processes: dict[str, _Process] = {}


def _process(hash_seed: str) -> _Process:
    if hash_seed not in _processes or not _processes[hash_seed].is_running:
        _processes[hash_seed] = _Process(hash_seed)
    return _processes[hash_seed]


def obey() -> None:
    """The other process's program."""
    from txraft.plugins import find_state_machine

    # Whatever the machine prints is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        sys.path[:] = order["path"]
        machine = find_state_machine(order["machine"]).build(order["options"])
        difference = first_difference(machine, [Step.from_json(fields) for fields in order["steps"]])
        print(json.dumps(difference and difference.to_json()), file=answers, flush=True)
