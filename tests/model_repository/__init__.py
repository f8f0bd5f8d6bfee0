"""A package, so that tests of one name in two folders do not collide."""
