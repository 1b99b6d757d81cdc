"""Labelling engines, entry-point group ``aiida_alpot.label``."""
