"""Engines: one file per code and one entry point each, behind the contracts in ``base.py`` of each folder."""
