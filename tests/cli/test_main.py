"""The command itself: quick to answer, complete in its help, machine-readable where it lists."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from support.command import python

from mmeb.cli.main import cli
from mmeb.tasks import TASKS

HEAVY = ("torch", "transformers", "datasets", "pandas", "scipy", "PIL", "numpy")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["tasks"],
        ["tasks", "--json"],
        ["run", "--help"],
        ["train", "--adapter", "e5v", "--show"],
    ],
)
def test_it_answers_without_importing_anything_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom mmeb.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = python("-c", code, *arguments)
    assert done.code == 0, done.err


def test_models_are_listed_without_torch() -> None:
    code = (
        "import sys\nfrom mmeb.cli.main import main\n"
        "try: main(['models'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = python("-c", code)
    assert done.code == 0, done.err


def test_every_command_of_the_help_has_a_help_of_its_own() -> None:
    runner = CliRunner()
    for name in cli.list_commands(click.Context(cli)):
        result = runner.invoke(cli, [name, "--help"])
        assert result.exit_code == 0, (name, result.output)
        assert "Usage:" in result.output


def test_tasks_as_json_are_a_list_of_objects() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["tasks", "--json"]).output)
    assert [entry["name"] for entry in listed] == [task.name for task in TASKS]
    assert {"name", "meta_task", "in_distribution", "query", "target", "train_subset"} <= listed[0].keys()
    assert listed[0]["meta_task"] == "classification"
    assert listed[0]["train_subset"] == "ImageNet_1K"
    assert {entry["meta_task"] for entry in listed} == {"classification", "vqa", "retrieval", "grounding"}


def test_tasks_can_be_chosen() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["tasks", "grounding", "WebQA", "--json"]).output)
    assert [entry["name"] for entry in listed] == [
        "WebQA",
        "MSCOCO",
        "RefCOCO",
        "RefCOCO-Matching",
        "Visual7W-Pointing",
    ]


def test_a_mistyped_command_is_a_mistake_with_the_nearest_name() -> None:
    result = CliRunner().invoke(cli, ["leaderbord"])
    assert result.exit_code == 2
    assert "No such command 'leaderbord': did you mean leaderboard?" in result.output


def test_a_terminal_is_neither_steered_nor_asked_for_characters_that_it_lacks() -> None:
    code = "import sys; from mmeb.cli.main import main; main(['run', '--model', 'demo', '--tasks', 'a\\x1b[2J\u732b'])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert b"There is no task 'a" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"Traceback" not in done.stderr
