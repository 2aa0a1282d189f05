"""Windows: the modules and names of `posix`, which has their docstrings."""
