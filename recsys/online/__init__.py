"""Stores of users' newest histories, which take events while they are served from."""
