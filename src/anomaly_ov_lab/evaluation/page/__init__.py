"""The report of one measured set: a Markdown table, and one HTML page that opens offline. Loads no torch."""
