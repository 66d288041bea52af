"""Puts this folder on the path, so that tests in subfolders can import `naive` and `toy_costs`."""
