"""Recordings before training: importers, licences, shards, the leakage audit."""
