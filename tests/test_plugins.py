"""How state machines are found, and what is said when they are not."""

from __future__ import annotations

import pathlib
import tempfile

import twisted.plugins
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import ConfigError
from txraft.plugins import find_state_machine, installed_state_machines

PLUGIN = """
from zope.interface import implementer
from txraft.interfaces import IStateMachinePlugin

@implementer(IStateMachinePlugin)
class Plugin:
    name = {name!r}
    description = "for a test"

plugin = Plugin()
"""


class PluginTests(SynchronousTestCase):
    def install(self, file: str, name: str) -> pathlib.Path:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.patch(twisted.plugins, "__path__", [*twisted.plugins.__path__, directory.name])
        path = pathlib.Path(directory.name) / f"{file}.py"
        path.write_text(PLUGIN.format(name=name))
        return path

    def problem(self, wanted: str) -> str:
        return self.assertRaises(ConfigError, find_state_machine, wanted).problem

    def test_a_plugin_is_found_by_its_name(self) -> None:
        self.install("acme_found", "acme")
        self.assertEqual(find_state_machine("acme").description, "for a test")

    def test_the_machine_that_ships_is_found(self) -> None:
        self.assertEqual(find_state_machine("kv").name, "kv")

    def test_an_unknown_name_lists_what_was_found(self) -> None:
        self.install("acme_listed", "acme")
        self.assertEqual(self.problem("acne"), "state_machine: there is no acne; installed: acme, kv")

    def test_two_plugins_of_one_name_are_refused_and_both_files_named(self) -> None:
        first, second = sorted([self.install("acme_first", "acme"), self.install("acme_second", "acme")])
        self.assertEqual(self.problem("acme"), f"state_machine: 2 plugins are called acme: {first} and {second}")

    def test_plugins_of_one_name_do_not_disturb_who_wants_another(self) -> None:
        self.install("acme_third", "acme")
        self.install("acme_fourth", "acme")
        self.assertEqual(find_state_machine("kv").name, "kv")

    def test_all_are_listed_by_name(self) -> None:
        self.install("acme_sorted", "zebra")
        self.assertEqual([plugin.name for plugin in installed_state_machines()], ["kv", "zebra"])

    def test_a_dotted_name_needs_no_plugin_file(self) -> None:
        found = find_state_machine("twisted.plugins.txraft_machines:kv")
        self.assertEqual(found.name, "kv")

    def test_a_dotted_name_that_cannot_be_imported_says_why(self) -> None:
        self.assertTrue(self.problem("no.such:thing").startswith("state_machine: cannot import no.such:thing: "))
        self.assertTrue(self.problem("txraft.errors:Nothing").startswith("state_machine: cannot import"))

    def test_a_dotted_name_of_something_else_is_refused(self) -> None:
        self.assertEqual(
            self.problem("txraft.errors:ConfigError"),
            "state_machine: txraft.errors:ConfigError is no IStateMachinePlugin",
        )
