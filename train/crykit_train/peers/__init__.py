"""Models of others, as teachers and for comparison. Their weights are the user's to bring."""
