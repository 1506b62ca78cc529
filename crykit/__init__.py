"""On-device infant-cry detection: audio, streaming engine, events, bundle and runtimes."""

__version__ = "0.1.0"
