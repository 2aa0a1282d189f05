"""Programs that the control plane starts as client processes; no module imports them."""
