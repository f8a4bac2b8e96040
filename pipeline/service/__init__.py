"""The survey's service: an inbox, a queue in the survey's catalogue, and workers that empty it."""
