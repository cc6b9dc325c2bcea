"""Results at two revisions: what changed, by how much, is it more than noise, and why."""
