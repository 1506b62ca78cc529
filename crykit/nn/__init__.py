"""Torch modules that training and export both build: the front end, the student, CNN14."""
