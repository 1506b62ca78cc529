"""What the terminal app is made of. No widget knows the engine; the app hands them values."""
