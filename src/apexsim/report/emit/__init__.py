"""Files that start a plan: scripts, compose files, manifests, and the benchmark that measures it (floor 6); `formats` has the table."""
