"""Training engines, entry-point group ``aiida_alpot.train``."""
