"""Communities that pool or federate the reasoning traces a provider gave them."""
