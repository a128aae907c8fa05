"""The REST API below ``/v1``, and the health endpoints. Models that one module uses are defined in it."""
