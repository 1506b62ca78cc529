"""The night report: from the event log to one page that a tired parent can read."""
