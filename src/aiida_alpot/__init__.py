"""Automated construction of machine-learning interatomic potentials by active learning, with AiiDA."""

__version__ = "0.1.0"
