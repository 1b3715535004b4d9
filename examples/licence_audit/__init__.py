"""A dependency-licence audit as a Flowdeck flow: real input, retries, people in the loop, a report."""
