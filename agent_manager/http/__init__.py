"""The HTTP API: the endpoints of the A2A demo application, a REST API under ``/v1``, and the events as they come."""
