"""One fit, stage by stage: a function of a plan."""
