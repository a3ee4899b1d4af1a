"""Pieces that several tabs share: fields, clickable lists, charts, polling, the job bar."""
