"""Teachers: what answers a prompt with a rationale."""
