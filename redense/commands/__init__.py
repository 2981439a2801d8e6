"""The commands, a function each: flags in, a room's function called, an exit code out. Rooms are imported late."""
