"""Conformance suites and tools for tests, shipped so that a plug-in can be held to what the built-in ones pass.

A suite is an abstract pytest class; a plug-in's test inherits it and gives one fixture. Nothing here is used when a
study runs, and pytest is needed only by the suites themselves.
"""
