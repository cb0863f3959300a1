"""The graded tasks: one module per exercise notebook, each with its `TASKS` in order.

A module is imported when one of its tasks is asked for; none imports a framework.
"""
