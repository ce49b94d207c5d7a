"""The file format of every job: the pydantic model is the documentation of the YAML file."""
