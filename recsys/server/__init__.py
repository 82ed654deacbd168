"""A bundle over HTTP, and over MCP: asks `recsys.serving`, never the training stack."""
