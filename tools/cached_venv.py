"""Runs a Python script in a cached virtual environment, made on first use."""

import os
import subprocess
import sys
from pathlib import Path

NOT_AVAILABLE = 3  # exit status: something from outside this machine could not be had


def cache_folder():
    """The folder for what is downloaded once: $XDG_CACHE_HOME/longspan."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longspan"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def not_available(message):
    """Ends the script with one line and a status that a test can tell from a mistake of ours."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(NOT_AVAILABLE)


def pip(python, *arguments):
    """Runs pip quietly and without long retries; true if it succeeded."""
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check",
               "--retries", "1", "--timeout", "20", *arguments]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


def has_modules(python, modules):
    """Whether that Python finds all of the modules."""
    code = """import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"""
    return subprocess.run([python, "-c", code, *modules], check=False).returncode == 0


def enter(name, modules):
    """Goes on in the environment venv-NAME, which has the modules (named like their packages).

    Returns if the script already runs there; otherwise makes what is missing and starts the
    script again."""
    folder = cache_folder() / f"venv-{name}"
    python = folder / "bin" / "python"
    if Path(sys.prefix) == folder:
        return
    if not python.exists():
        command = [sys.executable, "-m", "venv", folder]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            not_available("cannot make a virtual environment (Debian: package python3-venv)")
    if not has_modules(python, modules) and not pip(python, "install", *modules):
        not_available(f"cannot install {', '.join(modules)} from PyPI")
    os.execv(python, [python, *sys.argv])
