"""The class grader: a folder of notebooks in, grades, feedback and a summary out.

    gradient-flow-grade submissions/ --seed-file seed.txt --roster roster.csv --out results/

Student code runs in a sandbox (`sandbox`, `slots`, `inside`); judging happens here, outside of it
(`grade`); the rest is paperwork. Start reading at `command`.
"""
