"""Kinds of broken and odd inputs, each with what comes of it; the table of docs/data.md is made of them.

python -m tests.support.odd_inputs.table     # writes it there
"""
