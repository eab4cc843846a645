"""Learning from values of actions: the replay, copies that are regressed on, and the agents' common part."""
