"""Reading in a process of its own, with limited time, memory and rights."""
