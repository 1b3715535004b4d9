"""The document review as a web page: start, watch the stages, approve."""
