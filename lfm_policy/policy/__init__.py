"""Policies: from observations to executable actions."""
