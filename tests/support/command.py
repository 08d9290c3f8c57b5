"""The command line: in the test's own process, or in one of its own where the process itself is what is tested."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmeb.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def mmeb(*arguments: Any) -> Outcome:
    """`mmeb ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exited:
        main([str(argument) for argument in arguments])
    return Outcome(int(exited.value.code or 0), out.getvalue(), err.getvalue())


def python(*arguments: Any, cwd: Path | None = None, env: Mapping[str, Any] | None = None) -> Outcome:
    """`python ARGUMENTS` in a process of its own; the variables of `env` are set beside those of this process."""
    command = [sys.executable, *map(str, arguments)]
    variables = os.environ | {name: str(value) for name, value in (env or {}).items()}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def mmeb_process(*arguments: Any, cwd: Path | None = None, env: Mapping[str, Any] | None = None) -> Outcome:
    """`mmeb ARGUMENTS` in a process of its own."""
    return python("-m", "mmeb", *arguments, cwd=cwd, env=env)
