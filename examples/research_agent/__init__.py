"""An agent that looks things up with tools, answers with its sources, and keeps the evidence in a workspace."""
