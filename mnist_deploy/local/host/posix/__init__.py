"""Linux and macOS; never run on macOS."""
