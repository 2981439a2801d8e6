"""What nobody needs to read first: how weights are read, chosen, packed, shared among ranks and
zeroed."""
