"""Other people's libraries, with versions years apart: `differences` between them, and which were `tried` together."""
