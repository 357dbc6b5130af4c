"""Celery tasks that turn a recording into a transcript, and the state they share."""
