"""Prefect flows and the skysift command: thin wrappers around ``pipeline``; nothing else imports Prefect."""
