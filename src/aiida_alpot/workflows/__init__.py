"""WorkChains: one per stage and the loop. They orchestrate, they do not compute."""
