"""Tasks as Markov decision processes: `SequenceEnv`, its Gymnasium view, and the registry of ids."""
