"""What must hold when things go wrong: real server processes, killed, starved, stalled, refused."""
