"""The ways in: HTTP API, RunPod handler and command line; none of them loads a model."""
