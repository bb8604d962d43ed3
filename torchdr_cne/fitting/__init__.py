"""One fit, carried out stage by stage as a function of a plan."""
