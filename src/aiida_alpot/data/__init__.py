"""The three data nodes that move between stages."""
