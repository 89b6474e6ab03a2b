"""The shape of the source: who may import whom, and what may stand nowhere."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

ROOT = pathlib.Path(__file__).parents[1]

# Part of txraft -> what of txraft it may import. The longest name that fits a module counts.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "txraft": (),
    "txraft._proto": (),
    "txraft.errors": (),
    "txraft.framing": (),
    "txraft.pace": (),
    "txraft.core": ("txraft.core",),
    "txraft.interfaces": ("txraft.core.contact", "txraft.core.log", "txraft.core.messages", "txraft.core.snapshot"),
    "txraft.codec": (
        "txraft.core.log",
        "txraft.core.messages",
        "txraft.core.snapshot",
        "txraft._proto.raft_pb2",
        "txraft.errors",
        "txraft.interfaces",
    ),
    "txraft.storage": (
        "txraft.storage",
        "txraft.interfaces",
        "txraft.errors",
        "txraft.codec",
        "txraft.framing",
        "txraft.core.cluster_id",
        "txraft.core.log",
        "txraft.core.messages",
        "txraft.core.snapshot",
    ),
    "txraft.net": (
        "txraft.net",
        "txraft.interfaces",
        "txraft.errors",
        "txraft.codec",
        "txraft.framing",
        "txraft.pace",
        "txraft.core.cluster_id",
        "txraft.core.contact",
        "txraft.core.messages",
    ),
    "txraft.node": (
        "txraft.core",
        "txraft.interfaces",
        "txraft.errors",
        "txraft.forking",
        "txraft.images",
        "txraft.node",
        "txraft.sessions",
    ),
    "txraft.machines": (
        "txraft.machines",
        "txraft.images",
        "txraft.interfaces",
        "txraft.errors",
        "txraft.node",
        "txraft.config_syntax",
        "txraft.net.addresses",
        "txraft.net.writing",
    ),
    "txraft.admin": (
        "txraft.admin",
        "txraft.node",
        "txraft.core.change",
        "txraft.core.leader",
        "txraft.core.log",
        "txraft.core.membership",
        "txraft.core.raft",
        "txraft.config",
        "txraft.config_reading",
        "txraft.errors",
        "txraft.interfaces",
        "txraft.net.addresses",
        "txraft.net.failures",
        "txraft.pace",
        "txraft.plugins",
        "txraft.storage",
        "txraft.testing",
    ),
    "txraft.images": (),
    "txraft.answers": (),
    "txraft.sessions": ("txraft.answers", "txraft.errors"),
    "txraft.forking": ("txraft.errors",),
    "txraft.admin.recover": (
        "txraft.admin.recovery_plan",
        "txraft.config",
        "txraft.config_reading",
        "txraft.disk",
        "txraft.errors",
        "txraft.net.addresses",
        "txraft.node.news",
        "txraft.plugins",
        "txraft.storage.writer",
    ),
    "txraft.admin.restore": (
        "txraft.admin.progress",
        "txraft.config",
        "txraft.config_reading",
        "txraft.core.cluster_id",
        "txraft.core.membership",
        "txraft.core.snapshot",
        "txraft.errors",
        "txraft.interfaces",
        "txraft.plugins",
        "txraft.storage",
    ),
    "txraft.admin.recovery_plan": ("txraft.core", "txraft.interfaces", "txraft.storage.store"),
    "txraft.disk": ("txraft.config", "txraft.storage"),
    "txraft.plugins": ("txraft.interfaces", "txraft.errors"),
    "txraft.config_syntax": ("txraft.errors",),
    "txraft.reference": ("txraft.config", "txraft.machines"),
    "txraft.config": ("txraft.config_syntax", "txraft.errors", "txraft.net.addresses"),
    "txraft.config_reading": ("txraft.config", "txraft.config_syntax", "txraft.errors", "txraft.net.addresses"),
    "txraft.server": ("txraft.node", "txraft.errors", "txraft.net.addresses"),
    "txraft.tap": ("txraft",),
    "txraft.testing": ("txraft",),
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "yaml", "twisted.persisted", "twisted.spread"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50


def modules() -> Iterator[tuple[str, ast.Module, str]]:
    """Name, tree and text of every module that we wrote and ship."""
    for path in sorted([*ROOT.glob("txraft/**/*.py"), *ROOT.glob("twisted/plugins/*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith("txraft._proto."):
            text = path.read_text()
            yield name, ast.parse(text, str(path)), text


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that the tree imports anywhere; `from a import b` gives a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def wrong_imports(module: str, tree: ast.AST) -> list[str]:
    """What `module` imports of txraft and may not."""
    part = max((part for part in MAY_IMPORT if is_within(module, part)), key=len)
    allowed = MAY_IMPORT[part]
    return [
        name
        for name in imported(tree)
        if is_within(name, "txraft") and not any(is_within(name, package) for package in allowed)
    ]


def top_level_reactor_imports(tree: ast.Module) -> list[int]:
    """Lines on which importing the module imports the reactor."""
    inside = {id(node) for scope in ast.walk(tree) if is_function(scope) for node in ast.walk(scope)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and id(node) not in inside
        and "twisted.internet.reactor" in imported(ast.Module([node], []))
    ]


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def forbidden(tree: ast.AST) -> list[str]:
    """Ways in which bytes could become code."""
    calls = [
        f"{node.func.id}() on line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
    ]
    return [name for name in imported(tree) if any(is_within(name, module) for module in FORBIDDEN_MODULES)] + calls


class ImportTests(SynchronousTestCase):
    def test_nothing_is_imported_upward_or_sideways(self) -> None:
        ours = [(name, tree) for name, tree, _ in modules() if is_within(name, "txraft")]
        wrong = {name: found for name, tree in ours if (found := wrong_imports(name, tree))}
        self.assertEqual(wrong, {})

    def test_a_module_that_this_test_does_not_know_is_refused(self) -> None:
        unknown = [
            name
            for name, _, _ in modules()
            if name.startswith("txraft.") and not any(is_within(name, part) for part in MAY_IMPORT if part != "txraft")
        ]
        self.assertEqual(unknown, [])

    def test_the_core_imports_the_standard_library_only(self) -> None:
        for name, tree, _ in modules():
            if is_within(name, "txraft.core"):
                foreign = [
                    module
                    for module in imported(tree)
                    if module.split(".")[0] not in sys.stdlib_module_names and not is_within(module, "txraft.core")
                ]
                self.assertEqual(foreign, [], name)

    def test_framing_needs_a_checksum_and_nothing_else(self) -> None:
        for name, tree, _ in modules():
            if name == "txraft.framing":
                foreign = {module.split(".")[0] for module in imported(tree)} - sys.stdlib_module_names
                self.assertEqual(foreign, {"google_crc32c"})

    def test_only_the_codec_imports_the_generated_module(self) -> None:
        importers = [name for name, tree, _ in modules() if any("raft_pb2" in module for module in imported(tree))]
        self.assertEqual(importers, ["txraft.codec"])

    def test_no_module_imports_the_reactor_as_it_is_imported(self) -> None:
        found = {name: lines for name, tree, _ in modules() if (lines := top_level_reactor_imports(tree))}
        self.assertEqual(found, {})

    def test_nothing_turns_bytes_into_code(self) -> None:
        """T09"""
        self.assertEqual({name: found for name, tree, _ in modules() if (found := forbidden(tree))}, {})

    def test_twisted_plugins_stays_a_directory_without_init(self) -> None:
        self.assertEqual([*ROOT.glob("twisted/__init__.py"), *ROOT.glob("twisted/plugins/__init__.py")], [])


class SizeTests(SynchronousTestCase):
    def test_no_file_is_too_long_to_read(self) -> None:
        long = {name: count for name, _, text in modules() if (count := len(text.splitlines())) > MAX_FILE_LINES}
        self.assertEqual(long, {})

    def test_no_function_is_too_long_to_read(self) -> None:
        long = {
            f"{name}.{node.name}": length
            for name, tree, _ in modules()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
        }
        self.assertEqual(long, {})


class SelfTests(SynchronousTestCase):
    """The rules above find what they look for."""

    def test_planted_imports_are_found(self) -> None:
        cases = [
            ("txraft.core.log", "import txraft.errors", ["txraft.errors"]),
            ("txraft.net.peers", "from txraft.storage import wal", ["txraft.storage.wal"]),
            ("txraft.storage.wal", "def f():\n import txraft.node", ["txraft.node"]),
            ("txraft.storage.wal", "from txraft.core.log import Log", []),
        ]
        for module, source, found in cases:
            self.assertEqual(wrong_imports(module, ast.parse(source)), found)

    def test_planted_reactors_are_found(self) -> None:
        self.assertEqual(top_level_reactor_imports(ast.parse("from twisted.internet import defer, reactor")), [1])
        self.assertEqual(top_level_reactor_imports(ast.parse("if 1:\n import twisted.internet.reactor")), [2])
        self.assertEqual(top_level_reactor_imports(ast.parse("def f():\n from twisted.internet import reactor")), [])

    def test_planted_loopholes_are_found(self) -> None:
        self.assertEqual(forbidden(ast.parse("import pickle")), ["pickle"])
        self.assertEqual(forbidden(ast.parse("from yaml import load")), ["yaml.load"])
        self.assertEqual(forbidden(ast.parse("x = eval('1')")), ["eval() on line 1"])
