"""Training: composed sequences, the detector, its evaluation and its thresholds."""
