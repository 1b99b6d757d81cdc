"""The command line: ``aiida-alpot`` and ``verdi data alpot.…``."""

from aiida_alpot.cli.main import main

__all__ = ["main"]
