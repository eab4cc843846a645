"""The engine: a policy writes the episodes of a task, and the result is a `Rollout`."""
