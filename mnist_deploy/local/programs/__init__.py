"""Programs that the control plane starts as clients of the workspace; nothing imports them."""
