"""Tickets are triaged by a model; a supervisor's hints reach the steps they are meant for while the run goes on."""
