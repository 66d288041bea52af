"""The page with a form, and the interface for programs, served to this machine (floor 7)."""
