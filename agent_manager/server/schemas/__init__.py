"""What the REST API takes and gives, as pydantic models: they make the JSON, check the input and are the OpenAPI."""
