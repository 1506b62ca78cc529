"""What an encoder's embedding is worth: tasks, linear and fine-tuned probes, baselines, tables."""
