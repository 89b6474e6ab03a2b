"""
Sessions of clients: what makes a command that is proposed again be carried out once. Thesis §6.3.

An entry of the log opens a session, and names it; a command in it carries a sequence number of the client's. Every
server keeps the answers until the client says that it has had them. What is kept is decided by the log alone, so all
servers have the same table at the same index, and it goes into snapshots beside the state that it belongs to. Also its
bounds come with the entries, from the leader that appended them: servers need not be configured alike.

What an entry of kind SESSION holds, the highest byte of a number first:

    "o"  4 bytes nonce, 4 the most sessions, 4 the most answers of this one
    "c"  8 bytes index and 4 nonce of the session, 8 sequence, 8 lowest sequence without an answer; then the command

In a snapshot each session, the least recently used first, and behind it its answers:

    "o"  8 bytes index, 4 nonce, 8 lowest sequence, 4 the most answers
    "a"  8 bytes sequence, 4 length; the answer, as `txraft.answers` has it
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import attrs
from twisted.python.failure import Failure

from txraft.answers import NotKeepable, decode_answer, encode_answer, encode_refusal
from txraft.errors import AnswerNotKept, Overloaded, SessionExpired

CHUNK_BYTES = 64 << 10
"""About so much of a table is one chunk of a snapshot."""

MAX_SEQUENCE = 2**64 - 1

_OPENING = struct.Struct(">III")
_COMMAND = struct.Struct(">QIQQ")
_SESSION = struct.Struct(">QIQI")
_ANSWER = struct.Struct(">QI")
_OPEN, _IN_SESSION, _ANSWERED = b"o", b"c", b"a"
_ID = re.compile(r"([1-9]\d{0,18})-([0-9a-f]{8})", re.ASCII)
_PENDING = b""
CARRY_OUT = object()

Key = tuple[int, int]
"""
A session's index in the log, and its nonce: a cluster that was restored or recovered goes on from an index that another
had too, and must not take that one's sessions for its own.
"""


def id_of(key: Key) -> str:
    """What clients call a session."""
    return f"{key[0]}-{key[1]:08x}"


def key_of(session_id: str) -> Key:
    """@raise ValueError: no session is called so."""
    found = _ID.fullmatch(session_id)
    if found is None:
        raise ValueError(f"a session's id is an index and eight hexadecimal digits, not {session_id!r}")
    return int(found[1]), int(found[2], 16)


@attrs.frozen
class Opening:
    """An entry that opens a session. If there are more than `max_sessions` then, the least recently used go."""

    nonce: int
    max_sessions: int
    max_answers: int

    def encode(self) -> bytes:
        return _OPEN + _OPENING.pack(self.nonce, self.max_sessions, self.max_answers)


@attrs.frozen
class SessionCommand:
    """
    An entry with a command in a session. Answers to sequences below `lowest` need not be kept any more.

    1 <= `lowest` <= `sequence` <= `MAX_SEQUENCE`; a client may leave out sequences.
    """

    session: Key
    sequence: int
    lowest: int
    command: bytes

    @classmethod
    def of(cls, session_id: str, sequence: int, lowest: int, command: bytes) -> SessionCommand:
        """
        @raise ValueError: no such session or sequence can be; `TypeError`: the command is not bytes, or a sequence no
            integer.
        """
        if type(command) is not bytes:
            raise TypeError(f"a command is bytes, not {type(command).__name__}")
        for number in (sequence, lowest):
            if not isinstance(number, int):
                raise TypeError(f"a sequence is an int, not {type(number).__name__}")
        if not 1 <= lowest <= sequence <= MAX_SEQUENCE:
            raise ValueError(
                f"sequence {sequence} of session {session_id}, {lowest} the lowest: expected "
                "1 <= lowest <= sequence < 2**64"
            )
        return cls(key_of(session_id), sequence, lowest, command)

    def encode(self) -> bytes:
        return _IN_SESSION + _COMMAND.pack(*self.session, self.sequence, self.lowest) + self.command


def decode_entry(data: bytes) -> Opening | SessionCommand:
    """@raise ValueError: it is neither; a leader of a later version has appended it."""
    if data[:1] == _OPEN and len(data) == 1 + _OPENING.size:
        return Opening(*_OPENING.unpack_from(data, 1))
    if data[:1] == _IN_SESSION and len(data) > _COMMAND.size:
        index, nonce, sequence, lowest = _COMMAND.unpack_from(data, 1)
        return SessionCommand((index, nonce), sequence, lowest, data[1 + _COMMAND.size :])
    raise ValueError(f"an entry of a session that this version does not know, {data[:1]!r} and {len(data) - 1} bytes")


class _Session:
    """
    One session. `answers` are by sequence, all of them `lowest` or above; `_PENDING` while a command is being carried
    out. `images` is how many images of the table had been made before this object: a later one may hold it, and then it
    never changes again.
    """

    __slots__ = ("answers", "images", "lowest", "max_answers")

    def __init__(self, images: int, lowest: int, max_answers: int, answers: dict[int, bytes]) -> None:
        self.images = images
        self.lowest = lowest
        self.max_answers = max_answers
        self.answers = answers

    def raise_lowest(self, lowest: int) -> None:
        if lowest > self.lowest:
            # A client that has no other command under way raises it by one each time, whatever is kept.
            if lowest - self.lowest < len(self.answers):
                for sequence in range(self.lowest, lowest):
                    self.answers.pop(sequence, None)
            else:
                for sequence in [each for each in self.answers if each < lowest]:
                    del self.answers[sequence]
            self.lowest = lowest


class SessionTable:
    """
    The sessions of a cluster as they are at one index of its log. Its length is how many there are.

    What changes which sessions and sequences are in it happens in `open` and `admit`, entry by entry: so it does not
    matter how many commands a server gives to its machine at a time, and when `answer` is called.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[Key, _Session] = OrderedDict()  # the least recently used first
        self._images = 0

    def __len__(self) -> int:
        return len(self._sessions)

    # -- what the log says

    def open(self, index: int, opening: Opening) -> str:
        """A new session, by the entry at `index`; its id."""
        key = (index, opening.nonce)
        self._sessions[key] = _Session(self._images, 1, opening.max_answers, {})
        while len(self._sessions) > max(1, opening.max_sessions):
            self._sessions.popitem(last=False)
        return id_of(key)

    def is_pending(self, entry: SessionCommand) -> bool:
        """Whether the command was admitted, and its answer is not known yet."""
        session = self._sessions.get(entry.session)
        return session is not None and session.answers.get(entry.sequence) == _PENDING

    def admit(self, entry: SessionCommand) -> object:
        """
        `CARRY_OUT`: do so, and say `answer` before the same command is admitted again. Else nothing is to be done, and
        this is what to say to the client: the answer that is kept, or a `Failure`.
        """
        if entry.session not in self._sessions:
            return Failure(SessionExpired(id_of(entry.session)))
        session = self._changing(entry.session)
        self._sessions.move_to_end(entry.session)
        session.raise_lowest(entry.lowest)
        if entry.sequence < session.lowest:
            return Failure(AnswerNotKept(f"its client has said that it wants no answer to command {entry.sequence}"))
        kept = session.answers.get(entry.sequence)
        if kept is not None:
            return _outcome(kept)
        # A bound on sequences, not on answers: what comes later must not keep out the command that is waited for.
        if entry.sequence >= session.lowest + session.max_answers:
            return Failure(Overloaded("max_session_answers", session.max_answers))
        session.answers[entry.sequence] = _PENDING
        return CARRY_OUT

    def answer(self, entry: SessionCommand, result: object) -> object:
        """An admitted command has had this result; what to say to its client."""
        try:
            encoded = encode_answer(result)
        except NotKeepable as error:
            encoded, result = encode_refusal(error), Failure(_not_kept(error))
        session = self._changing(entry.session)
        if entry.sequence in session.answers:
            session.answers[entry.sequence] = encoded
        return result

    def _changing(self, key: Key) -> _Session:
        """A session that is about to change: another one, if an image has it as it was."""
        session = self._sessions[key]
        if session.images != self._images:
            session = _Session(self._images, session.lowest, session.max_answers, session.answers.copy())
            self._sessions[key] = session
        return session

    # -- snapshots

    def image(self) -> Iterator[bytes]:
        """
        The table as it is now, in chunks, each made when it is asked for, on any thread; none if it is empty.

        Cost: a list of the sessions now, and of each that changes a copy then.
        """
        self._images += 1
        # Not the items: to make a tuple of each costs several times as much.
        return _chunks(zip([*self._sessions], [*self._sessions.values()], strict=True))

    def chunks(self) -> Iterator[bytes]:
        """What `image` would be, for who is done with it before the table changes: costs nothing when it does."""
        return _chunks(self._sessions.items())

    def add(self, chunk: bytes) -> None:
        """
        The next chunk of an image, to a table that began empty.

        @raise ValueError: it is none.
        """
        try:
            self._add(chunk)
        except struct.error as error:
            raise ValueError(f"a table of sessions that ends too soon: {error}") from None

    def _add(self, chunk: bytes) -> None:
        at, session = 0, next(reversed(self._sessions.values()), None)
        while at < len(chunk):
            letter = chunk[at : at + 1]
            if letter == _OPEN:
                index, nonce, lowest, max_answers = _SESSION.unpack_from(chunk, at + 1)
                session = self._sessions[index, nonce] = _Session(self._images, lowest, max_answers, {})
                at += 1 + _SESSION.size
            elif letter == _ANSWERED and session is not None:
                sequence, length = _ANSWER.unpack_from(chunk, at + 1)
                at += 1 + _ANSWER.size + length
                session.answers[sequence] = chunk[at - length : at]
                if at > len(chunk):
                    raise ValueError(f"a table of sessions with an answer that ends {at - len(chunk)} bytes too soon")
            else:
                raise ValueError(f"a table of sessions with something unknown in it, {letter!r}")

    def become(self, other: SessionTable) -> None:
        """Be what `other` is, which must not be used any more."""
        self._sessions, self._images = other._sessions, other._images


def _outcome(kept: bytes) -> object:
    answer = decode_answer(kept)
    return Failure(_not_kept(answer)) if isinstance(answer, NotKeepable) else answer


def _not_kept(why: NotKeepable) -> AnswerNotKept:
    return AnswerNotKept(f"the command was carried out, but {why}")


def _items(sessions: Iterable[tuple[Key, _Session]]) -> Iterator[bytes]:
    for key, session in sessions:
        yield _OPEN + _SESSION.pack(*key, session.lowest, session.max_answers)
        for sequence, answer in session.answers.items():
            yield _ANSWERED + _ANSWER.pack(sequence, len(answer)) + answer


def _chunks(sessions: Iterable[tuple[Key, _Session]]) -> Iterator[bytes]:
    chunk = bytearray()
    for item in _items(sessions):
        chunk += item
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
