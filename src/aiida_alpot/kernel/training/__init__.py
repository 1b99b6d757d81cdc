"""Training of potentials: from a dataset to the input of an engine, and from its files to numbers."""
