"""The parser of aiida-cp2k, with an exit code for what CP2K does not treat as an error."""

from __future__ import annotations

from typing import Any

from aiida_cp2k.parsers import Cp2kBaseParser

from aiida_alpot.kernel.labelling.cp2k_output import NOT_CONVERGED


class Cp2kLabelParser(Cp2kBaseParser):  # type: ignore[misc]  # aiida-cp2k has no types
    """Ends with 450 where the electronic loop did not converge: CP2K up to 2023 only warns, and goes on."""

    def _check_stdout_for_errors(self, output_string: str) -> Any:
        if NOT_CONVERGED in output_string:
            return self.exit_codes.ERROR_SCF_NOT_CONVERGED
        return super()._check_stdout_for_errors(output_string)
