"""Lets the tests of the methods, one folder down, import what stands here."""
