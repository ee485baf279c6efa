"""Before a run is queued: what it will take."""
