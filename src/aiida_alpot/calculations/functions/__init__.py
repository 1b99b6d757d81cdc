"""calcfunctions: unpack nodes, call the kernel once, pack nodes."""
