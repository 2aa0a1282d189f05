"""The workspace itself, whatever its clients speak: what is registered, what runs."""
