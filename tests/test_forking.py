"""Jobs in forked children: real ones, beside threads, sockets and a busy disk."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import children
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from txraft.errors import ChildFailed
from txraft.forking import Forker, IForker

reactor: Any = installed_reactor


async def until(condition: Callable[[], object]) -> None:
    poll = LoopingCall(lambda: poll.stop() if condition() else None)
    await poll.start(0.01)


@pytest.mark.process
class ForkerTests(TestCase):
    timeout = 20

    async def setUp(self) -> None:
        await deferLater(reactor, 0)  # whatever a reactor opens when it first runs, it has now
        self.forker = Forker(reactor, silence_s=60)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "written")
        self.children = children()
        self.descriptors = len(os.listdir("/proc/self/fd"))

    def tearDown(self) -> None:
        self.assertEqual(children(), self.children)
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.descriptors)

    def test_provides_its_interface(self) -> None:
        self.assertTrue(verifyObject(IForker, self.forker))

    async def test_the_job_sees_the_memory_of_the_moment_and_changes_none(self) -> None:
        state = ["before"]

        def job(alive: Callable[[], None]) -> None:
            state.append("child")
            self.path.write_text(repr(state))

        done = self.forker.run(job)
        state.append("after")
        await done
        self.assertEqual(self.path.read_text(), "['before', 'child']")
        self.assertEqual(state, ["before", "after"])

    async def test_what_a_job_raises_is_told(self) -> None:
        def job(alive: Callable[[], None]) -> None:
            alive()
            raise ValueError("no room")

        with self.assertRaisesRegex(ChildFailed, "^ValueError: no room$") as caught:
            await self.forker.run(job)
        self.assertEqual(caught.exception.raised, "ValueError")

    async def test_a_child_that_dies_is_told(self) -> None:
        with self.assertRaisesRegex(ChildFailed, "^signal 9$"):
            await self.forker.run(lambda alive: os.kill(os.getpid(), signal.SIGKILL))
        with self.assertRaisesRegex(ChildFailed, "^it ended without a word$") as caught:
            await self.forker.run(lambda alive: os._exit(0))
        self.assertEqual(caught.exception.raised, "")

    async def test_a_silent_child_is_killed(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        with self.assertRaisesRegex(ChildFailed, "^killed: silent for 0.5 s$"):
            await Forker(reactor, silence_s=0.5).run(lambda alive: lock.acquire() or None)

    async def test_a_child_that_gives_signs_of_life_is_left_alone(self) -> None:
        def job(alive: Callable[[], None]) -> None:
            for _ in range(40):
                time.sleep(0.1)
                alive()

        await Forker(reactor, silence_s=2).run(job)

    async def test_cancelling_kills(self) -> None:
        done = self.forker.run(lambda alive: time.sleep(1000))
        done.cancel()
        with self.assertRaises(CancelledError):
            await done
        await until(lambda: children() == self.children)
        await until(lambda: len(os.listdir("/proc/self/fd")) == self.descriptors)

    async def test_a_child_holds_no_socket_of_its_parent(self) -> None:
        here, there = socket.socketpair()
        done = self.forker.run(lambda alive: time.sleep(1000))
        here.close()
        there.settimeout(60)
        self.assertEqual(there.recv(1), b"")
        there.close()
        done.addErrback(lambda failure: failure.trap(CancelledError) and None)
        done.cancel()
        await until(lambda: children() == self.children)
        await until(lambda: len(os.listdir("/proc/self/fd")) == self.descriptors)

    async def test_a_child_ends_when_its_parent_does(self) -> None:
        def parent(alive: Callable[[], None]) -> None:
            pid = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == pid:
                time.sleep(0.01)
            alive()
            self.path.write_text("still here")
            os._exit(0)

        with self.assertRaises(ChildFailed):
            await self.forker.run(parent)
        self.assertFalse(self.path.exists())

    async def test_signal_handlers_of_the_parent_do_not_run_in_the_child(self) -> None:
        old = signal.signal(signal.SIGTERM, lambda *_: self.path.write_text("ran"))
        try:
            with self.assertRaisesRegex(ChildFailed, f"^signal {int(signal.SIGTERM)}$"):
                await self.forker.run(lambda alive: os.kill(os.getpid(), signal.SIGTERM))
        finally:
            signal.signal(signal.SIGTERM, old)
        self.assertFalse(self.path.exists())
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), set())
