"""Exploration engines, entry-point group ``aiida_alpot.explore``."""
