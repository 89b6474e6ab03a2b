"""
`raftctl recover`: when a majority of a cluster's voters is gone for good, one server goes on with what it has.

For a server that does not run: its data directory is locked meanwhile. Nothing is changed before the cluster's name has
been typed.
"""

from __future__ import annotations

import argparse
import functools
import secrets
import sys
import textwrap
from collections.abc import Iterator

from txraft.admin.recovery_plan import CannotRecover, RecoveryPlan, Remains, carry_out, plan_recovery, remains_of
from txraft.config import Config
from txraft.config_reading import load_config
from txraft.disk import make_store
from txraft.errors import ConfigError, TxraftError
from txraft.net.addresses import format_address, parse_address
from txraft.node.news import sentence
from txraft.plugins import find_state_machine
from txraft.storage.writer import InlineWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes one server, which is stopped, a cluster of its own with what is on its disk. Only for a cluster whose "
        "majority is gone for good: what was committed without this server is lost. Shows what is there, and what may "
        "be lost, and asks for the cluster's name."
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the raft.conf of that server")
    parser.add_argument(
        "--members",
        default="",
        metavar="A,B,...",
        help="the members of the new cluster, this server among them; the others must be new servers with empty data "
        "directories, and are asked in when this one is started (default: this server alone)",
    )


def run(options: argparse.Namespace) -> int:
    """The exit status: 0 the server is such a cluster, 1 it is not, 2 the command or raft.conf cannot be understood."""
    find = functools.cache(find_state_machine)
    try:
        config = load_config(options.config, (), lambda wanted: str(find(wanted).name))
        members = [_member(text, config) for text in options.members.split(",") if text.strip()]
    except ExceptionGroup as problems:
        return _fail("\n".join(str(problem) for problem in problems.exceptions), 2)
    except (ConfigError, ValueError) as error:
        return _fail(str(error), 2)
    try:
        return _recover(config, members)
    except (TxraftError, CannotRecover, OSError) as error:
        return _fail(str(error), 1)


def _member(text: str, config: Config) -> str:
    return format_address(*parse_address(text.strip(), config.rpc_port))


def _fail(problem: str, status: int) -> int:
    print(f"raftctl: {problem}", file=sys.stderr)
    return status


def _recover(config: Config, members: list[str]) -> int:
    store = make_store(config, InlineWriter(), InlineWriter())
    recovered = store.open(must_exist=True)
    try:
        try:
            remains = remains_of(recovered)
        except ValueError as error:
            raise CannotRecover(f"{config.data_dir}: {error}") from error
        plan = plan_recovery(remains, members, secrets.randbits(32))
        if plan.is_done:
            print(f"{', '.join(plan.membership.wanted_voters)}: this is a cluster already; nothing was changed.")
            return 0
        print("\n".join(_account(plan, config)))
        if not _is_confirmed(config.cluster_name):
            return _fail("not confirmed; nothing was changed", 1)
        carry_out(plan, store)
    finally:
        store.close()
    print("\n".join(_farewell(plan)))
    return 0


def _is_confirmed(name: str) -> bool:
    print(f"Type the cluster's name, {name}, to go on: ", end="", flush=True)
    typed = sys.stdin.readline()
    if not sys.stdin.isatty():
        print()
    return typed.strip() == name


def _account(plan: RecoveryPlan, config: Config) -> Iterator[str]:
    """What is there, what is done, and what that may cost."""
    remains, entry = plan.remains, plan.entry
    server_id, last_index = remains.identity.server_id, remains.last_index
    yield f"{config.data_dir} is of server {server_id}; its raft.conf calls the cluster {config.cluster_name}."
    yield f"  cluster id: {remains.identity.cluster_id}"
    yield f"  term {remains.hard_state.term}, last entry {last_index} of term {remains.last_term}"
    yield f"  members (entry {remains.membership_index}): {sentence(remains.membership)}"
    yield f"  {_committed(remains)}"
    yield ""
    yield f"It becomes a cluster of its own: {sentence(plan.membership)}."
    yield f"  entry {entry.first_index} of term {entry.term} says so; cluster id: {plan.membership.cluster_id}"
    yield ""
    yield "What that may cost:"
    for cost in _costs(remains):
        yield textwrap.fill(cost, 100, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    yield ""


def _costs(remains: Remains) -> Iterator[str]:
    server_id, last_index = remains.identity.server_id, remains.last_index
    yield (
        f"What the others have committed behind entry {last_index} is lost, although clients know that it is done. "
        "If there are more survivors, recover the one whose last entry has the highest term, and of these the highest "
        f"index; here these are {remains.last_term} and {last_index}."
    )
    if remains.committed_index < last_index:
        yield (
            f"{_entries(remains.committed_index + 1, last_index)} will be committed, also what never was: "
            "clients may have been told otherwise."
        )
    if not remains.membership.is_voter(server_id):
        yield f"{server_id} is no voter: it may be far behind the others."
    yield "Old members that still run may go on serving clients without this server: stop them first, for good."
    yield (
        "They are refused from now on. To make one a member again, empty its data directory, take `servers` out of its "
        "raft.conf, start it, and add it."
    )


def _committed(remains: Remains) -> str:
    index, last_index = remains.committed_index, remains.last_index
    known = f"known to be committed: {f'up to entry {index}' if index else 'nothing'}"
    return known if index == last_index else f"{known}; not known: {_entries(index + 1, last_index).lower()}"


def _entries(first: int, last: int) -> str:
    return f"Entry {first}" if first == last else f"Entries {first} to {last}"


def _farewell(plan: RecoveryPlan) -> Iterator[str]:
    server_id = plan.remains.identity.server_id
    yield f"Done: {server_id} is a cluster of its own, {plan.membership.cluster_id}. Start it."
    if plan.membership.next_voters:
        yield "It asks the others in as soon as it leads; `raftctl why` says how far that is."
    yield "Then add servers with empty data directories: `raftctl add`."
