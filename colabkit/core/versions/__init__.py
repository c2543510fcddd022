"""Other people's libraries, whose versions lie years apart: `differences` between them, and which ones were `tried` together."""
