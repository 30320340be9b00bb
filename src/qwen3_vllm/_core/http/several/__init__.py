"""Several servers of one model, each of which does a share of the work."""
