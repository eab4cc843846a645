"""Training: the loop, its run folder, checkpoints, alarms and checks."""
