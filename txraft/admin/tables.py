"""
What people are shown of the answers of `Operations`, as lines of text: the command line and the manhole share it.

What a server says goes to a terminal: everything that is not printable is shown as an escape.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

Answer = dict[str, Any]

GAP = "  "
MAX_LINK_COLUMNS = 40


def printable(value: object) -> str:
    """`value` as text that does nothing to a terminal; None is a dash."""
    text = "-" if value is None else str(value)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns under their names; a column that holds nothing but numbers and dashes is aligned to the right."""
    rows = list(rows)
    texts = [list(header), *([printable(_shown(value)) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    is_number = [
        bool(rows) and all(isinstance(row[place], int | float | None) for row in rows) for place in range(len(header))
    ]
    lines = (
        GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        )
        for line in texts
    )
    return [line.rstrip() for line in lines]


def facts(pairs: Sequence[tuple[str, object]]) -> list[str]:
    """Names and values, one below the other."""
    width = max(len(name) for name, _ in pairs)
    return [f"{name:{width}}{GAP}{printable(_shown(value))}".rstrip() for name, value in pairs]


def _place(member: Answer) -> str:
    """The server, and where it is if that is not its id."""
    server_id, address = member["server_id"], member["address"]
    return str(server_id) if address == server_id else f"{server_id} at {address}"


def members(found: Sequence[Answer]) -> list[str]:
    """
    The members of a cluster; what only a leader knows is a dash elsewhere. Why a link is down stands below the table
    if that is long.
    """
    if not found:
        return ["This server belongs to no cluster."]
    header = ("server", "role", "link", "clients", "admin", "has", "lacks", "silent s")
    rows = [
        (
            _place(member),
            "leader" if member["is_leader"] else member["role"],
            _short(member["link"]),
            member["client_address"] or None,
            member["admin_address"] or None,
            member["match_index"],
            member["lag"],
            member["silent_s"],
        )
        for member in found
    ]
    long = [member for member in found if _short(member["link"]) != member["link"]]
    return [*table(header, rows), *(printable(f"{member['server_id']}: {member['link']}") for member in long)]


def _short(link: str) -> str:
    """The state of a link, such that the table stays one."""
    if len(link) > MAX_LINK_COLUMNS:
        link = link.partition(": ")[0]  # what it is; why stands behind that
    return link if len(link) <= MAX_LINK_COLUMNS else link[: MAX_LINK_COLUMNS - 3].rstrip() + "..."


def status(found: Answer) -> list[str]:
    """One server: who it is, what it does, the members as it knows them, and what it waits for."""
    storage, snapshots = found["storage"], found["snapshots"]
    transfers = ", ".join(f"{snapshots[name]} {name}" for name in ("sent", "received"))
    segments = f"{storage['segments']} segment{'' if storage['segments'] == 1 else 's'}"
    pairs = [
        ("server", found["server_id"]),
        ("cluster", found["cluster_id"] or None),
        ("role", found["role"]),
        ("term", found["term"]),
        ("leader", found["leader_id"]),
        ("last index", f"{found['last_index']:,} ({found['durable_index']:,} on disk)"),
        ("committed", f"{found['commit_index']:,} ({found['applied_index']:,} applied)"),
        ("log", f"{found['log_entries']:,} entries, {size(storage['log_bytes'])} in {segments}"),
        ("snapshot", _newest(snapshots)),
        ("snapshots", f"{snapshots['taking']['taken']} taken, {transfers}, since the start"),
        *((f"snapshot {each['direction']}", _transfer(each)) for each in snapshots["transfers"]),
        ("up for", duration(found["uptime_s"])),
    ]
    if snapshots["taking"]["failure"]:
        pairs.append(("snapshot failed", snapshots["taking"]["failure"]))
    if found["failure"]:
        pairs.append(("failure", found["failure"]))
    return [*facts(pairs), "", *members(found["members"]), "", *why(found["waiting_for"])]


def _newest(snapshots: Answer) -> str | None:
    """The newest snapshot, as far as it is known."""
    if not snapshots["index"]:
        return None
    when = datetime.datetime.fromtimestamp(snapshots["time_ms"] / 1000, datetime.UTC)
    parts = [f"of entry {snapshots['index']:,} of {when:%Y-%m-%d %H:%M:%S} UTC", size(snapshots["size"])]
    if snapshots["age_s"] is not None:
        parts.append(f"{duration(snapshots['age_s'])} old")
    if snapshots["taking"]["index"] == snapshots["index"]:
        parts.append(taken_in(snapshots["taking"]))
    return ", ".join(parts)


def taken_in(taking: Answer) -> str:
    """How long a snapshot took, and for how long the server did nothing else."""
    return f"taken in {taking['seconds']:.2f} s with a stall of {taking['stall_s'] * 1000:.1f} ms"


def _transfer(transfer: Answer) -> str:
    """A snapshot on its way to or from another server."""
    remaining_s = transfer["remaining_s"]
    to_go = "nothing has come yet" if remaining_s is None else f"{duration(remaining_s)} to go"
    return f"{transfer['server_id']}: {_part(transfer)}, {size(round(transfer['bytes_per_s']))}/s, {to_go}"


def _part(transfer: Answer) -> str:
    percent = 100 * transfer["bytes"] // max(transfer["size"], 1)
    return f"{size(transfer['bytes'])} of {size(transfer['size'])} ({percent} %)"


def why(sentences: Sequence[str]) -> list[str]:
    """What a server waits for."""
    if not sentences:
        return ["It waits for nothing."]
    return [printable(sentence) for sentence in sentences]


def snapshot(taken: Answer) -> list[str]:
    """A snapshot that was asked for."""
    how = "was there already" if taken["seconds"] is None else taken_in(taken)
    return [f"Everything up to entry {taken['last_index']:,} is in it: {size(taken['bytes'])}, {how}."]


def plan(found: Answer) -> list[str]:
    """What a change would lead to."""
    before, after = found["before"], found["after"]
    rows = [
        ("voters", *(_names(half["voters"]) for half in (before, after))),
        ("learners", *(_names(half["learners"]) for half in (before, after))),
        ("quorum", *(f"{half['quorum']} of {len(half['voters'])}" for half in (before, after))),
        ("survives", *(_failures(half["failures_survived"]) for half in (before, after))),
    ]
    lines = table(("", "before", "after"), rows)
    for server in found["servers"]:
        detail = (
            "can be reached from the leader"
            if server["is_reachable"]
            else f"NOT REACHABLE: {server['detail'].rstrip('.')}"
        )
        lines.append(f"{printable(server['server_id'])}: {printable(detail)}.")
    lines += map(printable, found["notes"])
    if before == after and not found["servers"] and not found["refusal"]:
        lines.append("It is so already: nothing would change.")
    if found["refusal"]:
        lines.append(f"REFUSED: {printable(found['refusal'])}.")
    return lines


def progress(found: Answer) -> str:
    """How far a change has come, in one line; empty if there is nothing to say."""
    snapshots = {transfer["server_id"]: transfer for transfer in found["snapshots"]}
    parts = [_catching_up(server, snapshots.get(server["server_id"])) for server in found["catching_up"]]
    if found["hand_over_to"]:
        parts.append(f"handing over to {printable(found['hand_over_to'])}")
    return "; ".join(parts)


def log(found: Answer) -> list[str]:
    """A page of the log."""
    header = ["index", "term", "kind", "bytes"]
    names = ["index", "term", "kind", "bytes", *(["payload"] if any("payload" in e for e in found["entries"]) else [])]
    rows = [[entry.get(name) for name in names] for entry in found["entries"]]
    end = f"Entries {found['first_index']:,} to {found['last_index']:,}; committed up to {found['commit_index']:,}."
    return [*table([*header, *names[len(header) :]], rows), end]


def size(count: int) -> str:
    """`count` bytes."""
    return f"{count:,} bytes" if count < 1 << 20 else f"{count / (1 << 20):,.1f} MiB"


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds, as far as they are worth it."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hour} h {minute} min"
    return f"{minute} min {second} s" if minutes else f"{second} s"


def _catching_up(server: Answer, snapshot: Answer | None) -> str:
    if snapshot is not None:
        return f"{printable(server['server_id'])} catches up by a snapshot: {_part(snapshot)}"
    goal, match = server["goal_index"], min(server["match_index"], server["goal_index"])
    percent = 100 * match // goal if goal else 0
    return (
        f"{printable(server['server_id'])} catches up: round {server['round']} of at most {server['rounds']}, "
        f"entry {match:,} of {goal:,} ({percent} %)"
    )


def _shown(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else value


def _names(server_ids: Sequence[str]) -> str | None:
    return ", ".join(server_ids) or None


def _failures(count: int) -> str:
    return f"{count} failure{'' if count == 1 else 's'}"
