"""What models know, where it came from, and what scores are worth."""
