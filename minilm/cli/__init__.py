"""The command `minilm`: main.py finds the verb, and each verb is a file.

rich (what is shown) and tyro (what is read from the command line) are imported only here, when a verb runs.
"""
