"""Finished runs for people: charts, the HTML report, comparisons."""
