"""One run of anything: its folder, checkpoints, record and pictures, and the loop that trains
it."""
