"""Public helpers for tests: toy models, fixtures and the contracts that engines and potentials must pass."""
