"""A contract is reviewed; what people add on the way is taken into account at the place planned for it."""
