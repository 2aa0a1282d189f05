"""The control plane's process."""
