"""Other systems that people would pick, drained on the same servers in the same run.

Each has an adapter here, which stores no-op jobs and runs them with the system's own worker at its best setting.
"""
