"""The endpoints of the A2A demo application, in its shapes, so that its own client works unchanged."""
