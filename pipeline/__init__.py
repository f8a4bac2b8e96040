"""From an observation to a catalogue: tiles, merging, measurement, reliability, scoring."""
