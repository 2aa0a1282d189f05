"""What runs in a container's process."""
