"""Models from the hubs, verified."""
