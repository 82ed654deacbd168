"""New items in a bundle that is in service, without a new training."""
