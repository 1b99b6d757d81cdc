"""Ring 0, the science: numpy, scipy, ase and h5py, never aiida.

This package travels with every job as a reproducible zip, see :mod:`aiida_alpot.kernel.__main__`. Heavier packages
(torch, mace) are imported where they are used.
"""
