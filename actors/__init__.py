"""The processes: Ray actors and the engines and task models that run inside them."""
