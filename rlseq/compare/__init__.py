"""Compare agents: equal budgets, several seeds, intervals that hold, and a report."""
